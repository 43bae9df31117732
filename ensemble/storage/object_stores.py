"""What lies behind URLs, opened once per bucket or host of a process; the library for that is loaded for URLs alone."""

import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ensemble.storage.aws_settings import AwsSettings, aws_settings
from ensemble.storage.remote_trouble import in_words
from ensemble.support import VolumeError

if TYPE_CHECKING:
    from obstore.store import GCSStore, HTTPStore, S3Store

    ObjectStore = GCSStore | HTTPStore | S3Store
else:
    ObjectStore = object

CONCURRENCY = 64
"""Requests under way at a time."""

_ATTEMPTS = 6
"""At a request, unless AWS_MAX_ATTEMPTS says another number; waiting between them grows from 0.1 s to 5 s."""

_asking_process: dict[str, int] = {}

_NO_BUCKET = "names no bucket; write it as s3://BUCKET/FOLDER"

_GOOGLE_CREDENTIALS = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY")


@dataclass(frozen=True)
class Remote:
    """A bucket or host, and the path that a URL names in it. ``lists``: it tells what is in it."""

    store: ObjectStore
    root: str
    path: str
    lists: bool


def open_remote(url: str) -> Remote:
    """Where a URL leads; nothing is asked yet. Raises VolumeError where it cannot be gone there."""
    try:
        from obstore import parse_scheme
    except ImportError as error:
        raise VolumeError(f"{url}: reading a URL needs obstore: pip install obstore") from error
    if not urlsplit(url).netloc:
        raise VolumeError(f"{url}: {_NO_BUCKET}")
    try:
        kind = parse_scheme(url)
        root, path = _split(url, kind)
        if kind == "s3":
            return Remote(_s3(root, aws_settings(), _attempts()), root, path, lists=True)
        if kind == "gcs":
            return Remote(_gs(root, _has_google_credentials(), _attempts()), root, path, lists=True)
        return Remote(_http(root, _attempts()), root, path, lists=False)
    except faults() as error:
        raise VolumeError(in_words(url, error)) from error


def _split(url: str, kind: str) -> tuple[str, str]:
    """The bucket or host, and the path in it."""
    parts = urlsplit(url)
    path = [unquote(name) for name in parts.path.split("/") if name]
    in_path = 1 if kind == "s3" and parts.scheme == "https" and parts.netloc.startswith("s3.") else 0
    if len(path) < in_path:
        raise VolumeError(f"{url}: {_NO_BUCKET}")
    return "/".join([f"{parts.scheme}://{parts.netloc}", *path[:in_path]]), "/".join(path[in_path:])


@cache
def _s3(root: str, settings: AwsSettings, attempts: int) -> "S3Store":
    from obstore.store import S3Store

    given = {
        "access_key_id": settings.key_id,
        "secret_access_key": settings.secret,
        "token": settings.token,
        "region": settings.region,
        "endpoint": settings.endpoint,
    }
    said: Any = {key: value for key, value in given.items() if value}
    if settings.is_anonymous:
        said["skip_signature"] = True
    return S3Store.from_url(root, config=said, **_patience(settings.endpoint, attempts))


@cache
def _gs(root: str, signed: bool, attempts: int) -> "GCSStore":
    from obstore.store import GCSStore

    return GCSStore.from_url(root, skip_signature=not signed, **_patience(root, attempts))


@cache
def _http(root: str, attempts: int) -> "HTTPStore":
    from obstore.store import HTTPStore

    parts, given = urlsplit(root), _patience(root, attempts)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        key = b64encode(unquote(user).encode()).decode()
        given["client_options"]["default_headers"] = {"Authorization": f"Basic {key}"}
    return HTTPStore.from_url(f"{parts.scheme}://{host}", **given)


def _patience(address: str, attempts: int) -> dict[str, Any]:
    """How long is waited for answers, and how often asked again; what is not encrypted only where that was said."""
    waits = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5), "base": 2}
    options = {"timeout": timedelta(seconds=60), "connect_timeout": timedelta(seconds=5)}
    return {
        "client_options": {**options, "allow_http": address.lower().startswith("http://")},
        "retry_config": {"max_retries": attempts - 1, "backoff": waits, "retry_timeout": timedelta(seconds=120)},
    }


def _attempts() -> int:
    said = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return min(max(1, int(said)), 100) if said.isdecimal() else _ATTEMPTS


def _has_google_credentials() -> bool:
    signed_in = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
    return any(os.environ.get(name) for name in _GOOGLE_CREDENTIALS) or signed_in.is_file()


def refuse_forked(url: str) -> None:
    """Raises VolumeError in a process forked from one that asked for something: there the library waits forever."""
    if _asking_process.setdefault("id", os.getpid()) != os.getpid():
        raise VolumeError(f"{url}: cannot be read by several processes here; copy it to a folder and name that")


def faults() -> tuple[type[Exception], ...]:
    """What the library raises."""
    from obstore.exceptions import BaseError

    return BaseError, ValueError, OSError, TypeError


def asked(url: str, ask: Callable[[], Any]) -> Any:
    """What ``ask`` gives. Raises VolumeError, of what is at ``url``, for whatever the library raises."""
    refuse_forked(url)
    try:
        return ask()
    except faults() as error:
        raise VolumeError(in_words(url, error)) from error
