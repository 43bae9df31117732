"""What is asked for is measured once on a machine, kept, locked and told."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from ensemble.cli import main
from ensemble.plan.network_use import Deviation, NetworkUse
from ensemble.plan.request import Request, prepare
from ensemble.predict.network_uses import _best, _Compiled, _decided, deviation_of, settled_uses
from ensemble.support.progress import QuietProgress
from registry.store import Registry
from tests.support.small_build import BUILD, run

SMALL = Deviation(0.01, 0.001, 0.0)


def settled(precision: str) -> tuple[dict[str, NetworkUse], list[str]]:
    request = Request("small.yaml", Path("build/small"), Path("manifest.csv"), device="cpu", precision=precision)
    registry, heard = Registry(), QuietProgress()
    return settled_uses(request, prepare(request, registry), registry, heard), heard.said


def test_a_cpu_has_nothing_to_measure_unless_something_is_asked(place) -> None:
    for precision in ("auto", "32"):
        uses, said = settled(precision)
        assert {use.arithmetic for use in uses.values()} == {"32"}
        assert said == []


def test_what_is_asked_for_is_measured_once_and_kept(place) -> None:
    Registry().paces.path.unlink(missing_ok=True)
    uses, said = settled("bf16")
    assert [line.partition(":")[0] for line in said] == ["fine", "coarse"]
    for use in uses.values():
        assert use.arithmetic == "bf16"
        assert 0 < use.golden.at_999 <= use.golden.highest < 0.1
        assert 0 <= use.real.crossing < 0.1
    again, said = settled("bf16")
    assert (again, said) == (uses, [])


def test_the_lock_says_how_networks_ran_and_is_obeyed_until_something_else_is_asked(place, capsys) -> None:
    assert run("--precision", "bf16") == 0
    lock = yaml.safe_load(Path("build/small/lock.yaml").read_text())
    runs = {name: model["runs"] for name, model in lock["models"].items()}
    assert {name: use["arithmetic"] for name, use in runs.items()} == {"fine": "bf16", "coarse": "bf16"}
    assert set(runs["fine"]["golden"]) == {"highest", "at_999", "crossing"}
    assert settled("auto")[0]["fine"].arithmetic == "bf16"
    assert settled("32")[0]["fine"].arithmetic == "32"
    lock["models"]["fine"]["runs"]["device"] = "cuda"
    kept = Path("build/small/lock.yaml").read_text()
    Path("build/small/lock.yaml").write_text(yaml.safe_dump(lock))
    assert settled("auto")[0]["fine"].arithmetic == "32"  # what another kind of device did is nothing to this one
    Path("build/small/lock.yaml").write_text(kept)
    capsys.readouterr()
    assert main(["plan", *BUILD[1:], "--precision", "bf16"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "fine runs in bfloat16; 1 patch a pass; its golden input: at most " in said or "fine runs in bfloat16" in said
    )
    assert "4 of 4 predictions found" in said


def test_a_deviation_is_that_of_the_voxels() -> None:
    expected = np.linspace(0, 1, 2000)
    moved = expected.copy()
    moved[1000] = 0.1
    found = deviation_of(moved, expected)
    assert found.highest == pytest.approx(expected[1000] - 0.1)
    assert found.at_999 == 0
    assert found.crossing == 1 / 2000


@pytest.mark.parametrize(
    ("speeds", "deviations", "chosen"),
    [
        ({"bf16": 2.0, "16": 1.9}, {"bf16": SMALL, "16": SMALL}, "bf16"),
        ({"bf16": 2.0, "16": 1.9}, {"bf16": Deviation(0.3, 0.02, 0), "16": SMALL}, "16"),
        ({"bf16": 2.0, "16": 1.9}, {"bf16": Deviation(0.3, 0.001, 0.01), "16": SMALL}, "16"),
        ({"bf16": 1.05, "16": 1.0}, {"bf16": SMALL, "16": SMALL}, "32"),
    ],
)
def test_the_fastest_that_changes_little_and_gains_enough_is_chosen(speeds, deviations, chosen) -> None:
    tried = {"32": (1.0, NetworkUse("32", 4))}
    for name, speed in speeds.items():
        tried[name] = (1 / speed, NetworkUse(name, 4, golden=SMALL, real=deviations[name]))
    seconds, use = _best(tried)
    assert use.arithmetic == chosen
    assert seconds == pytest.approx(tried[chosen][0])
    assert use.why.startswith("times as fast as float32: bf16 ")


GAINED = "compiling takes 60 s and makes it 1.50 times as fast"


@pytest.mark.parametrize(
    ("expected_s", "compiled", "how", "why"),
    [
        (50, None, (False, False), "not compiled for about 50 s of passes"),
        (4000, _Compiled(60, 1.5), (True, False), "compiling takes 60 s and makes it 1.50 times as fast"),
        (4000, _Compiled(60, 1.01), (False, False), "compiling takes 60 s and makes it 1.01 times as fast"),
        (4, _Compiled(300, 1.5), (True, False), "compiling takes 300 s and makes it 1.50 times as fast"),
        (4000, _Compiled(60, 1.5, 1.2), (True, True), f"{GAINED}, CUDA graphs that 1.20 times"),
        (4000, _Compiled(60, 1.5, 1.01), (True, False), f"{GAINED}, CUDA graphs that 1.01 times"),
        (4000, _Compiled(60, 1.5, 0.5), (True, False), f"{GAINED}, CUDA graphs that 0.50 times"),
        (4000, _Compiled(failed="no compiler"), (False, False), "cannot be compiled (no compiler)"),
    ],
)
def test_a_network_is_compiled_where_it_gains_once_that_is_known(
    expected_s, compiled, how: tuple[bool, bool], why: str
) -> None:
    use = _decided(NetworkUse("bf16", 4), expected_s, compiled)
    assert ((use.is_compiled, use.has_graphs), use.why) == (how, why)
