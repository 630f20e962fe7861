"""Requests to object storage, which are tried again where that may help."""

import errno
import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

ATOMIC = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "memory": ""}
"""Protocols whose objects appear whole, with the extra of polyteach that brings their client."""
TRIES = 10
"""Attempts at a request."""
WAIT = 0.25, 20.0
"""Longest wait in seconds after the first failure, and after any."""

_T = TypeVar("_T")

_jitter = random.SystemRandom()  # the global generator is seeded, and not to be drawn from
_clients: dict[tuple[int, str], Any] = {}  # by process: a fork must not use, nor close, its parent's connections
WRITTEN: dict[str, bool] = {}
"""By URL, whether this process wrote (True) or removed it, whatever listings say."""


class StorageError(OSError):
    """The storage could not be asked, or refused: nothing is known of what lies there."""


class Passing(OSError):
    """An answer that is wrong and may be right the next time."""


_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError, ImportError)
_HOPELESS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "ProfileNotFound",
    "ParamValidationError",
    "InvalidRegionError",
    "DefaultCredentialsError",
}
"""Names of clients' errors that no retry mends, and that are in no common hierarchy."""


def complete(data: bytes, size: int) -> bytes:
    """The data, where it is of that size; else it is asked for again."""
    if len(data) != size:
        raise Passing(f"{len(data)} bytes came of {size}")
    return data


def client_of(url: str) -> Any:
    """The file system behind a URL: one for each process and protocol, without a memory of listings."""
    import fsspec

    protocol = url.partition("://")[0]
    key = (os.getpid(), protocol)
    if key not in _clients:
        try:
            _clients[key] = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as e:
            extra = ATOMIC[protocol]
            raise ValueError(f"{url} needs a client ({e}): pip install 'polyteach[{extra}]'") from e
    return _clients[key]


def request(url: str, what: str, call: Callable[[Any], _T]) -> _T:
    """What `call` gives of the client, after as many attempts as it takes."""
    client = client_of(url)
    for attempt in range(TRIES):
        try:
            return call(client)
        except Exception as e:
            stale = isinstance(e, FileNotFoundError) and WRITTEN.get(url, False)  # written here, and not seen yet
            if isinstance(e, FileNotFoundError) and not stale:
                raise absent(url) from e
            text = f"{type(e).__name__}: {e}"
            if not stale and (isinstance(e, _FINAL) or type(e).__name__ in _HOPELESS):
                raise StorageError(
                    f"{url}: {what} was refused ({text}). Look after the credentials and their rights, the bucket's "
                    "name and AWS_ENDPOINT_URL"
                ) from e
            if attempt == TRIES - 1:
                if stale:
                    raise absent(url) from e
                raise StorageError(
                    f"{url}: {what} failed {TRIES} times, at last with {text}. What is written is whole; when the "
                    "storage can be reached again, the same command goes on"
                ) from e
            time.sleep(_jitter.uniform(0, min(WAIT[0] * 2**attempt, WAIT[1])))
    raise AssertionError("the last attempt returns or raises")


def absent(url: str) -> FileNotFoundError:
    """As of a path on this machine: clients' own have neither number nor name."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
