"""Progress is passed on, and what each stage took is noted on the way."""

import pytest

from ensemble.support.progress import Costs, QuietProgress, StageClock, duration


class Heard(QuietProgress):
    """Keeps all it was told, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple] = []

    def stage(self, name: str, total: float) -> None:
        self.told.append((name, total))

    def at(self, done: float, what: str = "") -> None:
        self.told.append((done, what))


def test_stages_are_noted_in_order_and_everything_is_passed_on():
    heard = Heard()
    costs = Costs(heard)
    costs.stage("predict", 8)
    costs.at(3, "fine on crop 1")
    costs.stage("check", 2)
    costs.say("a line to be read")
    rows = costs.stages()
    assert heard.told == [("predict", 8), (3, "fine on crop 1"), ("check", 2)]
    assert heard.said == ["a line to be read"]
    assert [row.stage for row in rows] == ["predict", "check"]
    assert all(row.seconds >= 0 and row.peak_gib > 0 for row in rows)


def test_nothing_begun_took_nothing():
    assert Costs(QuietProgress()).stages() == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.01, "1 s"), (59.4, "59 s"), (60, "1 min"), (3599, "59 min 59 s"), (11400, "3 h 10 min"), (90000, "1 d 1 h")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_clock_tells_a_line_a_minute_with_the_time_left():
    clock = StageClock("predict", 200, now=1000.0)
    assert clock.line(50, "fine on crop 1", 1000.0) is None  # kept from before
    assert clock.line(60, "fine on crop 1", 1059.9) is None
    assert clock.line(75, "fine on crop 1", 1060.0) == "predict: 38%, 1 min gone, about 5 min left: fine on crop 1"
    assert clock.line(76, "fine on crop 1", 1061.0) is None
    assert clock.line(125, "", 1180.0) == "predict: 62%, 3 min gone, about 3 min left"


def test_a_clock_that_has_seen_nothing_done_guesses_nothing():
    clock = StageClock("check", 10, now=0.0)
    assert clock.line(0, "", 61.0) == "check: 0%, 1 min 1 s gone"
    assert clock.line(0, "", 121.0) == "check: 0%, 2 min 1 s gone"
