"""A real HTTP server on loopback where MLflow should be, which answers everything with one kind of trouble."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["_Handler"], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    answer: Answer
    requests: int = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that lost patience are what it is for; they are none of the test's output."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def _answer(self) -> None:
        if self.path == "/health":
            self.say(200, b"OK")
            return
        self.server.requests += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.answer(self)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer

    def say(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def page(status: int) -> Answer:
    """A page as proxies and sign-in pages write it, which a terminal would obey."""
    return lambda handler: handler.say(status, b"<html>\x1b[31msorry\n</html>")


def json(text: str, status: int = 200) -> Answer:
    return lambda handler: handler.say(status, text.encode())


def dropped(handler: "_Handler") -> None:
    """The connection is closed without an answer."""
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut(handler: "_Handler") -> None:
    """Less comes than was announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def silent(handler: "_Handler") -> None:
    """No answer for longer than anybody waits."""
    time.sleep(3600)


def round_and_round(handler: "_Handler") -> None:
    handler.say(302, b"", Location=handler.path)


@contextmanager
def troubled(answer: Answer) -> Iterator[_Server]:
    """The server while the block lasts; ``server_port`` is where, ``requests`` how often it was asked."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.answer = answer
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
