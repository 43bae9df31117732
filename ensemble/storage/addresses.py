"""Where things lie: a path, or a URL of one of few ways there."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

Location = str | Path

_PROTOCOLS = frozenset({"file", "http", "https", "s3", "gs"})


def foreign_protocol(place: str) -> str:
    """Why nothing is read from a place: it names a way there that is none of the few; "" where all is well.

    Libraries know dozens: some run commands, log in elsewhere, or read what a file on the way tells them to.
    """
    before, url, _ = place.partition("://")
    if "::" in place or (url and before.lower() not in _PROTOCOLS):
        way = place.partition("::")[0] if "::" in place else before
        return f"nothing is read by {way!r}; give a path, or a URL of {', '.join(sorted(_PROTOCOLS))}"
    return ""


def plain(place: Location) -> str:
    """The place as a path, where it is on this machine; else its URL."""
    text = str(place)
    return url2pathname(urlsplit(text).path) if text.lower().startswith("file://") else text


def is_url(place: Location) -> bool:
    """Whether what lies there is asked for over a network."""
    return "://" in plain(place)
