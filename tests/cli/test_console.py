"""What people see: plain in a pipe, and names as they are."""

from pathlib import Path

from ensemble.cli.console import leftovers, report
from tests.support.small_submission import checked, remove, write


def test_a_check_is_told_by_name_and_in_sum_and_a_name_is_never_markup(tmp_path, capsys):
    root = write(tmp_path / "s")
    remove(root, "crop557/ecs")
    (root / "[red]notes").write_text("?")
    report(checked(root))
    said = capsys.readouterr().out
    assert "fault: crop557/ecs: is missing" in said
    assert "warning: [red]notes: is no part of the store" in said
    assert "empty: crop984" in said
    assert said.splitlines()[-1] == "5 arrays checked: 1 fault, 1 warning, 1 empty array"
    assert "\x1b" not in said  # plain where there is no terminal


def test_what_is_freed_is_told_with_its_size(capsys):
    leftovers({Path("work/predictions/a.zarr"): 3 << 20, Path("work/scratch/1"): 1 << 20}, freed=True)
    said = capsys.readouterr().out
    assert "work/predictions/a.zarr" in said
    assert "freed" in said
    leftovers({}, freed=False)
    assert capsys.readouterr().out == "nothing is left over\n"
