"""Digests of plain values: the same in every process, and another for another value."""

import hashlib

from ensemble.support.digests import digest


def test_a_digest_is_that_of_the_values_as_json_whatever_the_order_of_keys():
    expected = hashlib.sha256(b'{"a": [1, 2.5, null], "b": "x"}').hexdigest()
    assert digest({"b": "x", "a": [1, 2.5, None]}) == digest({"a": (1, 2.5, None), "b": "x"}) == expected
    assert len({digest(value) for value in ([1, 2], [2, 1], [1, "2"], {"1": 2}, None)}) == 5
