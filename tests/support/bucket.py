"""A folder served as S3 serves buckets, by rclone on loopback, behind something that delays, counts and disturbs."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

RCLONE = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")

_REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1")

_CHUNK = re.compile(r"/(\d+[./])*\d+$")

Disturb = Callable[[str], bytes | None]
"""What is answered to a request such as "GET /em/a/0.0.0" in place of the bucket's own answer, if anything."""


def answer(status: str, code: str = "") -> bytes:
    """An answer as S3 gives it."""
    body = f"<Error><Code>{code}</Code><Message>secret</Message></Error>".encode() if code else b""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class Bucket:
    """``url`` is that of the server, ``folder`` what it serves.

    ``seen`` counts requests, ``paths`` are what they asked for; ``disturb`` may be set at any time. Where ``remembers``
    is set, what the server listed once is answered again without it, as by one that has its files' ETags at hand.
    """

    remembers = False

    def __init__(self, folder: Path, target: int, delay_s: float) -> None:
        self.folder = folder
        self.seen: Counter[str] = Counter()
        self.paths: list[str] = []
        self.disturb: Disturb = lambda request: None
        self._lists: dict[str, bytes] = {}
        self._target, self._delay_s = target, delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def environment(self) -> Mapping[str, str]:
        """With which the AWS tools would find it."""
        return {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "2"}

    def chunks(self, of: str = "") -> int:
        """How many times a chunk was asked for, of arrays in whose paths ``of`` is."""
        return sum(of in path and "list-type" not in path and bool(_CHUNK.search(path)) for path in self.paths)

    def forget(self) -> None:
        self.seen.clear()
        self.paths.clear()

    def close(self) -> None:
        async def stop() -> None:
            self._server.close()
            rest = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, on which requests without a body come one after the other."""
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            passing = asyncio.create_task(_pass_on(back, writer))
            while head := await reader.readuntil(b"\r\n\r\n"):
                verb, path = (part.decode() for part in _REQUEST.match(head).groups())
                self.seen["LIST" if "list-type" in path else verb] += 1
                self.paths.append(path)
                await asyncio.sleep(self._delay_s)
                instead = self.disturb(f"{verb} {path}")
                if instead is None and self.remembers and "list-type" in path:
                    writer.write(await self._list(path, head))
                    await writer.drain()
                elif instead is None:
                    forth.write(head)
                else:
                    writer.write(instead)
                    await writer.drain()
                    break
            passing.cancel()
            forth.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _list(self, path: str, head: bytes) -> bytes:
        if path not in self._lists:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
            forth.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self._lists[path] = (await back.read()).replace(b"Connection: close\r\n", b"")
            forth.close()
        return self._lists[path]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def forget_aws(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As on a machine on which nobody ever used AWS, with the files of its tools and a cache under a folder."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_CONFIG_FILE": folder / "config",
        "AWS_SHARED_CREDENTIALS_FILE": folder / "credentials",
        "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_CACHE_HOME": folder / "cache",
    }.items():
        monkeypatch.setenv(name, str(value))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def bucket_server(folder: Path, delay_s: float = 0.0, *, changes: bool = True) -> Iterator[Bucket]:
    """The folders in ``folder`` as buckets, while the block lasts; whether files in them change meanwhile."""
    port = free_port()
    command = [RCLONE, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--config", "/dev/null"]
    command += ["--dir-cache-time", "0s" if changes else "1h"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionError:
                assert time.monotonic() < until and server.poll() is None, "rclone does not answer"
                time.sleep(0.02)
        bucket = Bucket(folder, port, delay_s)
        try:
            yield bucket
        finally:
            bucket.close()
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
