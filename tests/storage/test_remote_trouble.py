"""Whatever is wrong with a bucket is told in one line that says what to do, after as many requests as were allowed."""

import hashlib
from contextlib import nullcontext

import numpy as np
import pytest

from ensemble.storage.em_pyramids import EM
from ensemble.storage.remote_trouble import code_of, in_words, is_refused
from ensemble.support.errors import VolumeError
from tests.storage.test_volume import GRID
from tests.support.bucket import answer, free_port
from tests.support.volumes import noise, write_em

DATE = "Tue, 01 Dec 2026 12:00:00 GMT"

TROUBLES = {
    "denied": (answer("403 Forbidden", "AccessDenied"), "s3:GetObject and s3:ListBucket are needed", 1),
    "no credentials": (answer("401 Unauthorized"), "credentials are asked for; set AWS_PROFILE", 1),
    "busy": (answer("503 Slow Down", "SlowDown"), r"in trouble \(503 Service Unavailable\), again and again", 2),
    "broken": (answer("500 Oh"), r"in trouble \(500 Internal Server Error\), again and again", 2),
    "expired": (answer("400 Bad Request", "ExpiredToken"), "the credentials have expired; sign in again, then run", 1),
    "strange key": (answer("403 Forbidden", "InvalidAccessKeyId"), "the access key is not known there", 1),
    "elsewhere": (answer("301 Moved Permanently", "PermanentRedirect"), "another region; name it in AWS_REGION", 1),
    "no bucket": (answer("404 Not Found", "NoSuchBucket"), "there is no such bucket; correct the URL", 1),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "cut short|broke off", 2),
    "dropped": (b"", "broke off|nothing answers", 2),
}


@pytest.fixture
def em(bucket) -> EM:
    write_em(bucket.folder / "em", "d", [(noise(GRID.shape), GRID)])
    return EM("s3://em")


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_pyramid_that_cannot_be_opened(bucket, em, trouble):
    instead, message, most = TROUBLES[trouble]
    bucket.disturb = lambda request: instead if ".zattrs" in request else None
    with pytest.raises(VolumeError, match=message) as told:
        em.pyramid("d")
    line = str(told.value)
    assert "s3://em/d/d.zarr/recon-1/em/fibsem-uint8" in line and "secret" not in line and "Debug" not in line
    assert sum(".zattrs" in path for path in bucket.paths) <= most
    bucket.disturb = lambda request: None
    assert em.pyramid("d").levels[0].grid == GRID


@pytest.mark.parametrize("trouble", sorted(set(TROUBLES) - {"denied", "no credentials"}))
def test_chunks_that_cannot_be_listed(bucket, em, trouble):
    volume = em.pyramid("d").levels[0]
    bucket.disturb = lambda request: TROUBLES[trouble][0] if "list-type" in request else None
    with pytest.raises(VolumeError, match=TROUBLES[trouble][1]):
        volume.identity(GRID.box)


@pytest.mark.parametrize("trouble", sorted(set(TROUBLES) - {"cut"}))
def test_a_chunk_that_cannot_be_read(bucket, em, trouble):
    volume = em.pyramid("d").levels[0]
    bucket.disturb = lambda request: TROUBLES[trouble][0] if request.endswith("/1.0.1") else None
    with pytest.raises(VolumeError, match=TROUBLES[trouble][1]):
        volume.read(GRID.box)


@pytest.mark.parametrize(("cuts", "message"), [(1, ""), (9, "cut short|broke off")])
def test_a_chunk_that_is_cut_off_is_asked_for_from_there_on(bucket, em, cuts, message):
    volume = em.pyramid("d").levels[0]
    (file,) = bucket.folder.rglob("1.0.1")
    tag, size = hashlib.md5(file.read_bytes()).hexdigest(), file.stat().st_size
    head = f'HTTP/1.1 200 OK\r\nETag: "{tag}"\r\nContent-Length: {size}\r\nLast-Modified: {DATE}\r\n\r\n'
    left = [head.encode() + file.read_bytes()[: size // 2]] * cuts
    bucket.disturb = lambda request: left.pop() if request.endswith("/1.0.1") and left else None
    with pytest.raises(VolumeError, match=message) if message else nullcontext():
        assert np.array_equal(volume.read(GRID.box), noise(GRID.shape))


def test_nobody_answers(monkeypatch, bucket):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(VolumeError, match=r"nothing answers there; look at network and address \(AWS_ENDPOINT_URL\)"):
        EM("s3://em").pyramid("d")


def test_what_the_library_says_otherwise_is_said_in_a_line():
    told = in_words("s3://em/a", ValueError("odd\nthing\n\nDebug source:\nSecret { }"))
    assert told == "s3://em/a: odd"
    assert (code_of(ValueError("x")), is_refused(ValueError("x"))) == ("", False)
