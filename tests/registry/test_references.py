"""Names of registered models as people write them."""

import re

import pytest

from registry.references import MODEL_URI, Reference, alias_fault, check_alias, is_model_name, parse_model_uri
from tests.support.small_models import refusal


@pytest.mark.parametrize(
    ("uri", "name", "version"),
    [("models:/m@champion", "m", "champion"), ("models:/mito-l_4.nm/12", "mito-l_4.nm", 12), ("models:/m@7", "m", "7")],
)
def test_a_uri_names_a_model_and_an_alias_or_a_version(uri, name, version):
    assert re.match(MODEL_URI, uri)
    assert parse_model_uri(uri) == Reference(name, version)


@pytest.mark.parametrize(
    "uri", ["m", "models:/m", "models:/m/0", "models:/m/latest", "models:/a'b@c", "models:/m@", ""]
)
def test_text_that_names_no_model_is_refused(uri):
    assert not re.match(MODEL_URI, uri)
    assert refusal(parse_model_uri, uri) == (
        f"{uri!r} names no model; write models:/NAME@ALIAS or models:/NAME/VERSION"
    )


@pytest.mark.parametrize("alias", ["latest", "Latest", "v3", "V12", "a b", "", "ä"])
def test_an_alias_that_mlflow_would_not_take_is_refused(alias):
    fault = alias_fault(alias)
    assert repr(alias) in fault
    assert refusal(check_alias, alias) == fault


def test_other_aliases_are_taken():
    for alias in ("champion", "2026-07", "v3x", "best_of_all"):
        assert alias_fault(alias) is None
        check_alias(alias)
    check_alias(None)


def test_a_models_name_is_one_word():
    assert [name for name in ("m", "mito-l.4_nm", "a b", "a/b", "", "a'b") if is_model_name(name)] == [
        "m",
        "mito-l.4_nm",
    ]
