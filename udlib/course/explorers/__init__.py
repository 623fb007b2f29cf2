"""Explorers: sliders over values that exist, beside a picture that is already drawn."""

from udlib.course.explorers.attention import AttentionExplorer
from udlib.course.explorers.base import Explorer, Frame
from udlib.course.explorers.partitions import PartitionExplorer
from udlib.course.explorers.proposals import ProposalExplorer
from udlib.course.explorers.runs import LambdaExplorer, TeacherExplorer
from udlib.course.explorers.seeds import SeedExplorer

__all__ = [
    "AttentionExplorer",
    "Explorer",
    "Frame",
    "LambdaExplorer",
    "PartitionExplorer",
    "ProposalExplorer",
    "SeedExplorer",
    "TeacherExplorer",
]
