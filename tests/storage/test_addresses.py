"""A place is a path or a URL, and a URL of a file is a path."""

import pytest

from ensemble.storage.addresses import foreign_protocol, is_url, plain


@pytest.mark.parametrize(
    ("place", "path"),
    [("/a/b", "/a/b"), ("a/b", "a/b"), ("file:///a/b", "/a/b"), ("FILE:///a%20b", "/a b")],
)
def test_what_lies_here_is_a_path(place, path):
    assert (plain(place), is_url(place), foreign_protocol(place)) == (path, False, "")


@pytest.mark.parametrize("place", ["s3://em/a", "https://host/a", "http://host:80/a", "gs://em/a"])
def test_what_lies_elsewhere_is_asked_for(place):
    assert (plain(place), is_url(place), foreign_protocol(place)) == (place, True, "")


def test_any_other_way_is_named():
    assert (
        foreign_protocol("ssh://host/a")
        == "nothing is read by 'ssh'; give a path, or a URL of file, gs, http, https, s3"
    )
