"""A plan for a cluster goes by its workers, not by the machine that plans."""

import pickle
from dataclasses import replace
from pathlib import Path

from ensemble.plan.request import Request
from ensemble.plan.workers import Workers
from ensemble.predict.device import kind_for, workers_here

H100 = Workers("cuda", "NVIDIA H100 of 80 GiB", 16, 16, 64 << 30, 8)


def test_networks_run_on_the_kind_of_device_that_workers_have() -> None:
    request = Request("mine.yaml", Path("build/mine"), device="cpu")
    assert kind_for(request) == "cpu"
    assert kind_for(replace(request, workers=H100)) == "cuda"


def test_a_worker_says_what_it_has() -> None:
    here = workers_here("cpu")
    assert (here.device, here.card, here.gpu_bytes, here.devices) == ("cpu", "cpu", 0, 1)
    assert here.threads >= 1
    assert pickle.loads(pickle.dumps(here)) == here
