"""Voxels decided tile by tile: the codeword with the most evidence, and what that changed."""

import json
from dataclasses import asdict

import numpy as np
from pydantic import TypeAdapter

from ensemble.core.box import Box
from ensemble.core.tiling import blocks
from ensemble.decode.assembling import GroupOutcome
from ensemble.decode.tile_decoding import TILE_SHAPE, DecidedBand
from ensemble.plan.recipe import OfClasses
from tests.support.known_crop import SHAPE, Given, cloud, legal, route, run


def test_without_filters_the_arrays_are_the_codewords_chosen_voxel_by_voxel() -> None:
    rng = np.random.default_rng(5)
    names = ("mito", "mito_mem", "mito_lum", "cell", "nuc")
    fields = {name: cloud(rng) for name in names}
    written, outcome = run({name: route(threshold=0.4) for name in names}, fields, joint=True)
    known = legal(list(names))
    words = sorted(known, key=len)
    logits = {
        n: np.log(np.clip(f.values, 1e-9, 1 - 1e-6) / np.clip(1 - f.values, 1e-6, 1)) - np.log(0.4 / 0.6)
        for n, f in fields.items()
    }
    for voxel in [(3, 4, 5), (10, 20, 7), (65, 12, 12), (40, 0, 25), (69, 23, 0)]:
        totals = {w: sum(np.clip(logits[n][voxel], -5.83, 6.7) for n in w) for w in words}
        got = frozenset(n for n in names if written[n][voxel])
        assert totals[got] >= max(totals.values()) - 0.01
    for name in names:
        alone, now = fields[name].values > np.float32(0.4), written[name] > 0
        counted = outcome.decoding.by_class[name]
        assert (counted.alone, counted.removed, counted.added) == (
            alone.sum(),
            (alone & ~now).sum(),
            (now & ~alone).sum(),
        )
        by_tile = [np.count_nonzero((alone != now)[tile.slices]) for tile in blocks(SHAPE, TILE_SHAPE)]
        most = Box.at(counted.most_at_voxels, TILE_SHAPE).slices
        assert counted.most_voxels == max(by_tile) == np.count_nonzero((alone != now)[most])
    above = np.stack([fields[name].values.ravel() > np.float32(0.4) for name in names], axis=1)
    rows, counts = np.unique(above, axis=0, return_counts=True)
    sets = {frozenset(np.array(names)[row].tolist()): count for row, count in zip(rows, counts, strict=True)}
    before = outcome.decoding.before
    assert before.voxels == sum(count for held, count in sets.items() if held not in known) > 0
    outside = sum(count for held, count in sets.items() if "mito_mem" in held and "mito" not in held)
    assert before.relations["mito_mem outside mito"] == outside
    assert before.relations["nuc and mito at once"] == sum(n for held, n in sets.items() if {"mito", "nuc"} <= held)


def test_alone_each_class_is_p_above_its_threshold() -> None:
    rng = np.random.default_rng(6)
    fields = {name: cloud(rng) for name in ("mito", "nuc", "er_mem_all", "er_mem", "eres_mem", "ne_mem")}
    routes = {name: route(threshold=0.45) for name in fields}
    routes["er_mem_all"] = route(OfClasses("union", ("er_mem", "eres_mem", "ne_mem")), 0.6, 0.0)
    written, _ = run(routes, fields, joint=False)
    assert np.array_equal(written["mito"], fields["mito"].values > 0.45)
    largest = np.maximum.reduce([fields[n].values for n in ("er_mem", "eres_mem", "ne_mem")])
    assert np.array_equal(written["er_mem_all"], largest > 0.6)


def test_a_confident_hard_specialist_is_not_erased_by_its_unsure_parts() -> None:
    sure, unsure = Given(np.full(SHAPE, 0.9, np.float32)), Given(np.full(SHAPE, 0.2, np.float32))
    fields = {"mito": sure, "mito_mem": unsure, "mito_lum": unsure}
    soft, _ = run({n: route() for n in fields}, fields, joint=True)
    hard, _ = run({n: route(weight="hard" if n == "mito" else 1.0) for n in fields}, fields, joint=True)
    assert soft["mito"].all()  # its unscored ribosomes are a codeword of mito alone
    assert hard["mito"].all()
    assert not hard["mito_mem"].any()


def test_the_hard_class_listed_first_wins_whatever_its_id() -> None:
    sure = Given(np.full(SHAPE, 0.9, np.float32))
    for names in (("mito", "nuc"), ("nuc", "mito")):
        written, _ = run({n: route(weight="hard") for n in names}, dict.fromkeys(names, sure), joint=True)
        assert written[names[0]].all()
        assert not written[names[1]].any()


def test_the_highest_stored_values_are_told_also_of_bands_decided_before() -> None:
    rng = np.random.default_rng(7)
    fields = {name: cloud(rng) for name in ("mito", "nuc", "ecs")}
    fields["mito"].top, fields["nuc"].top = 3, 200
    _, outcome = run({name: route() for name in fields}, fields, joint=True)
    assert outcome.highest == {"mito s": 3, "nuc s": 200}
    band = DecidedBand(4, [[0, 1]], outcome.decoding, outcome.highest)
    assert DecidedBand.of(json.loads(json.dumps(band.as_plain()))).highest == outcome.highest
    assert TypeAdapter(GroupOutcome).validate_json(json.dumps(asdict(outcome))).highest == outcome.highest
