"""Pickles are read without anything of them being imported, called, or larger than it was."""

import enum
import io
import pickle
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from registry import inert_pickle
from registry.inert_pickle import InertUnpickler, Named, Storage, Unread, tensor


class Node(dict):
    """As yacs makes its nodes: a mapping with attributes of its own."""

    def __init__(self, **items) -> None:
        super().__init__(items)
        self.__dict__["_frozen"] = False


class Names(list):
    pass


@dataclass
class Settings:
    classes: list = field(default_factory=lambda: ["mito"])

    @dataclass
    class Inner:
        a: int = 1


class Kind(enum.Enum):
    A = "a"


def read(content: bytes):
    names: dict[str, None] = {}
    return InertUnpickler(io.BytesIO(content), lambda pid: pid, names).load(), list(names)


PLAIN = {"a": [1, 2.5, None, True, b"b", "é", -(10**30)], "t": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)), "d": {"e": {}}}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_what_they_were(protocol):
    found, names = read(pickle.dumps(PLAIN, protocol))
    assert found == PLAIN or protocol < 3  # where bytes are a call of _codecs.encode
    assert set(names) <= {"_codecs.encode"}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        *(Settings(), Settings.Inner(), Kind.A, Names(["a"]), Path("x"), Decimal(1), Counter("aab"), deque([1])),
        *(SimpleNamespace(a=1), np.arange(3), np.float64(1), {1, 2}, frozenset({1}), bytearray(b"x"), 1j),
        *(nn.BCEWithLogitsLoss(), nn.Conv3d(1, 1, 1), torch.optim.SGD([nn.Parameter(torch.ones(1))]), range(3)),
        *(torch.float16, torch.device("cpu"), Settings.__eq__, print),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_any_other_type_are_put_aside_by_name(protocol, value):
    found, names = read(pickle.dumps({"before": 1, "value": value, "after": 2}, protocol))
    assert (found["before"], found["after"]) == (1, 2)
    assert isinstance(found["value"], Unread | Named | list | bytes)
    assert type(found["value"]) is not type(value) or isinstance(value, set)
    assert all(isinstance(name, str) for name in names)


def test_mappings_and_attributes_are_kept_under_their_names():
    content = {"node": Node(a=1, b=Node(c=2)), "ordered": OrderedDict(a=1), "default": defaultdict(list, a=[1])}
    found, _ = read(pickle.dumps({**content, "settings": Settings()}, 2))
    assert found["node"] == {"a": 1, "b": {"c": 2, "_frozen": False}, "_frozen": False}
    assert (found["ordered"], found["default"], found["settings"]) == ({"a": 1}, {"a": [1]}, {"classes": ["mito"]})
    assert found["settings"].kind == f"{__name__}.Settings"


def test_an_attribute_of_a_name_is_a_name():
    _, names = read(pickle.dumps(Path.touch, 2))
    assert names == ["builtins.getattr", "pathlib.Path", "pathlib.Path.touch"]


def _nested(depth: int) -> tuple:
    value: tuple = ()
    for _ in range(depth):
        value = (value, value)
    return value


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + pickle.dumps(_nested(60), 2)[2:-1] + b"K\x01s.",
        b"\x80\x04\x8f(" + pickle.dumps(_nested(60), 2)[2:-1] + b"\x90.",
        b"\x80\x04(" + pickle.dumps(_nested(60), 2)[2:-1] + b"\x91.",
        b"\x80\x02ccollections\nCounter\n((" + pickle.dumps(_nested(60), 2)[2:-1] + b"ltR.",
    ],
    ids=["key", "set", "frozenset", "argument"],
)
def test_no_value_is_hashed_whatever_it_is_part_of(content):
    """The hash of such a tuple takes 2^60 steps."""
    assert len(content) < 1000
    read(content)


@pytest.mark.parametrize(
    "again",
    [b"cm\nC\n)Rh\x01b0", b"ccollections\nOrderedDict\nh\x02\x85R0", b"ctorch\nSize\nh\x02\x85R0", b"cm\nC\nh\x03R0"],
    ids=["attributes", "mapping", "size", "arguments"],
)
def test_what_is_named_again_and_again_does_not_grow(again):
    """50 kB that would come to ten million items each."""
    items = {str(i): i for i in range(5000)}
    pairs = [[key, value] for key, value in items.items()]
    parts = pickle.dumps(items, 4)[11:-1], pickle.dumps(pairs, 4)[11:-1], pickle.dumps(tuple(items), 4)[11:-1]
    begin = b"\x80\x04" + b"".join(
        part + put + b"0" for part, put in zip(parts, (b"q\x01", b"q\x02", b"q\x03"), strict=True)
    )
    with pytest.raises(pickle.UnpicklingError, match="again and again"):
        read(begin + 2000 * again + b"N.")


def test_a_name_does_not_grow():
    grown = (
        b"X\x10\x27\x00\x00"
        + b"n" * 10_000
        + b"q\x010cm\nC\nq\x020"
        + 99 * b"cbuiltins\ngetattr\nh\x02h\x01\x86Rq\x020"
    )
    with pytest.raises(pickle.UnpicklingError, match="whose name is none"):
        read(b"\x80\x02" + grown + b"N.")


def test_lengths_that_are_not_there_take_no_memory():
    before = sys.getsizeof(b"")
    for opcode in (b"\x96", b"\x8e", b"\x8d"):
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            read(b"\x80\x05" + opcode + (1 << 45).to_bytes(8, "little") + b"x.")
    assert sys.getsizeof(b"") == before


@pytest.mark.parametrize("content", [b"\x80\x02]K\x01R.", b"\x80\x02K\x01)R.", b"\x80\x02K\x01K\x02a.", b"\x82\x01."])
def test_what_no_pickler_writes_is_refused(content):
    with pytest.raises((pickle.UnpicklingError, LookupError, TypeError, AttributeError)):
        read(content)


def _numbers() -> Storage:
    return Storage(torch.arange(6, dtype=torch.float32).untyped_storage(), torch.float32)


def test_a_tensor_is_the_numbers_of_its_place():
    assert tensor(_numbers(), 1, (2, 2), (2, 1)).tolist() == [[1, 2], [3, 4]]
    assert tensor(_numbers(), 0, (), ()).item() == 0
    assert tensor(_numbers(), 9, (0, 3), (3, 1)).shape == (0, 3)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(0, (7,), (1,)), (6, (), ()), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (1, 1), (1,)), (0, (1 << 50,), (0,))]
    + [(0, (True,), (1,)), (0, (1,) * 40, (1,) * 40), (0.0, (1,), (1,))],
)
def test_a_tensor_that_is_not_there_is_refused(offset, size, stride):
    with pytest.raises(ValueError, match="a tensor"):
        tensor(_numbers(), offset, size, stride)


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def named(name: str) -> bytes:
    module, _, rest = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + rest.encode() + b"\n"


LONG_LIST = b"]q\x00(" + b"N" * 200_000 + b"e0"
FROM_TYPE, SIZE = named("torch._tensor._rebuild_from_type_v2"), named("torch.Size")
BOMBS = {
    "a text as a shape": b"]" + SIZE + text("a" * 1000) + b"\x85Ra.",
    "a text as items": b"]" + named("collections.OrderedDict") + text("ab" * 1000) + b"\x85Ra.",
    "a long name": b"\x80\x04]" + text("a" * 1001) + text("b") + b"\x93a.",
    "a list again and again": LONG_LIST + b"](" + (SIZE + b"h\x00\x85R") * 20 + b"e.",
    "a list inside a type's call": LONG_LIST + b"](" + (FROM_TYPE + b"(" + SIZE + b"Nh\x00\x85NtR") * 20 + b"e.",
    "marks without end": b"(" * 300_001 + b".",
    "nothing, again and again": b"N0" * 150_001 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_grow_or_never_end_is_refused(name, monkeypatch):
    monkeypatch.setattr(inert_pickle._Counted, "left", 300_000)
    with pytest.raises(pickle.UnpicklingError):
        read(b"\x80\x02" + BOMBS[name])
