"""Parallel Self-Distillation: `method` declares it, `partitions` cuts the classes."""

from udlib.methods.moved import moved_names
from udlib.methods.parallel.clustering import (
    Parts,
    cooccurrence_partition,
    disoccurrence_partition,
    label_affinity,
    random_partition,
    require_partition,
    stored_partition,
)
from udlib.methods.parallel.method import (
    GROUPS,
    METHOD,
    STRATEGIES,
    ParallelSelfDistillation,
    Settings,
    parallel_loss,
    partitions,
    scattered,
)

__all__ = [
    "GROUPS",
    "METHOD",
    "STRATEGIES",
    "ParallelSelfDistillation",
    "Parts",
    "Settings",
    "cooccurrence_partition",
    "disoccurrence_partition",
    "label_affinity",
    "parallel_loss",
    "partitions",
    "random_partition",
    "require_partition",
    "scattered",
    "stored_partition",
]

__getattr__ = moved_names(
    __name__,
    train_parallel="udlib.workshop.old_names:train_parallel",
)
