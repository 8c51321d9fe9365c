"""What each target loses in each scheme: measured one at a time, or estimated from one gradient."""

from sensprobe.sensitivity.measured import Sensitivity, differences, measured, pairs_of
from sensprobe.sensitivity.targets import Target, targets
from sensprobe.sensitivity.taylor import taylor

__all__ = ["Sensitivity", "Target", "differences", "measured", "pairs_of", "targets", "taylor"]
