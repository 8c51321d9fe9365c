"""The loss of each group of sites in each scheme, measured or estimated from one gradient."""

from sensprobe.sensitivity.groups import Group, groups_of
from sensprobe.sensitivity.measured import Sensitivity, differences, measured, pairs_of
from sensprobe.sensitivity.taylor import taylor

__all__ = ["Group", "Sensitivity", "differences", "groups_of", "measured", "pairs_of", "taylor"]
