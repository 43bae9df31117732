"""What a worker does of its own: it knows whether it would leave the same bytes."""

from ensemble.engine.admission import made_by, unlike


def test_a_worker_of_the_same_code_and_libraries_is_like_the_driver() -> None:
    assert unlike(made_by()) == ""
    assert {"torch", "numpy", "the code of ensemble.predict"} <= made_by().keys()


def test_what_is_other_is_named_on_both_sides() -> None:
    mine = made_by()
    assert unlike({**mine, "torch": "1.0"}) == f"torch is {mine['torch']}, not 1.0"
    assert unlike({**mine, "cupy": "13"}) == "cupy is not there, not 13"
    lacking = {name: version for name, version in mine.items() if name != "scipy"}
    assert unlike(lacking) == f"scipy is {mine['scipy']}, not there"
