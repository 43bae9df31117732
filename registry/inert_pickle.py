"""Pickles read so that nothing in them is imported or called: names stay names, and only tensors are made.

The opcodes of plain values are the standard library's; every other one is told here what it may do. A pickle cannot
make anything larger than itself: sets are lists, and of mappings only what has a text for its key is kept, since the
hash of a key may cost what its author likes.
"""

import pickle
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import torch

MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 48
MAX_NAME = 1000
MAX_OPCODES = 2_000_000
MAX_COPIED = 2_000_000
"""Items of lists and mappings that calls and attributes may take over: a few bytes can name a long list again."""

_PLAIN = (
    *("PROTO", "FRAME", "PERSID", "BINPERSID", "NONE", "NEWFALSE", "NEWTRUE", "INT", "BININT", "BININT1", "BININT2"),
    *("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES"),
    *("BINBYTES8", "SHORT_BINBYTES", "UNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "TUPLE", "TUPLE1"),
    *("TUPLE2", "TUPLE3", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "LIST", "GLOBAL", "STACK_GLOBAL", "POP"),
    *("POP_MARK", "DUP", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "MARK", "STOP"),
)


@dataclass(frozen=True)
class Named:
    """A class or function that the pickle names; it was not looked for."""

    name: str


class Unread(dict[str, Any]):
    """Stands where a value of another type was, ``kind``; nothing of it was made.

    Items and attributes that the pickle sets on it are kept under their names.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind


@dataclass(frozen=True)
class Storage:
    """Numbers of one type, one after the other."""

    bytes: torch.UntypedStorage
    dtype: torch.dtype


def tensor(storage: Any, offset: int, size: Any, stride: Any) -> Any:
    """The tensor of that place and shape in a storage; ValueError where it reaches beyond it."""
    if not isinstance(storage, Storage):
        return storage
    numbers = (offset, *_items(size), *_items(stride))
    if any(type(n) is not int or not 0 <= n < MAX_ELEMENTS for n in numbers) or len(size) != len(stride):
        raise ValueError("a tensor whose shape is none")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    beyond = last >= storage.bytes.nbytes() // storage.dtype.itemsize
    if len(size) > MAX_DIMENSIONS or (0 not in size and beyond):
        raise ValueError("a tensor that reaches beyond the numbers stored")
    if 0 in size:
        return torch.empty(tuple(size), dtype=storage.dtype)
    return torch.empty(0, dtype=storage.dtype).set_(storage.bytes, offset, tuple(size), tuple(stride))


def _items(value: Any) -> Any:
    """What may be gone through: a text becomes longer so, and a tensor may show one number without end."""
    if not isinstance(value, list | tuple | zip):
        raise pickle.UnpicklingError("items of what is no list")
    return value


def _mapping(pairs: Any = ()) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in map(_items, _items(pairs)):
        _set(made, key, value)
    return made


def _first(value: Any, *rest: Any) -> Any:
    return value


_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_MAKERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": lambda of, name: _attribute(of, name),
    "collections.OrderedDict": _mapping,
    "torch.Size": lambda sizes=(): tuple(_items(sizes)),
    "torch.nn.parameter.Parameter": _first,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *rest: tensor(
        storage, offset, size, stride
    ),
}


def _attribute(of: Any, name: Any) -> Any:
    owner = of.name if isinstance(of, Named) else of.kind if isinstance(of, Unread) else type(of).__name__
    if not isinstance(name, str) or len(owner) + len(name) > MAX_NAME:
        raise pickle.UnpicklingError("an attribute whose name is none")
    return (Named if isinstance(of, Named) else Unread)(f"{owner}.{name}")


def _made(what: Any, arguments: Any) -> Any:
    """What a call in a pickle stands for: a tensor, a mapping, or something unread."""
    if isinstance(what, Unread):
        return Unread(what.kind)
    if not isinstance(what, Named) or not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a call of what is no function")
    maker = _MAKERS.get(what.name)
    return Unread(what.name) if maker is None else maker(*arguments)


def _set(target: Any, key: Any, value: Any) -> None:
    if not isinstance(target, dict):
        raise pickle.UnpicklingError("items of what is no mapping")
    if type(key) is str:
        target[key] = value


class _Counted(dict[int, Any]):
    """What each opcode does, for so many of them as any checkpoint has."""

    left = MAX_OPCODES

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError("longer than any checkpoint")
        return super().__getitem__(code)


_PureUnpickler: Any = pickle._Unpickler
"""The one of pure Python, which can be restricted opcode by opcode."""


class InertUnpickler(_PureUnpickler):  # type: ignore[misc]  # typeshed knows less of it than is used here
    """Reads one pickle. ``names``: all that it would import; ``storage``: the numbers that a persistent id means."""

    def __init__(self, file: BinaryIO, storage: Callable[[Any], Any], names: dict[str, None]) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self._storage, self._names = storage, names
        self._copied = 0
        self.dispatch = _Counted(self._OPCODES)

    def find_class(self, module: Any, name: Any) -> Named:
        if len(module) + len(name) > MAX_NAME:
            raise pickle.UnpicklingError("a name longer than any")
        # Up to protocol 2 Python 3 writes the names that Python 2 knew: __builtin__.long for int.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        found = f"{module}.{name}"
        self._names[found] = None
        return Named(found)

    def persistent_load(self, pid: Any) -> Any:
        return self._storage(pid)

    def _call(self, what: Any, arguments: Any) -> Any:
        while isinstance(what, Named) and what.name == _FROM_TYPE and isinstance(arguments, tuple):
            self._count(arguments)
            what, _, arguments, _ = arguments
        self._count(arguments, *(arguments if isinstance(arguments, tuple) else ()))
        made = _made(what, arguments)
        if isinstance(made, Named):
            self._names[made.name] = None
        return made

    def _count(self, *taken: Any) -> None:
        self._copied += sum(len(value) for value in taken if isinstance(value, list | tuple | dict))
        if self._copied > MAX_COPIED:
            raise pickle.UnpicklingError("the same items again and again")

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _new_with_names(self) -> None:
        self.stack.pop()
        self._reduce()

    def _object(self) -> None:
        what, *arguments = self.pop_mark()
        self.append(self._call(what, tuple(arguments)))

    def _instance(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        arguments = tuple(self.pop_mark())
        self.append(self._call(self.find_class(module, name), arguments))

    def _build(self) -> None:
        state = self.stack.pop()
        of_slots = isinstance(state, tuple) and len(state) == 2
        target = self.stack[-1]
        for part in state if of_slots else (state,):
            if isinstance(target, Unread) and isinstance(part, dict):
                self._count(part)
                target.update(part)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], key, value)

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append(_mapping(zip(items[::2], items[1::2], strict=True)))

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Unread):
            raise pickle.UnpicklingError("items of what is no list")

    def _list(self) -> None:
        items = self.pop_mark()
        self.append(items)

    def _empty_list(self) -> None:
        self.append([])

    _OPCODES: ClassVar[dict[int, Any]] = {
        **{
            op: _PureUnpickler.dispatch[op]
            for op in (ord(code.code) for code in pickletools.opcodes if code.name in _PLAIN)
        },
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _new_with_names,
        pickle.OBJ[0]: _object,
        pickle.INST[0]: _instance,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.EMPTY_SET[0]: _empty_list,
        pickle.ADDITEMS[0]: _appends,
        pickle.FROZENSET[0]: _list,
        pickle.BYTEARRAY8[0]: _PureUnpickler.load_binbytes8,
    }
