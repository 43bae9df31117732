"""Progress is passed on, and what each stage took is noted on the way."""

from ensemble.support.progress import Costs, QuietProgress


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
