"""From probabilities to a crop's arrays, all classes of a voxel at once."""

from ensemble.decode.assembling import GroupOutcome, LayoutChanged, Told, assemble_group, groups_of
from ensemble.decode.decoder import FINEST_UNIT
from ensemble.decode.mixing import Probability, ProbabilityField
from ensemble.decode.pieces import CropAssembly, MakeArray
from ensemble.decode.tile_decoding import TILE_SHAPE, decoder_for

__all__ = [
    "FINEST_UNIT",
    "TILE_SHAPE",
    "CropAssembly",
    "GroupOutcome",
    "LayoutChanged",
    "MakeArray",
    "Probability",
    "ProbabilityField",
    "Told",
    "assemble_group",
    "decoder_for",
    "groups_of",
]
