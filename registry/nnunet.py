"""What nnU-Net v2 leaves in a results folder: plans, data set and folds, as a network and its card.

The networks are those of ``dynamic-network-architectures``, the package that nnU-Net itself builds them from.
Its plans name layers by import path; they are looked up in a table here, and nothing is imported by name.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ensemble.support import CheckpointError
from registry.description_files import known_class, read_json
from registry.planes import SLICES

ARCHITECTURES = ("PlainConvUNet", "ResidualEncoderUNet")
PLANS, DATASET = "plans.json", "dataset.json"
FINAL = ("checkpoint_final.pth", "checkpoint_best.pth")
_BACKGROUND = 0
"""The label of the background, which is no class."""

_LAYERS: dict[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        *(nn.Conv3d, nn.InstanceNorm3d, nn.BatchNorm3d, nn.Dropout3d),
        *(nn.Conv2d, nn.InstanceNorm2d, nn.BatchNorm2d, nn.Dropout2d),
        *(nn.LeakyReLU, nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.PReLU),
    )
}
_LAYER_ARGUMENTS = ("conv_op", "norm_op", "dropout_op", "nonlin")


def constructor(architecture: str) -> Callable[..., nn.Module]:
    """The network class of that name; its arguments are those of the plans, layers given by their names."""
    from dynamic_network_architectures.architectures import unet

    published: type[nn.Module] = getattr(unet, architecture)

    class Network(published):  # type: ignore[valid-type, misc]  # the base class is looked up by its name
        def __init__(
            self, spatial_dims: int = 3, in_channels: int = 1, out_channels: int = 1, **arguments: Any
        ) -> None:
            layers = {name: _layer(name, arguments[name]) for name in _LAYER_ARGUMENTS if name in arguments}
            _check_dimensions(layers, spatial_dims)
            super().__init__(input_channels=in_channels, num_classes=out_channels, **{**arguments, **layers})

        def forward(self, x: Tensor) -> Tensor | list[Tensor]:
            answers: Tensor | list[Tensor] = super().forward(x)
            return answers[0] if isinstance(answers, list | tuple) and not self.training else answers

    Network.__name__ = architecture
    Network.__signature__ = _signature(published)
    return Network


def _signature(published: type[nn.Module]) -> inspect.Signature:
    """The parameters of the class, its channels named as MONAI's networks name them; ``block`` is not for cards."""
    renamed = {"input_channels": "in_channels", "num_classes": "out_channels"}
    kept = [p for p in inspect.signature(published).parameters.values() if p.name != "block"]
    by_name = [p.replace(name=renamed.get(p.name, p.name), kind=inspect.Parameter.KEYWORD_ONLY) for p in kept]
    return inspect.Signature([inspect.Parameter("spatial_dims", inspect.Parameter.KEYWORD_ONLY, default=3), *by_name])


def _layer(argument: str, name: Any) -> type[nn.Module] | None:
    if name is None:
        return None
    layer = _LAYERS.get(str(name).rpartition(".")[2])
    if layer is None:
        raise ValueError(f"{argument}: {name!r} is no layer known here; known: {', '.join(sorted(_LAYERS))}")
    return layer


def _check_dimensions(layers: Mapping[str, type[nn.Module] | None], spatial_dims: int) -> None:
    """Raise ValueError for a layer of slices in a network of patches, or the other way round."""
    for argument, layer in layers.items():
        if layer is not None and layer.__name__.endswith(f"{5 - spatial_dims}d"):
            needs = "its card needs planes" if spatial_dims == 3 else "it takes no planes"
            raise ValueError(f"{argument}: {layer.__name__} is of a network of {5 - spatial_dims} axes; {needs}")


# What reading keys of files raises that hold something else than nnU-Net writes.
_ODD = (AttributeError, TypeError, ValueError, LookupError, OverflowError, ArithmeticError)


def _number(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


class ResultsFolder:
    """A results folder such as ``nnUNetTrainer__nnUNetPlans__3d_fullres``: its plans, and its data set's labels."""

    def __init__(self, folder: Path, plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> None:
        self.folder = folder
        self._plans, self._dataset = plans, dataset

    @classmethod
    def read(cls, folder: Path) -> "ResultsFolder":
        """The folder, its files read and looked at. Raises CheckpointError where they are not nnU-Net's."""
        results = cls(folder, read_json(folder / PLANS), read_json(folder / DATASET))
        try:
            patch, spacing = results.configuration["patch_size"], results.configuration["spacing"]
            if not all(isinstance(n, int) and n > 0 for n in patch):
                raise ValueError(f"patch_size {patch}")
            if len(spacing) != len(patch) or not all(math.isfinite(v) and v > 0 for v in map(float, spacing)):
                raise ValueError(f"spacing {spacing}")
        except _ODD as error:
            raise results._odd(error) from error
        return results

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The one of the plans' configurations that the folder's name says, with whatever it inherits."""
        return self._resolved(self._name())

    @staticmethod
    def around(path: Path) -> "ResultsFolder | None":
        """The results folder that ``path`` is, or lies in as ``fold_X/checkpoint.pth`` or as ``fold_X``."""
        path = Path(path).absolute()
        for folder in (path, path.parent, path.parent.parent):
            if (folder / PLANS).is_file() and (folder / DATASET).is_file():
                return ResultsFolder.read(folder)
        return None

    def checkpoint(self) -> Path:
        """The checkpoint of the only fold. Raises CheckpointError, listing them, when there are several."""
        files = {}
        for fold in sorted(self.folder.glob("fold_*")):
            file = next((fold / name for name in FINAL if (fold / name).is_file()), None)
            if file is not None:
                files[fold.name] = file
        if len(files) != 1:
            what = f"{len(files)} folds ({', '.join(files)})" if files else f"no fold with a {FINAL[0]}"
            raise CheckpointError(
                f"{self.folder}: holds {what}; name the checkpoint of one fold, such as fold_0/{FINAL[0]}, and"
                " register each as a model of its own to mix them in a recipe"
            )
        return next(iter(files.values()))

    def card_values(self) -> dict[str, Any]:
        """What the folder says of a card's keys. Raises CheckpointError where it is not as nnU-Net writes it."""
        try:
            return self._values()
        except _ODD as error:
            raise self._odd(error) from error

    def _odd(self, error: Exception) -> CheckpointError:
        fault = " ".join(f"{type(error).__name__} {error}".split())[:200]
        return CheckpointError(
            f"{self.folder}: {PLANS} or {DATASET} are not as nnU-Net writes them ({fault}); copy them again"
        )

    def _values(self) -> dict[str, Any]:
        configuration = self.configuration
        labels = {name: value for name, value in self._dataset["labels"].items() if name != "ignore"}
        regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
        if regions:
            names = [name for name, value in labels.items() if value not in (_BACKGROUND, [_BACKGROUND])]
        else:  # channel i is that of the i-th value
            names = sorted(labels, key=lambda name: _number(labels[name]))
        return {
            "activation": "sigmoid" if regions else "softmax",
            "classes": [known_class(name) for name in names],
            "patch_voxels": list(configuration["patch_size"]),
            "voxel_size_nm": [float(v) for v in configuration["spacing"]],
            **(self._planes() if len(configuration["patch_size"]) == 2 else {}),
            "normalisation": self._normalisation(),
            **self._network(),
        }

    def _planes(self) -> dict[str, Any]:
        """A 2d configuration: nnU-Net runs it over the first axis, whose spacing it leaves as it finds it."""
        between = float(self._plans["original_median_spacing_after_transp"][0])
        if not (math.isfinite(between) and between > 0):
            raise ValueError(f"original_median_spacing_after_transp {between}")
        return {
            "planes": "z",
            "patch_voxels": [SLICES, *self.configuration["patch_size"]],
            "voxel_size_nm": [between, *(float(v) for v in self.configuration["spacing"])],
        }

    def unsure(self) -> dict[str, str]:
        """What a person must look at, by key of the card."""
        labels = self._dataset["labels"]
        names = ", ".join(f"{name} ({value})" for name, value in labels.items())
        return {
            "voxel_size_nm": f"nnU-Net's spacing has no unit: {self.card_values()['voxel_size_nm']}; write nanometres",
            "classes": f"the labels are {names}; null is a channel that predicts no class of the challenge",
        }

    def _name(self) -> str:
        last = self.folder.name.rpartition("__")[2]
        configurations: Mapping[str, Any] = self._plans.get("configurations", {})
        if last in configurations:
            return last
        three_d = [name for name in configurations if name.startswith("3d") and "cascade" not in name]
        if len(three_d) == 1:
            return three_d[0]
        raise CheckpointError(
            f"{self.folder}: which of its configurations this is cannot be told; name the folder as nnU-Net does,"
            f" TRAINER__PLANS__CONFIGURATION, with one of those in {PLANS}"
        )

    def _resolved(self, name: str) -> dict[str, Any]:
        """A configuration with whatever it inherits."""
        configurations = self._plans["configurations"]
        resolved: dict[str, Any] = {}
        names: list[str] = []
        parent: str | None = name
        while parent is not None:
            if parent in names or not isinstance(configurations.get(parent), Mapping):
                raise CheckpointError(
                    f"{self.folder / PLANS}: configuration {parent!r} is not there or inherits itself"
                )
            names.append(parent)
            resolved = {**configurations[parent], **resolved}
            parent = configurations[parent].get("inherits_from")
        for key in ("patch_size", "spacing", "normalization_schemes"):
            if not isinstance(resolved.get(key), list):
                raise CheckpointError(f"{self.folder / PLANS}: its configuration says no {key}; copy the file again")
        if self._plans.get("transpose_forward", [0, 1, 2]) != [0, 1, 2]:
            raise CheckpointError(
                f"{self.folder / PLANS}: transpose_forward is {list(self._plans['transpose_forward'])}: this network"
                " sees its axes in another order than z, y, x, which is not supported"
            )
        if resolved.get("previous_stage"):
            raise CheckpointError(f"{self.folder}: the second network of a cascade cannot run alone")
        if len(resolved["patch_size"]) not in (2, 3):
            raise CheckpointError(
                f"{self.folder / PLANS}: patch_size {resolved['patch_size']} is of neither 2 nor 3 axes"
            )
        return resolved

    def _network(self) -> dict[str, Any]:
        architecture = self.configuration.get("architecture")
        if architecture is None:
            return self._older_network()
        name = str(architecture.get("network_class_name", "")).rpartition(".")[2]
        if name not in ARCHITECTURES:
            raise CheckpointError(f"{self.folder / PLANS}: its network {name!r} is none of {', '.join(ARCHITECTURES)}")
        return {"architecture": name, "arguments": dict(architecture["arch_kwargs"])}

    def _older_network(self) -> dict[str, Any]:
        """Plans from before nnU-Net 2.4 name what the network is made of piece by piece."""
        plan = self.configuration
        name = plan.get("UNet_class_name")
        if name not in ARCHITECTURES:
            raise CheckpointError(f"{self.folder / PLANS}: its network {name!r} is none of {', '.join(ARCHITECTURES)}")
        stages = len(plan["n_conv_per_stage_encoder"])
        base, most = plan["UNet_base_num_features"], plan["unet_max_num_features"]
        per_stage = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
        arguments = {
            "n_stages": stages,
            "features_per_stage": [min(base * 2**i, most) for i in range(stages)],
            "conv_op": f"Conv{len(plan['patch_size'])}d",
            "kernel_sizes": plan["conv_kernel_sizes"],
            "strides": plan["pool_op_kernel_sizes"],
            per_stage: plan["n_conv_per_stage_encoder"],
            "n_conv_per_stage_decoder": plan["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"InstanceNorm{len(plan['patch_size'])}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        return {"architecture": name, "arguments": arguments}

    def _normalisation(self) -> dict[str, Any]:
        """The scheme of the EM channel as a card says it (nnunetv2.preprocessing.normalization)."""
        schemes = self.configuration["normalization_schemes"]
        if len(schemes) != 1:
            raise CheckpointError(f"{self.folder}: a network of {len(schemes)} input channels; EM has 1")
        if schemes[0] == "ZScoreNormalization":
            if any(self.configuration.get("use_mask_for_norm", [])):
                raise CheckpointError(f"{self.folder}: normalises within a mask, which is not supported")
            return {"subtract": "mean", "divide": "std"}
        if schemes[0] == "CTNormalization":
            grey = self._plans["foreground_intensity_properties_per_channel"]["0"]
            low, high = grey["percentile_00_5"], grey["percentile_99_5"]
            return {"clip": [low, high], "subtract": grey["mean"], "divide": max(grey["std"], 1e-8)}
        fixed: dict[str, dict[str, Any]] = {
            "RescaleTo01Normalization": {"subtract": "min", "divide": "range"},
            "RGBTo01Normalization": {"subtract": 0.0, "divide": 255.0},
            "NoNormalization": {"subtract": 0.0, "divide": 1.0},
        }
        if schemes[0] not in fixed:
            known = ", ".join(("ZScoreNormalization", "CTNormalization", *fixed))
            raise CheckpointError(f"{self.folder}: unknown normalisation {schemes[0]!r}; known: {known}")
        return fixed[schemes[0]]
