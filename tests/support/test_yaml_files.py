"""YAML files: what is wrong is told by file, line and key; nothing in them is executed."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from ensemble.support import yaml_files as yamlfile
from ensemble.support.errors import RecipeError


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "r.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def fault(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        yamlfile.load_yaml(path, RecipeError)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def test_every_key_and_list_entry_has_its_line(write):
    path = write("name: final\n\nclasses:\n  mito:\n    - {a: 1}\n    - two\n")
    data, lines = yamlfile.load_yaml(path, RecipeError)
    assert data == {"name": "final", "classes": {"mito": [{"a": 1}, "two"]}}
    assert lines == {
        (): 1,
        ("name",): 1,
        ("classes",): 3,
        ("classes", "mito"): 4,
        ("classes", "mito", 0): 5,
        ("classes", "mito", 0, "a"): 5,
        ("classes", "mito", 1): 6,
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2.5e3", 2500.0),
        ("-4", -4),
        ("0601", "0601"),
        ("no", "no"),
        ("2026-01-01", "2026-01-01"),
        ("12:30", "12:30"),
        ("true", True),
        ("~", None),
        ('"8"', "8"),
    ],
)
def test_plain_words_mean_what_yaml_1_2_says(write, text, value):
    data, _ = yamlfile.load_yaml(write(f"a: {text}\n"), RecipeError)
    assert data == {"a": value}
    assert type(data["a"]) is type(value)


def test_anchors_repeat_values_and_keep_their_own_place(write):
    data, lines = yamlfile.load_yaml(write("a: &x [1, 2]\nb: *x\n"), RecipeError)
    assert data == {"a": [1, 2], "b": [1, 2]}
    assert lines[("b",)] == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n", {"p": 1, "q": 3}),
        ("a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x}\n", {"p": 1, "q": 3}),
        ("a: [&x {p: 1}, &y {p: 2, q: 2}]\nb: {<<: [*x, *y]}\n", {"p": 1, "q": 2}),
        ("a: &x {p: {r: 1}}\nb: {<<: *x, p: {s: 2}}\n", {"p": {"s": 2}}),
        ("b: {'<<': 1}\n", {"<<": 1}),
    ],
)
def test_a_merge_brings_keys_along_that_are_not_there(write, text, value):
    data, lines = yamlfile.load_yaml(write(text), RecipeError)
    assert data["b"] == value
    assert all(("b", key) in lines for key in value)


def test_a_merge_over_lines_keeps_the_line_of_each_key(write):
    _, lines = yamlfile.load_yaml(write("a: &x\n  p: 1\n  q: 2\nb:\n  <<: *x\n  q: 3\n"), RecipeError)
    assert (lines[("b",)], lines[("b", "p")], lines[("b", "q")]) == (4, 2, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {<<: 3}\n", ":1: a: << takes keys and values: <<: *anchor"),
        ("a: &x {<<: *x}\n", ":1: a: its aliases (*) repeat too much; write the values out"),
        ("a: 0x" + "f" * 5000 + "\n", ":1: a: no number here has 5,002 digits"),
        ("a: -1" + "0" * 200 + "\n", ":1: a: no number here has 202 digits"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ":4: b.c: the key is there twice, first on line 3; keep one"),
        ("a: 1\n8: 2\n", ":2: the key '8' is not text; write it in quotes"),
        ("a: 1\n? [x]\n: 2\n", ":2: the key is not text; write it in quotes"),
        ("a:\n  - .nan\n", ":2: a[0]: must be a finite number, not .nan"),
        ("a: -.inf\n", ":1: a: must be a finite number, not -.inf"),
        ("a: !!float abc\n", ":1: a: 'abc' cannot be read as float"),
        ("a: &x [*x]\n", ":1: a[0]: its aliases (*) repeat too much; write the values out"),
        ("a: [1\nb: 2\n", ":2: it is not YAML: expected ',' or ']', but got ':'"),
        ("a: 1\n---\nb: 2\n", ":2: it is not YAML: but found another document"),
    ],
)
def test_a_fault_is_one_line_with_its_place(write, text, message):
    assert fault(write(text)) == message


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.system ['touch FILE']", "!!python/name:os.system", "!mine 1", "!!set {a}"],
)
def test_tags_are_refused_and_nothing_runs(write, tmp_path, tag):
    trace = tmp_path / "trace"
    message = fault(write(f"a: 1\nb: {tag.replace('FILE', str(trace))}\n"))
    assert message.startswith(":2: b: the tag !")
    assert not trace.exists()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 20_000,
        "a: " + "9" * 10_000,
        "a: \x00",
        "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(60)),
    ],
    ids=["deep", "digits", "control", "laughs"],
)
def test_hostile_text_is_refused_quickly(write, text):
    assert fault(write(text)).startswith(":")


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    assert fault(tmp_path / "absent.yaml") == ": cannot read it: No such file or directory"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert fault(tmp_path / "binary.yaml") == ": cannot read it: it is not a text file"


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_what_is_dumped_is_loaded_equal(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(yamlfile.dump_yaml(data), encoding="utf-8")
    assert yamlfile.load_yaml(path, RecipeError)[0] == data


def test_dumped_keys_stay_in_order_and_ambiguous_text_is_quoted():
    text = yamlfile.dump_yaml({"b": "no", "a": "1e3", "c": [1, 2], "d": "0601"})
    assert text == "b: 'no'\na: '1e3'\nc: [1, 2]\nd: '0601'\n"


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Model(Strict):
    model: str
    tta: Literal["none", "mirror"] = "none"


class Predictions(Strict):
    predictions: str


class Route(Strict):
    source: str
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


def _kind(value) -> str:
    return "by-model" if "model" in value else "by-predictions"


Source = Annotated[
    Annotated[Model, Tag("by-model")] | Annotated[Predictions, Tag("by-predictions")], Discriminator(_kind)
]


class Recipe(Strict):
    sources: dict[str, Source]
    classes: dict[str, Route]


GOOD = """\
sources:
  a: {model: m}
  b:
    model: n
    tta: mirror
classes:
  mito:
    source: a
    threshold: 0.4
"""


def explained(path: Path, model=Recipe) -> str:
    data, lines = yamlfile.load_yaml(path, RecipeError)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(data)
    message = yamlfile.explain_invalid(caught.value, path, lines, model=model)
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threshold:", "treshold:", ":9: classes.mito.treshold: unknown key; did you mean 'threshold'?"),
        ("    source: a", "    sourc: a", ":8: classes.mito.sourc: unknown key; did you mean 'source'?"),
        ("0.4", "1.4", ":9: classes.mito.threshold: must be less than 1, not 1.4"),
        ("    source: a\n", "", ":7: classes.mito.source: is missing"),
        ("tta: mirror", "tta: miror", ":5: sources.b.tta: 'miror' is not known; did you mean 'mirror'?"),
        ("tta: mirror", "ttaa: mirror", ":5: sources.b.ttaa: unknown key; did you mean 'tta'?"),
        ("classes:", "clases:", ":6: clases: unknown key; did you mean 'classes'?"),
    ],
)
def test_pydantic_faults_are_one_line_without_the_tags_of_unions(write, old, new, message):
    assert explained(write(GOOD.replace(old, new))) == message


def test_a_document_of_the_wrong_kind(write):
    assert explained(write("")) == ":1: must hold keys and values, not None"
    assert explained(write("- a\n")) == ":1: must hold keys and values, not ['a']"


def test_a_part_validated_alone_is_placed_in_the_whole(write):
    path = write("steps:\n  - drop:\n      size: -1\n")
    data, lines = yamlfile.load_yaml(path, RecipeError)

    class Drop(Strict):
        size: Annotated[int, Field(ge=1)]

    with pytest.raises(ValidationError) as caught:
        Drop(**data["steps"][0]["drop"])
    message = yamlfile.explain_invalid(caught.value, path, lines, model=Drop, at=("steps", 0, "drop"))
    assert message == f"{path}:3: steps[0].drop.size: must be greater than or equal to 1, not -1"


def test_a_functions_own_parameters_are_suggested(write):
    def drop_small(*, min_size_voxels: Annotated[int, Field(ge=1)]) -> int:
        return min_size_voxels

    path = write("drop_small:\n  min_size_voxel: 3\n")
    data, lines = yamlfile.load_yaml(path, RecipeError)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(drop_small).validator.validate_python(_arguments(data["drop_small"]))
    message = yamlfile.explain_invalid(caught.value, path, lines, model=drop_small, at=("drop_small",))
    assert message == f"{path}:2: drop_small.min_size_voxel: unknown key; did you mean 'min_size_voxels'?"


def _arguments(parameters):
    from pydantic_core import ArgsKwargs

    return ArgsKwargs((), parameters)


def test_place_names_the_longest_part_of_a_path_that_is_there(write):
    path = write("a: 1\nb:\n  c: 2\n")
    _, lines = yamlfile.load_yaml(path, RecipeError)
    assert yamlfile.yaml_place(path, lines, ("b", "c")) == f"{path}:3: b.c"
    assert yamlfile.yaml_place(path, lines, ("b", "d")) == f"{path}:2: b.d"


def test_a_fault_in_values_of_no_file_is_told_by_key():
    class Inner(BaseModel):
        sizes: list[float]

    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, Inner]).validate_python({"a": {"sizes": [1, "b"]}})
    told = yamlfile.fault_in_words(caught.value, ("top", 0))
    assert told.startswith("top[0].a.sizes[1]: must be a valid number")
    with pytest.raises(ValidationError) as caught:
        Inner.model_validate({})
    assert yamlfile.fault_in_words(caught.value) == "sizes: is missing"
