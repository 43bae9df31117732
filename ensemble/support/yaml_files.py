"""YAML files people write, read so that whatever is wrong can be told by file, line and key.

The schema is YAML 1.2's: ``1e-3`` is a number, ``no`` and ``0601`` are words, nothing is a date, and a
tag that would make an object is refused, never followed.
"""

import io
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ensemble.support.errors import EnsembleError, suggestion
from ensemble.support.files import one_line

YamlKey = tuple[str | int, ...]
YamlLines = Mapping[YamlKey, int]

MAX_NODES = 100_000
LARGEST_INTEGER = 10**100
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_WORDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+",
    "float": r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012  (the base class's table of YAML 1.1, replaced)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that either YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        # Left plain, these separators would be read back as spaces or line ends.
        style = '"' if re.search("[\r\x85\u2028\u2029\ufeff]", text) else None
        return self.represent_scalar(_TAG + "str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, _pattern in _WORDS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), None)


def load_yaml(path: Path, error: type[EnsembleError]) -> tuple[Any, YamlLines]:
    """The document in ``path`` as plain values, and the line (from 1) of every key path in it.

    Key paths are tuples of mapping keys and list indices; the document itself is ``()``. Raises ``error``
    naming the line for text that is not YAML, a repeated or unquoted non-text key, a tag, an infinite
    number or NaN, or aliases that contain themselves.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as reason:
        what = reason.strerror if isinstance(reason, OSError) else "it is not a text file"
        raise error(f"{path}: cannot read it: {what}") from reason
    return parse_yaml(text, path, error)


def parse_yaml(text: str, path: Path, error: type[EnsembleError]) -> tuple[Any, YamlLines]:
    """The same of a text, told to be in ``path``."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader = _Reader(path, error, loader)
        data = reader.value(node, ()) if node is not None else None
    except yaml.YAMLError as reason:
        raise error(_not_yaml(path, reason)) from reason
    except RecursionError as reason:
        raise error(f"{path}:1: the YAML is nested too deeply") from reason
    finally:
        if loader is not None:
            loader.dispose()
    return data, {(): 1, **reader.lines}


def dump_yaml(data: Any) -> str:
    """``data`` (plain values) as YAML that ``load`` reads back equal; keys stay in their order."""
    stream = io.StringIO()
    yaml.dump(data, stream, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return stream.getvalue()


class _Reader:
    """Turns nodes into plain values while noting where each key path begins."""

    def __init__(self, path: Path, error: type[EnsembleError], loader: yaml.SafeLoader) -> None:
        self.path, self.error, self.loader = path, error, loader
        self.lines: dict[YamlKey, int] = {}

    def value(self, node: yaml.Node, at: YamlKey, above: tuple[yaml.Node, ...] = ()) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        # An alias repeats what it names, so a few lines could stand for billions of values.
        if len(self.lines) > MAX_NODES or node in above:
            raise self._wrong(node, at, "its aliases (*) repeat too much; write the values out")
        if node.tag not in _PLAIN:
            tag = node.tag.replace(_TAG, "!!")
            raise self._wrong(node, at, f"the tag {tag} is not allowed; write plain values")
        above = (*above, node)
        if isinstance(node, yaml.MappingNode):
            merged = self._merged(node, at, above)
            return merged | {key: self.value(child, (*at, key), above) for key, child in self._items(node, at)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(child, (*at, i), above) for i, child in enumerate(node.value)]
        return self._scalar(node, at)

    def _merged(self, node: yaml.MappingNode, at: YamlKey, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        """What ``<<: *one`` or ``<<: [*one, *another]`` brings along; of several the first wins."""
        values: dict[str, Any] = {}
        for _, child in filter(_is_merge, node.value):
            for base in child.value if isinstance(child, yaml.SequenceNode) else [child]:
                if not isinstance(base, yaml.MappingNode):
                    raise self._wrong(base, at, "<< takes keys and values: <<: *anchor")
                values = self.value(base, at, above) | values
        return values

    def _items(self, node: yaml.MappingNode, at: YamlKey) -> Iterator[tuple[str, yaml.Node]]:
        first: dict[str, int] = {}
        for key_node, child in itertools.filterfalse(_is_merge, node.value):
            if key_node.tag != _TAG + "str":
                text = f" {key_node.value!r}" if isinstance(key_node, yaml.ScalarNode) else ""
                raise self._wrong(key_node, at, f"the key{text} is not text; write it in quotes")
            key = key_node.value
            if key in first:
                what = f"the key is there twice, first on line {first[key]}; keep one"
                raise self._wrong(key_node, (*at, key), what)
            self.lines[(*at, key)] = first[key] = key_node.start_mark.line + 1
            yield key, child

    def _scalar(self, node: yaml.Node, at: YamlKey) -> Any:
        try:
            value = self.loader.construct_object(node)
        except (ValueError, KeyError, IndexError) as reason:
            kind = node.tag.removeprefix(_TAG)
            raise self._wrong(node, at, f"{_short(node.value)} cannot be read as {kind}") from reason
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise self._wrong(node, at, f"no number here has {len(node.value):,} digits")
        if isinstance(value, float) and not math.isfinite(value):
            raise self._wrong(node, at, f"must be a finite number, not {node.value}")
        return value

    def _wrong(self, node: yaml.Node, at: YamlKey, what: str) -> EnsembleError:
        return self.error(_line(self.path, node.start_mark.line + 1, at, what))


def _is_merge(item: tuple[yaml.Node, yaml.Node]) -> bool:
    """Whether a key is ``<<``, not in quotes."""
    key = item[0]
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None


def _not_yaml(path: Path, reason: yaml.YAMLError) -> str:
    if not isinstance(reason, yaml.MarkedYAMLError) or reason.problem_mark is None:
        return f"{path}: it is not YAML: {one_line(reason)}"
    mark = reason.problem_mark
    return f"{path}:{mark.line + 1}: it is not YAML: {one_line(reason.problem or reason.context or '')}"


def yaml_place(path: Path, lines: YamlLines, key: Iterable[str | int]) -> str:
    """``file:line: key`` of the longest part of ``key`` that is in the file."""
    key = tuple(key)
    return _line(path, lines[_known(key, lines)], key, "").removesuffix(":")


def explain_invalid(
    invalid: ValidationError, path: Path, lines: YamlLines, *, model: Any = None, at: YamlKey = ()
) -> str:
    """The first fault pydantic found, as one line ``file:line: key: what; suggestion``.

    ``at`` is the key path of the value that was validated. ``model`` (a model class, a function, or any
    type that pydantic validates) lends the names suggested for an unknown key. Parts of pydantic's
    location that are not in the file, such as the tag of a union, are left out.
    """
    fault = _first(invalid)
    location = (*at, *fault["loc"])
    key = _known(location, lines)
    if fault["type"] in _UNKNOWN_KEY:
        known = _names(model, fault["loc"][:-1]) if model is not None else ()
        return _line(path, lines[key], key, f"unknown key{suggestion(str(location[-1]), known)}")
    if fault["type"].startswith("missing"):
        return _line(path, lines[key], (*key, location[-1]), "is missing")
    return _line(path, lines[key], key, _what(fault))


def _first(invalid: ValidationError) -> Mapping[str, Any]:
    """The first fault; but a key unknown beside a missing one goes before it: it is a slip of the pen."""
    faults = invalid.errors(include_url=False)
    if not faults[0]["type"].startswith("missing"):
        return faults[0]
    beside = [f for f in faults if f["type"] in _UNKNOWN_KEY and f["loc"][:-1] == faults[0]["loc"][:-1]]
    return (beside or faults)[0]


def _known(location: YamlKey, lines: YamlLines) -> YamlKey:
    """The longest key path in the file that the location passes through, skipping what is not in it."""
    key: YamlKey = ()
    for part in location:
        if (*key, part) in lines:
            key = (*key, part)
    return key


def _what(fault: Mapping[str, Any]) -> str:
    given, kind = fault["input"], fault["type"]
    if kind in ("value_error", "assertion_error"):
        return str(fault["ctx"]["error"])
    if given is None and fault["loc"]:
        known = _quoted(fault["msg"]) if kind in ("literal_error", "enum") else []
        return f"is not filled in{suggestion('', known)}"
    if kind == "union_tag_invalid":
        tag = fault["ctx"]["tag"]
        return f"{_short(tag)} is not known{suggestion(tag, _quoted(fault['ctx']['expected_tags']))}"
    if kind in ("literal_error", "enum"):
        return f"{_short(given)} is not known{suggestion(str(given), _quoted(fault['msg']))}"
    if kind in ("model_type", "model_attributes_type", "dataclass_type", "dict_type"):
        return f"must hold keys and values, not {_short(given)}"
    if kind in ("tuple_type", "list_type"):
        return f"must be a list, not {_short(given)}"
    message = fault["msg"].replace("Input should be", "must be")
    return message if ", not " in message else f"{message}, not {_short(given)}"


def _quoted(message: str) -> list[str]:
    return re.findall(r"'([^']*)'", message)


def _short(value: Any, width: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"


def dotted_key(key: YamlKey) -> str:
    """A key path as people write it: ``classes.mito.postprocess[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def _line(path: Path, line: int, key: YamlKey, what: str) -> str:
    return one_line(f"{path}:{line}: {dotted_key(key)}{': ' if key else ''}{what}")


def _names(model: Any, location: YamlKey) -> list[str]:
    """Keys that ``model`` allows at ``location``, over every member of a union on the way."""
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    root = adapter.json_schema()
    schemas = _alternatives(root, root)
    for part in location:
        # A part that leads nowhere is the tag of a union: the alternatives stay as they are.
        schemas = [s for below in schemas for s in _below(below, part, root)] or schemas
    return sorted({name for schema in schemas for name in schema.get("properties", {})})


def _below(schema: dict[str, Any], part: str | int, root: dict[str, Any]) -> list[dict[str, Any]]:
    if isinstance(part, str) and part in schema.get("properties", {}):
        return _alternatives(schema["properties"][part], root)
    if isinstance(part, int):
        prefix = schema.get("prefixItems", [])
        inner = [prefix[part] if part < len(prefix) else schema.get("items")]
    else:
        inner = [schema.get("additionalProperties"), *schema.get("patternProperties", {}).values()]
    return [s for below in inner if isinstance(below, dict) for s in _alternatives(below, root)]


def _alternatives(schema: dict[str, Any], root: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return _alternatives(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    members = [m for word in ("anyOf", "oneOf", "allOf") for m in schema.get(word, [])]
    return [s for member in members for s in _alternatives(member, root)] if members else [schema]


def fault_in_words(invalid: ValidationError, at: YamlKey = ()) -> str:
    """The first fault pydantic found in values of no YAML file, as ``key: what``; they were found under ``at``."""
    fault = _first(invalid)
    what = "is missing" if fault["type"].startswith("missing") else _what(fault)
    return one_line(": ".join(filter(None, (dotted_key((*at, *fault["loc"])), what))))
