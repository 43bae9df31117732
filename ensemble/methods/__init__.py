"""What a recipe can name, and the objects it works on."""

from ensemble.methods.components import Components, KeptObjects, LabelledObjects, ReadBlock
from ensemble.methods.method_table import Stage, Step
from ensemble.methods.mixes import MIXES
from ensemble.methods.overlaps import Overlaps
from ensemble.methods.ranges import LEAST_WEIGHT, MOST_NM3, MOST_WEIGHT, Fraction, LengthNm
from ensemble.methods.sizes import add_sizes_nm3, count_sizes_nm3, size_histogram
from ensemble.methods.splitting import NeedsMemory, Split, SplitInput
from ensemble.methods.steps import METHODS, drop_small

__all__ = [
    "LEAST_WEIGHT",
    "METHODS",
    "MIXES",
    "MOST_NM3",
    "MOST_WEIGHT",
    "Components",
    "Fraction",
    "KeptObjects",
    "LabelledObjects",
    "LengthNm",
    "NeedsMemory",
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
