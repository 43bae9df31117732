"""The table of methods: a function's signature is what a recipe may say of it."""

from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from ensemble.methods.method_table import MethodTable, Stage, Step, Traits

TABLE = MethodTable()


@TABLE(Stage.FILTER, Traits(reach_nm=lambda least, most: least * 2, needs_probability=True))
def keep(sizes: list[int], *, least: Annotated[int, Field(ge=1)], most: int | None = None) -> list[bool]:
    return [size >= least and (most is None or size <= most) for size in sizes]


@TABLE(Stage.FILL, exactly_one=("voxels", "nm3"))
def fill(*, voxels: int | None = None, nm3: float | None = None) -> None:
    pass


def test_a_registered_function_stays_the_function_it_is():
    assert keep([1, 5], least=2) == [False, True]
    assert TABLE.by_name["keep"].function is keep
    assert TABLE.by_name["keep"].stage is Stage.FILTER


@pytest.mark.parametrize("said", [{"least": 0}, {"least": "many"}, {}, {"least": 1, "leest": 2}])
def test_what_the_signature_does_not_allow_is_refused(said):
    with pytest.raises(ValidationError):
        TABLE.by_name["keep"].parameters.model_validate(said)


@pytest.mark.parametrize("said", [{}, {"voxels": 1, "nm3": 2}])
def test_of_two_ways_to_say_it_exactly_one_is_taken(said):
    with pytest.raises(ValidationError, match="exactly one of voxels and nm3"):
        TABLE.by_name["fill"].parameters.model_validate(said)


def test_a_step_is_a_method_with_its_parameters_and_says_so():
    method = TABLE.by_name["keep"]
    step = Step(method, method.parameters.model_validate({"least": 3}).model_dump())
    assert step([2, 3, 4]) == [False, True, True]
    assert step.describe() == {"keep": {"least": 3}}
    assert step.reach_nm == 6
    assert step.method.traits.needs_probability
    assert not step.labels and step.seeds_from is None


def test_two_methods_of_one_name_are_refused():
    def keep(*, least: int) -> None:
        pass

    with pytest.raises(ValueError, match="two methods are called keep"):
        TABLE(Stage.FILTER)(keep)
