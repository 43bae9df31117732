"""Progress, as people see it."""

from ensemble.cli.bars import progress
from ensemble.support.progress import QuietProgress


def test_progress_without_a_terminal_is_a_line_for_each_stage(capsys):
    with progress() as shown:
        shown.stage("predict", 4)
        shown.at(2, "fine on crop 1")
        shown.say("[odd] names stay")
        shown.stage("check", 1)
    said = capsys.readouterr().err
    assert [line for line in said.splitlines() if line.strip()] == ["predict …", "[odd] names stay", "check …"]
    with progress(show=False) as shown:
        assert isinstance(shown, QuietProgress)
