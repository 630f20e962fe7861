"""An S3 server on this machine, with a layer in front of it that notes the requests, and fails on demand.

For tests and benchmarks. Needs moto (in the dev extra).
"""

import contextlib
import os
import random
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

KINDS = ("500", "503", "after", "gone", "cut", "short", "stale", "timeout")
"""Faults: an error before, or after, the work was done; a connection that ends without an answer; a body that ends
early, or that says that it is shorter; a listing without what is newest; and, in the client, no answer in time."""


class Layer:
    """WSGI in front of S3. It gives wrong answers until `left` is used up; requests: method, path and query of each."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app
        self.lock = threading.Lock()
        self.reset()

    def reset(self, left: int = 0, seed: int = 0, often: float = 0.3) -> None:
        """Forget all, and inject `left` faults from now on, each request meeting one with the probability `often`."""
        self.left, self.draw, self.often = left, random.Random(seed), often
        self.injected = dict.fromkeys(KINDS, 0)
        self.requests: list[tuple[str, str, str]] = []

    def kind(self, method: str, listing: bool) -> str | None:
        """Which fault this request meets, or none."""
        fits = ["500", "503", "gone"] + ["after"] * (method in ("PUT", "DELETE")) + ["stale"] * listing
        fits += ["cut", "short"] * (method == "GET" and not listing)
        return self.one_of(fits, self.often)

    def one_of(self, kinds: Sequence[str], often: float) -> str | None:
        """With that probability, the one of them that was the rarest so far."""
        with self.lock:
            if not self.left or self.draw.random() > often:
                return None
            kind = min(kinds, key=lambda k: (self.injected[k], self.draw.random()))
            self.left -= 1
            self.injected[kind] += 1
            return kind

    def impatient(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The client's way to the storage, on which answers sometimes do not come in time."""
        from fsspec.exceptions import FSTimeoutError

        async def asked(*given: Any, **more: Any) -> Any:
            if self.one_of(["timeout"], 0.05):
                raise FSTimeoutError
            return await call(*given, **more)

        return asked

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", "")
        self.requests.append((method, path, query))
        kind = self.kind(method, "list-type=2" in query)
        if kind in (None, "stale", "cut", "short", "after"):
            answer: list[Any] = []
            body = b"".join(self.app(environ, lambda *given: answer.extend(given)))
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if kind == "gone":
            raise ConnectionError("injected")
        if kind in ("500", "503", "after"):
            status, code = ("503 Slow Down", "SlowDown") if kind == "503" else ("500 Internal", "InternalError")
            body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            start_response(status, [("Content-Length", str(len(body))), ("Connection", "close")])
            return [b"" if method == "HEAD" else body]
        headers = dict(answer[1])
        if kind == "stale":
            found = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
            for entry in found[len(found) // 2 :]:
                body = body.replace(entry, b"")
            headers["Content-Length"] = str(len(body))
        if kind == "short":
            body = body[: len(body) // 2]
            headers["Content-Length"] = str(len(body))
        if kind == "cut":
            headers["Connection"] = "close"
            body = body[: len(body) // 2]
        start_response(answer[0], list(headers.items()))
        return [b"" if method == "HEAD" else body]


@contextlib.contextmanager
def server() -> Iterator[Layer]:
    """The layer, and a process whose `s3://` leads there. The client's own retries are off, so that ours are met."""
    import fsspec
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    from polyteach.ground.storage import requests

    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    http: Any = moto._server
    http.log = lambda *_: None
    own = {"log_request": lambda *_: None, "connection_dropped": lambda h, *_: setattr(h, "close_connection", True)}
    http.RequestHandlerClass = type("Quiet", (http.RequestHandlerClass,), own)
    http.app = Layer(http.app)
    there = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{http.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    once = {"config_kwargs": {"retries": {"max_attempts": 0}}}
    try:
        with (
            mock.patch.dict(os.environ, there),
            mock.patch.dict(fsspec.config.conf, {"s3": once}),
            mock.patch.object(S3FileSystem, "retries", 1),
            mock.patch.object(requests, "_clients", {}),
        ):
            requests.client_of("s3://")  # takes a second
            yield http.app
    finally:
        moto.stop()
        http.server_close()
