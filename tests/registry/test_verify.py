"""Whether a registered model still answers as it did."""

import numpy as np

from registry.verify import verify_model
from registry.version_folder import GOLDEN
from tests.support.two_versions import CPU, said


def test_a_model_is_verified_by_replaying_its_golden_input(both_versions, capsys):
    for version in both_versions.versions():
        assert verify_model(both_versions, version, CPU).largest < 1e-6
    text = said(capsys, "models", "verify", "m")
    assert text.count("the same network") == 2
    assert "models:/m/1 on cpu: largest deviation" in text
    assert said(capsys, "models", "verify", "m@champion").count("the same network") == 1


def test_another_answer_is_told_as_one(own_versions, capsys):
    version = own_versions.resolve("models:/m/1")
    path = own_versions.file(version, GOLDEN)
    golden = own_versions.golden(version)
    np.savez_compressed(path, input=golden.grey, output=golden.probabilities + 0.01)
    assert not verify_model(own_versions, version, CPU).holds
    assert "NOT the same answer" in said(capsys, "models", "verify", "m/1", code=1)
    path.write_bytes(b"no archive")
    assert "its golden answer is damaged" in said(capsys, "models", "verify", "m/1", code=2)
