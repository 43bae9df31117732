"""Plans in tables: crops that agree share a row, and sizes are in words."""

from pathlib import Path

import pytest
from rich.console import Console

from ensemble.cli.plan_tables import plan_tables, size_in_words
from ensemble.plan.request import Request, prepare
from registry.store import Registry


def test_routes_passes_and_cost_are_all_there(place):
    request = Request("small.yaml", Path("out"), Path("manifest.csv"), device="cpu")
    plan = prepare(request, Registry()).plan
    console = Console(width=240)
    with console.capture() as said:
        for item in plan_tables(plan, request.budget):
            console.print(item)
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")] for line in said.get().splitlines() if line[:1] == "│"
    ]
    routes, passes = ([row for row in rows if len(row) == cells] for cells in (6, 10))
    crops: dict[str, str] = {}
    for name, of_crops, *_ in routes:
        crops[name] = f"{crops.get(name, '')} {of_crops}".strip()
    assert crops == dict.fromkeys(plan.crops[0].target.classes, "1 2")
    assert [(row[0], row[2]) for row in passes] == [job.identity for job in plan.jobs]
    assert "16 arrays" in said.get()
    assert [row[4] for row in passes] == [f"{job.patches}" for job in plan.jobs]


def test_patches_that_are_for_context_are_told(place):
    recipe = Path("small.yaml")
    recipe.write_text(recipe.read_text().replace('fine@champion"', 'fine@champion", overlap: 0.5'))
    request = Request(recipe, Path("out"), Path("manifest.csv"), device="cpu")
    plan = prepare(request, Registry()).plan
    console = Console(width=240)
    with console.capture() as said:
        for item in plan_tables(plan, request.budget):
            console.print(item)
    (job,) = (job for job in plan.jobs if job.identity == ("fine", "1"))
    assert 0 < job.context_patches < job.patches
    assert f" {job.patches} ({job.context_patches} for context) " in said.get()


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (5 << 20, "5 MiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes_in_words(count, words):
    assert size_in_words(count) == words
