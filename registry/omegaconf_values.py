"""The values in OmegaConf's nodes, as a pickle that was not executed left them."""

from collections.abc import Mapping
from typing import Any

from registry.inert_pickle import Unread

MAX_VALUES = 10_000
MAX_DEPTH = 20

_PACKAGE = "omegaconf."
_CONTENT, _VALUE, _MISSING = "_content", "_val", "???"


def plain_values(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """``settings`` with lists, mappings and values in place of OmegaConf's nodes, which are left out where missing.

    Interpolations stay the texts they are. Settings of more values than any configuration has are given back as
    they were.
    """
    plain = _Plain()
    try:
        found = plain.of(settings, 0)
    except _EndlessError:
        return settings
    return found if isinstance(found, Mapping) else {}


class _EndlessError(Exception):
    pass


class _Plain:
    def __init__(self) -> None:
        self._left = MAX_VALUES

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            raise _EndlessError
        if isinstance(value, Unread):
            return self._node(value, depth) if value.kind.startswith(_PACKAGE) else value
        if type(value) is dict:
            named = {key: self.of(entry, depth + 1) for key, entry in value.items()}
            return {key: entry for key, entry in named.items() if not _is_missing(value[key])}
        if type(value) is list:
            return [self.of(entry, depth + 1) for entry in value]
        return value

    def _node(self, node: Unread, depth: int) -> Any:
        return self.of(node.get(_CONTENT, node.get(_VALUE)), depth + 1)


def _is_missing(value: Any) -> bool:
    return isinstance(value, Unread) and _MISSING in (value.get(_CONTENT), value.get(_VALUE))
