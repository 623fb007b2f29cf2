"""Parallel Self-Distillation: `method` declares it, `partitions` cuts the classes."""

from udlib.methods.parallel.method import *  # noqa: F403
from udlib.methods.parallel.method import GROUPS, STRATEGIES  # noqa: F401
