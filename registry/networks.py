"""The networks a card can name: libraries' own, built from plain arguments and never larger than is sane."""

import inspect
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ensemble.support import CardError, CheckpointError, counted, dotted_key, suggestion
from registry import nnunet
from registry.card import ARCHITECTURES, TOOLKIT, Card, Where, where_in
from registry.planes import SlicedNetwork, sliced

MAX_PARAMETERS = 2_000_000_000
MAX_TENSORS = 5_000
MAX_ARGUMENT = 65_536
MAX_LIST = 64
MAX_CHANNELS = 256
DEFAULTS = {"spatial_dims": 3, "in_channels": 1}
REMOVED = {"SwinUNETR": ("img_size",), "UNet": ("dimensions",)}
"""Arguments that MONAI's networks once had and that change none of their weights: they may be said for nothing."""

MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a constructor or a forward pass raises when its arguments or shapes do not go together."""


def _dotted(*key: str | int) -> str:
    return dotted_key(key)


def build(architecture: str, arguments: Mapping[str, Any], where: Where = _dotted) -> nn.Module:
    """The network of that name with random weights; in eval mode it answers with one tensor.

    Input (B, C, z, y, x), output (B, classes, z, y, x), whatever the arguments say of deep supervision.
    ``where`` tells the place of a key path in messages. Raises CardError for an unknown architecture or
    argument, for values the network refuses, and, before memory is taken, for one that is too large.
    """
    blank(architecture, arguments, where)
    return _construct(architecture, arguments, where)


def blank(architecture: str, arguments: Mapping[str, Any], where: Where = _dotted) -> nn.Module:
    """The same network in eval mode on the meta device: names and shapes, no memory."""
    with torch.device("meta"), _SchedulesOnCpu(), _limits(architecture, where):
        return _construct(architecture, arguments, where).eval()


def new_network(card: Card, path: Path | None = None) -> nn.Module:
    """The network a card describes, with random weights; ``path`` is the card's file, for messages.

    Raises CardError as ``build`` does, and for channels or a patch that do not fit the card.
    """
    blank_for_card(card, path)
    return _made(card, where_in(card, path))


def blank_for_card(card: Card, path: Path | None = None) -> nn.Module:
    """The same on the meta device; raises the same."""
    where = where_in(card, path)
    network = _sliced(card, blank(card.architecture, arguments_of(card, where), where))
    check_patch(network, card, where)
    return network


def with_weights(card: Card, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The card's network with the weights in ``state``, in eval mode, asking for no gradients.

    ``state`` has been fitted to the card's ``blank`` network, so its arguments are known to be sane.
    """
    network = _made(card, where_in(card, None))
    sliced(network).load_state_dict(state)
    return network.eval().requires_grad_(requires_grad=False)


def _made(card: Card, where: Where) -> nn.Module:
    return _sliced(card, _construct(card.architecture, arguments_of(card, where), where))


def _sliced(card: Card, network: nn.Module) -> nn.Module:
    return network if card.planes is None else SlicedNetwork(network, card.planes, card.activation)


def footprint(network: nn.Module, patch_voxels: tuple[int, ...]) -> tuple[int, int]:
    """Bytes of a ``blank`` network in float32: its weights, and the most that other tensors take at once.

    The latter while it answers one patch; found without computing or taking memory.
    """
    with _Alive() as alive, torch.inference_mode():
        network(torch.empty((1, 1, *patch_voxels), device="meta"))
    return sum(t.numel() * t.element_size() for t in network.state_dict().values()), alive.most_bytes


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__ is untyped
    """Counts the bytes of the tensors made while it lasts that are alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.most_bytes = self._bytes = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            self._bytes += size
            self.most_bytes = max(self.most_bytes, self._bytes)
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self._bytes -= size


def arguments_of(card: Card, where: Where | None = None) -> dict[str, Any]:
    """The card's arguments with the channels it implies: one of EM in, one per class out."""
    where = where or where_in(card, None)
    implied = {**DEFAULTS, "spatial_dims": 2 if card.planes else 3, "out_channels": len(card.classes)}
    why = {
        "spatial_dims": "planes have 2 axes" if card.planes else "volumes have 3 axes; for one of 2 say planes: zyx",
        "in_channels": "EM has 1 channel",
        "out_channels": f"the card lists {counted(len(card.classes), 'class', 'classes')}, null for one nobody wants",
    }
    for name, value in implied.items():
        if card.arguments.get(name, value) != value:
            given = card.arguments[name]
            raise CardError(f"{where('arguments', name)}: must be {value}, not {given!r}: {why[name]}")
    return {**implied, **card.arguments}


def check_patch(network: nn.Module, card: Card, where: Where) -> None:
    """Raise CardError unless the ``blank`` network maps the card's patch onto as many voxels."""
    fault = misfit(network, card.patch_voxels)
    if fault is None:
        return
    for multiple in (2, 4, 8, 16, 32, 64, 128):
        rounded = tuple(math.ceil(n / multiple) * multiple for n in card.patch_voxels)
        if misfit(network, rounded) is None:
            fault = f"{fault}; use {list(rounded)}"
            break
    patch = list(card.patch_voxels)
    raise CardError(f"{where('patch_voxels')}: {card.architecture} does not take patches of {patch}: {fault}")


def _construct(architecture: str, arguments: Mapping[str, Any], where: Where) -> nn.Module:
    constructor = _constructor(architecture, where)
    parameters = inspect.signature(constructor).parameters
    gone = set(REMOVED.get(architecture, ())) - parameters.keys()
    arguments = {name: value for name, value in arguments.items() if name not in gone}
    for name, value in arguments.items():
        if name not in parameters:
            raise CardError(
                f"{where('arguments', name)}: {architecture} has no such argument{suggestion(name, parameters)}"
            )
        _check_size(value, ("arguments", name), where)
    values = {**{name: value for name, value in DEFAULTS.items() if name in parameters}, **arguments}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in values:
            raise CardError(f"{where('arguments')}: {architecture} needs the argument {name!r}")
    try:
        return constructor(**values)
    except ImportError as error:
        raise _not_installed(architecture, error) from error
    except MISFITS as error:
        raise CardError(f"{where('arguments')}: {architecture} refuses them: {first_line(error)}") from error


def parameters_of(architecture: str) -> Mapping[str, inspect.Parameter]:
    """The arguments of a network known here, by name."""
    return inspect.signature(_constructor(architecture, _dotted)).parameters


def _constructor(architecture: str, where: Where) -> Callable[..., nn.Module]:
    if architecture not in ARCHITECTURES:
        hint = suggestion(architecture, ARCHITECTURES)
        raise CardError(f"{where('architecture')}: unknown network {architecture!r}{hint}")
    # Each takes seconds to import, so only where a network of its kind is built.
    if architecture == "MedNeXtV1":
        from registry.mednext import MedNeXtV1

        return MedNeXtV1
    if architecture == "SwinUNETR":
        from registry.swin_unetr import SwinUNETR

        return SwinUNETR
    if architecture in TOOLKIT:
        from registry import toolkit

        return toolkit.constructor(architecture)
    if architecture in nnunet.ARCHITECTURES:
        return nnunet.constructor(architecture)
    from monai.networks import nets

    network: Callable[..., nn.Module] = getattr(nets, architecture)
    return network


def _check_size(value: Any, key: tuple[str | int, ...], where: Where) -> None:
    """Refuse numbers and lists by which a few bytes of a card would ask for endless work."""
    if isinstance(value, list | tuple):
        if len(value) > MAX_LIST:
            raise CardError(f"{where(*key)}: {len(value)} entries; a network here has at most {MAX_LIST}")
        for i, entry in enumerate(value):
            _check_size(entry, (*key, i), where)
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            _check_size(entry, (*key, name), where)
    elif isinstance(value, int | float) and not abs(value) <= MAX_ARGUMENT:
        raise CardError(f"{where(*key)}: {value} is out of bounds; numbers here reach {MAX_ARGUMENT}")


class _SchedulesOnCpu(TorchFunctionMode):
    """Lets a constructor read back the drop rates it spaces out, which the meta device cannot."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.linspace:
            kwargs = {**(kwargs or {}), "device": "cpu"}
        return func(*args, **(kwargs or {}))


@contextmanager
def _limits(architecture: str, where: Where) -> Iterator[None]:
    """Count parameters as modules register them, and stop at more than any machine here could hold."""
    tensors = parameters = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, parameters
        tensors += 1
        parameters += 0 if parameter is None else parameter.numel()
        if tensors > MAX_TENSORS or parameters > MAX_PARAMETERS:
            raise CardError(
                f"{where('arguments')}: this {architecture} would have more than {MAX_PARAMETERS:.0e}"
                f" parameters or {MAX_TENSORS} tensors; make it smaller"
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def misfit(network: nn.Module, patch_voxels: tuple[int, ...]) -> str | None:
    """Why a ``blank`` network cannot take a patch, or None if it can."""
    try:
        with torch.no_grad():
            answer = network(torch.empty((1, 1, *patch_voxels), device="meta"))
    except ImportError as error:
        raise _not_installed(type(network).__name__, error) from error
    except MISFITS as error:
        return first_line(error)
    if tuple(answer.shape[2:]) != tuple(patch_voxels):
        return f"its answer has {list(answer.shape[2:])} voxels"
    return None


def _not_installed(architecture: str, error: ImportError) -> CheckpointError:
    return CheckpointError(f"{architecture} cannot run here: {first_line(error)}; install what is missing")


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0].rstrip(".")
    return f"{type(error).__name__} {text}" if isinstance(error, KeyError) else text
