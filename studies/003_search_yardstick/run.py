"""Enumerate the yardstick's plans, then ask what each search finds of their front."""

import sys
from pathlib import Path

import space

if sys.argv[1] == "--enumerate":
    space.enumerate_plans(Path(sys.argv[2]))
