"""The sizes of MedNeXt, and the names that two libraries give to its tensors.

The authors and MONAI name them in different ways; checkpoints of either naming are read into either network.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LEVELS = 4
STAGES = 2 * LEVELS + 1
"""Four stages down, the bottleneck, four up."""

Size = Literal["S", "B", "M", "L"]
RATIOS = {
    "S": (2,) * STAGES,
    "B": (2, 3, 4, 4, 4, 4, 4, 3, 2),
    "M": (2, 3, 4, 4, 4, 4, 4, 3, 2),
    "L": (3, 4, 8, 8, 8, 8, 8, 4, 3),
}
BLOCKS = {
    "S": (2,) * STAGES,
    "B": (2,) * STAGES,
    "M": (3, 4, 4, 4, 4, 4, 4, 4, 3),
    "L": (3, 4, 8, 8, 8, 8, 8, 4, 3),
}

_PUBLISHED = re.compile(r"(?:^|\.)(?:(enc_block|down|up|dec_block|out)_(\d)\.|dummy_tensor$)")
_MONAI = re.compile(r"(?:^|\.)(enc_stages|down_blocks|up_blocks|dec_stages|out_blocks)\.(\d)\.")
_RESPONSE = re.compile(r"(?:^|\.)grn_(beta|gamma)$")
_NAMES = {"enc_block": "enc_stages", "down": "down_blocks", "up": "up_blocks", "dec_block": "dec_stages"}
_BACK = {monai: published for published, monai in _NAMES.items()}


def as_named_by(expected: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """``values`` under the names that the keys ``expected`` of a MedNeXt use; untouched for other networks.

    The authors' ``dummy_tensor``, which no answer depends on, is left out; the tensors of global response
    normalisation go by MONAI's names.
    """
    if any(key.startswith("enc_block_0.") for key in expected):
        renamed = {_MONAI.sub(_published_name, key): value for key, value in values.items()}
    elif any(key.startswith("enc_stages.0.") for key in expected):
        renamed = {_PUBLISHED.sub(_monai_name, key): value for key, value in values.items()}
    else:
        return values
    renamed = {_RESPONSE.sub(r".global_resp_\1", key): value for key, value in renamed.items()}
    return {key: value for key, value in renamed.items() if key.rpartition(".")[2] != "dummy_tensor"}


def _published_name(match: re.Match[str]) -> str:
    kind, index = match[1], int(match[2])
    lead = "." if match[0].startswith(".") else ""
    if kind == "out_blocks":
        return f"{lead}out_{LEVELS - index}."
    level = LEVELS - 1 - index if kind in ("up_blocks", "dec_stages") else index
    return f"{lead}{_BACK[kind]}_{level}."


def _monai_name(match: re.Match[str]) -> str:
    kind, matched = match[1], str(match[0])
    if kind is None or (kind == "out" and match[2] == "0"):
        return matched
    level, lead = int(match[2]), "." if matched.startswith(".") else ""
    if kind == "out":
        return f"{lead}out_blocks.{LEVELS - level}."
    index = LEVELS - 1 - level if kind in ("up", "dec_block") else level
    return f"{lead}{_NAMES[kind]}.{index}."


@dataclass(frozen=True)
class Description:
    """The card's architecture and arguments; ``guessed`` are those that no tensor tells, None where none is likely."""

    architecture: str
    arguments: dict[str, Any]
    guessed: dict[str, Any]


def described_by(shapes: Mapping[str, Sequence[int]]) -> Description:
    """A MedNeXt whose tensors, of either naming, have these shapes.

    MONAI's tell all of it. The authors' tell neither what blocks add (``residual``) nor what their norm is over:
    either is guessed for a network of a published size only, as their ``create_mednext_v1`` builds it.
    Raises LookupError where they are not those of a MedNeXt.
    """
    named = as_named_by({"enc_block_0.": None}, shapes)
    stages = [*(f"enc_block_{i}" for i in range(LEVELS)), "bottleneck", *(f"dec_block_{3 - i}" for i in range(LEVELS))]
    blocks = [1 + max(int(k.split(".")[1]) for k in named if k.startswith(f"{s}.")) for s in stages]
    ratios = [_ratio(named, f"{s}.0") for s in stages]
    down = [_ratio(named, f"down_{i}") for i in range(LEVELS)]
    filters, kernel = named["stem.weight"][0], named["enc_block_0.0.conv1.weight"][-1]
    arguments: dict[str, Any] = {
        "kernel_size": kernel,
        "deep_supervision": "out_4.conv_out.weight" in named,
        **({} if filters == 32 else {"init_filters": filters}),
    }
    residual = "down_0.res_conv.weight" in named
    response = "enc_block_0.0.global_resp_beta" in named
    if down != ratios[1 : LEVELS + 1] or (response and "down_1.global_resp_beta" not in named):
        monai = {
            **arguments,
            "use_residual_connection": residual,
            **({"global_resp_norm": True} if response else {}),
            "encoder_expansion_ratio": ratios[:LEVELS],
            "bottleneck_expansion_ratio": ratios[LEVELS],
            "decoder_expansion_ratio": ratios[LEVELS + 1 :],
            "blocks_down": blocks[:LEVELS],
            "blocks_bottleneck": blocks[LEVELS],
            "blocks_up": blocks[LEVELS + 1 :],
        }
        return Description("MedNeXt", monai, {})
    size = next((s for s in RATIOS if RATIOS[s] == tuple(ratios) and BLOCKS[s] == tuple(blocks)), None)
    late = named["bottleneck.0.conv1.weight"][-1]
    arguments |= {"expansion_ratios": ratios, "blocks": blocks} if size is None else {"size": size}
    arguments |= {} if late == kernel else {"decoder_kernel_size": late}
    arguments |= {} if residual else {"residual_resampling": False}
    arguments |= {"grn": True} if response else {}
    if any(key.startswith("enc_stages.0.") for key in shapes):
        return Description("MedNeXtV1", arguments if residual else {**arguments, "residual": False}, {})
    published = size is not None and filters == 32 and late == kernel and residual and not response
    guessed = {"residual": True, "norm": "group"} if published else {"residual": None, "norm": None}
    return Description("MedNeXtV1", arguments, guessed)


def _ratio(shapes: Mapping[str, Sequence[int]], block: str) -> int:
    wide, narrow, *_ = shapes[f"{block}.conv2.weight"]
    return wide // narrow


def hint(architecture: str, faults: str) -> str:
    """What most likely explains a MedNeXt's misfit, told ahead of the general advice."""
    if architecture == "MedNeXt" and "down_blocks" in faults:
        return "the published sizes B, M and L are MedNeXtV1; "
    if architecture in ("MedNeXt", "MedNeXtV1") and re.search(r"\bout_([1-4]|blocks)\.", faults):
        return "it was trained with deep supervision on or off, unlike the card's deep_supervision; "
    return ""
