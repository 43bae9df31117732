"""How registered models are asked for: ``models:/NAME@ALIAS`` and ``models:/NAME/VERSION``."""

import re
from dataclasses import dataclass

from ensemble.support import RegistryError

_NAME, _ALIAS, _VERSION = r"[\w.-]+", r"[A-Za-z0-9_-]{1,255}", r"[1-9][0-9]{0,8}"
MODEL_URI = rf"^models:/{_NAME}(@{_ALIAS}|/{_VERSION})$"
"""The pattern of both forms, for those who check a URI long before a registry is asked for it."""


@dataclass(frozen=True)
class Reference:
    """A model's name, and in ``version`` an alias or a number."""

    name: str
    version: str | int


def parse_model_uri(uri: str) -> Reference:
    """The parts of a model's URI. Raises RegistryError for text that is none."""
    parts = re.fullmatch(rf"models:/({_NAME})(?:@({_ALIAS})|/({_VERSION}))", uri)
    if parts is None:
        raise RegistryError(f"{uri!r} names no model; write models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = parts.groups()
    return Reference(name, alias if version is None else int(version))


def is_model_name(name: str) -> bool:
    """Whether a model can be called so."""
    return re.fullmatch(_NAME, name) is not None


def alias_fault(alias: str) -> str | None:
    """Why MLflow would not take the alias; None if it would."""
    if not re.fullmatch(_ALIAS, alias):
        return f"{alias!r} is no alias; use letters, digits, - and _, such as 'champion'"
    if re.fullmatch(r"latest|v[0-9]+", alias, re.IGNORECASE):
        return f"the alias {alias!r} is reserved by MLflow; use another, such as 'champion'"
    return None


def check_alias(alias: str | None) -> None:
    """Raise RegistryError for what MLflow would not take as an alias; None is none."""
    fault = None if alias is None else alias_fault(alias)
    if fault is not None:
        raise RegistryError(fault)
