"""`python -m sensprobe`: the command line."""

import sys

from sensprobe.cli import main

sys.exit(main())
