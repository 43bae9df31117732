"""Between what bounds a number in a recipe makes sense; beyond them float32 rounds it away, or a step never ends."""

from typing import Annotated

from pydantic import Field

NEVER_CERTAIN = 1e-6
"""A threshold lies this far from 0 and 1, so that it does so in float32 too."""
MOST_VOXELS = 2**40

Fraction = Annotated[float, Field(ge=NEVER_CERTAIN, le=1 - NEVER_CERTAIN)]
"""A probability that is neither 0 nor 1."""
LengthNm = Annotated[float, Field(ge=1e-2, le=1e5)]
"""Of a part of a cell: at most 0.1 mm."""
MOST_NM3 = 1e24
"""(10 cm)³, and no crop is longer."""
VolumeNm3 = Annotated[float, Field(gt=0, le=MOST_NM3)]
Count = Annotated[int, Field(ge=1, le=MOST_VOXELS)]
"""Of voxels or objects: at most as many as a crop has voxels."""
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
