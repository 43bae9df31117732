"""What a recipe can name, and the objects it works on."""

from ensemble.methods.components import Components, KeptObjects, LabelledObjects, ReadBlock
from ensemble.methods.method_table import Stage, Step
from ensemble.methods.mixes import MIXES
from ensemble.methods.overlaps import Overlaps
from ensemble.methods.sizes import add_sizes_nm3, count_sizes_nm3, size_histogram
from ensemble.methods.splitting import Split, SplitInput
from ensemble.methods.steps import METHODS, drop_small

__all__ = [
    "METHODS",
    "MIXES",
    "Components",
    "KeptObjects",
    "LabelledObjects",
    "Overlaps",
    "ReadBlock",
    "Split",
    "SplitInput",
    "Stage",
    "Step",
    "add_sizes_nm3",
    "count_sizes_nm3",
    "drop_small",
    "size_histogram",
]
