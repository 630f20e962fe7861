"""The bytes of an image from where a store or a dataset says that it lies: a file, an object, or a web server.

Whoever made the store wrote the uri, so that what it may do is bounded (`Limits`):

- A path, and a file:// URL, is a file of this machine. Regular files alone are read, so that no pipe and no device is.
- s3://, gs://, memory:// and the like are object storage. Its address and credentials are those of whoever reads.
- http:// and https:// are fetched where whoever reads has allowed it. A server in the machine's own network (this
  machine, private, link-local and the like) is not spoken to unless the beginning of its URL was allowed by name. The
  address that is connected to is looked at, for every redirect anew. A proxy hides that address, so that it is used
  for URLs that were allowed by name alone.
- Nothing else is: no other protocol, and no chain of several (`zip://a.png::http://...`).

Bytes are counted before and while they are read, and a web server has `SECONDS` in all.
"""

import http.client
import io
import ipaddress
import os
import random
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import urljoin

from polyteach.ground import limits as bounds
from polyteach.ground.limits import WEB, Limits, WebAddress
from polyteach.ground.storage import ATOMIC, ObjectPath, to_path
from polyteach.version import __version__

TRIES = 3
"""Attempts at a web server, which is asked again after what may pass."""
WAIT = 0.5
"""Longest wait in seconds after the first failure; it doubles."""
ADDRESSES = 4
"""Addresses of a server that are tried."""
_BLOCK = 2**18
_PASSING = (429, 500, 502, 503, 504)
_MOVED = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_jitter = random.SystemRandom()  # the global generator is seeded, and not to be drawn from


def read_uri(uri: str, limits: Limits | None = None) -> bytes:
    """The bytes at a path or a URL. limits: those of `Limits()` without.

    Raises:
        OSError: they cannot be had, or may not; the message is a reason that can be kept beside the image.
    """
    limits = limits or Limits()
    try:
        protocol, colon, rest = uri.partition("://")
        if uri.startswith("/") or not colon:
            return read_file(uri, limits)
        protocol = protocol.lower()
        if protocol == "file":
            if not rest.startswith("/"):
                raise OSError("a file:// URL has to name an absolute path, as file:///folder/a.jpg")
            return read_file(rest, limits)
        if protocol in WEB:
            return _fetched(uri, limits)
        if protocol in ATOMIC:
            return _object(f"{protocol}://{rest}", limits)
    except (OSError, MemoryError):
        raise
    except Exception as e:  # each client has errors of its own
        raise OSError(f"{type(e).__name__}: {e}") from e
    if "::" in uri:
        raise OSError("a chain of URLs, none of which is followed: unpack the archive, and ingest what is in it")
    known = ", ".join(f"{p}://" for p in ("file", *ATOMIC, *WEB))
    raise OSError(f"{protocol[:30]!r} is no protocol that is read; there are {known}. Copy the images to one of them")


def read_file(path: str | os.PathLike[str], limits: Limits | None = None) -> bytes:
    """The bytes of a regular file of this machine.

    Raises:
        OSError: it cannot be read, is no regular file, or has more bytes than an image may have.
    """
    most = (limits or Limits()).max_bytes
    try:
        _regular(os.stat(path), most)  # before it is opened, which does things to some devices
    except ValueError as e:  # a NUL
        raise OSError(f"no path: {e}") from e
    # what lies there may be another by now; a pipe would be waited for without O_NONBLOCK
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with open(handle, "rb", buffering=0) as file:
        size = _regular(os.fstat(handle), most)
        data: bytes = file.read(size + 1) or b""
        if len(data) == size:
            return data
        blocks = [data]  # it grows, or has no size, as those of /proc
        while len(data) <= most and (block := file.read(_BLOCK)):
            blocks.append(block)
            if sum(map(len, blocks)) > most:
                raise _too_large("more bytes", most)
        return b"".join(blocks)


def _regular(about: os.stat_result, most: int) -> int:
    """The size of a regular file."""
    if not stat.S_ISREG(about.st_mode):
        raise OSError("a folder" if stat.S_ISDIR(about.st_mode) else "not a regular file")
    if about.st_size > most:
        raise _too_large(f"{about.st_size:,} bytes", most)
    return about.st_size


def _too_large(size: str, most: int) -> OSError:
    rule = f"{bounds.BYTES[1]} for each of --max-pixels"
    return OSError(f"{size}, where an image's file has at most {most:,} ({rule})")


def _object(url: str, limits: Limits) -> bytes:
    path = to_path(url)
    assert isinstance(path, ObjectPath)
    size = int(path.about()["size"])
    if size > limits.max_bytes:
        raise _too_large(f"{size:,} bytes", limits.max_bytes)
    return path.read_bytes()


# ---------------------------------------------------------------------------------------------------------------------


class _Passing(OSError):
    """It may be right the next time."""


def _fetched(url: str, limits: Limits) -> bytes:
    """What a web server answers, after as many attempts and redirects as it takes."""
    end = time.monotonic() + bounds.SECONDS
    address = _address(url)
    for attempt in range(TRIES):
        try:
            return _followed(address, limits, end)
        except _Passing as e:
            wait = _jitter.uniform(0, WAIT * 2**attempt)
            if attempt == TRIES - 1 or time.monotonic() + wait > end:
                raise OSError(f"{e}, {attempt + 1} times") from e
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _address(url: str) -> WebAddress:
    try:
        return WebAddress.parsed(url)
    except ValueError as e:
        raise OSError(f"{e}") from e


def _followed(address: WebAddress, limits: Limits, end: float) -> bytes:
    for _ in range(bounds.REDIRECTS + 1):
        if not limits.allows(address):
            server = WebAddress(address.protocol, address.host, address.port, "/")
            raise OSError(
                f"{server} is not asked: allow it with --allow-remote {address.protocol} or, also where it is in this "
                f"machine's own network, --allow-remote {server}"
            )
        try:
            with closing(_opened(address, limits.named(address), end)) as answer:
                if answer.status not in _MOVED:
                    return _body(answer, limits.max_bytes)
                to = answer.headers.get("Location", "")
        except (ConnectionError, http.client.HTTPException) as e:
            raise _Passing(f"{address.host}: {type(e).__name__}: {e}") from e
        except TimeoutError as e:
            raise OSError(f"{address.host} took longer than {bounds.SECONDS:g} seconds") from e
        address = _address(urljoin(str(address), to))
    raise OSError(f"more than {bounds.REDIRECTS} redirects")


def _body(answer: http.client.HTTPResponse, most: int) -> bytes:
    if answer.status != 200:
        said = f"HTTP {answer.status} {answer.reason}"[:100]
        raise (_Passing if answer.status in _PASSING else OSError)(said)
    if (packed := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise OSError(f"its server packed it ({packed[:30]}), which was not asked for")
    if (answer.length or 0) > most:
        raise _too_large(f"{answer.length:,} bytes", most)
    data = bytearray()
    while block := answer.read(_BLOCK):
        data += block
        if len(data) > most:
            raise _too_large("more bytes", most)
    if answer.length:
        raise _Passing(f"it ended after {len(data):,} bytes, {answer.length:,} early")
    return bytes(data)


def _opened(address: WebAddress, named: bool, end: float) -> http.client.HTTPResponse:
    """The answer, with its head read. named: its server may be anywhere, and behind a proxy."""
    proxies = {p: url for p, url in urllib.request.getproxies().items() if p == address.protocol}
    if proxies and urllib.request.proxy_bypass(address.host):
        proxies = {}
    if proxies and not named:
        raise OSError(
            f"a proxy ({address.protocol}_proxy) stands before {address.host} and hides where that is: allow the "
            f"beginning of its URLs, as --allow-remote {address.protocol}://{address.host}/"
        )
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler(proxies))
    opener.add_handler(_Handler(named, end))
    request = urllib.request.Request(str(address), headers={"User-Agent": f"polyteach/{__version__}"})
    try:
        answer: http.client.HTTPResponse = opener.open(request, timeout=_left(end))
    except urllib.error.URLError as e:
        if isinstance(e.reason, OSError):
            raise e.reason from e
        raise OSError(str(e.reason)) from e
    return answer


def _left(end: float) -> float:
    """Seconds that are left.

    Raises:
        TimeoutError: none.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("too late")
    return left


class _Connection(http.client.HTTPConnection):
    """A connection to an address outside of the machine's own network, or to any where `named`; until `end`."""

    protocol = "http"
    named = False
    end = 0.0

    def connect(self) -> None:
        """Connect to one of its host's addresses as they were looked up, and looked at, here."""
        name = self.host
        found = socket.getaddrinfo(name, self.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(a[4][0]) for a in found))[:ADDRESSES]
        for address in addresses:
            if not self.named and _inside(address):
                raise OSError(
                    f"{name} ({address}) is in this machine's own network: allow the beginning of its URLs, as "
                    f"--allow-remote {WebAddress(self.protocol, name, self.port, '/')}"
                )
        try:
            for n, address in enumerate(addresses, 1):
                self.host, self.timeout = address, _left(self.end)
                try:
                    super().connect()
                    break
                except OSError:
                    if n == len(addresses):
                        raise
        finally:
            self.host = name  # which the certificate has to be for


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """As `_Connection`, whose `connect` that of HTTPS calls before it says anything."""

    protocol = "https"


class _Answer(http.client.HTTPResponse):
    """An answer that has to be over by `end`, however slowly it comes."""

    def __init__(self, sock: socket.socket, *args: Any, end: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, end))


class _Timed(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, end: float) -> None:
        self._raw, self._sock, self._end = raw, sock, end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._end))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https, and nothing else, by connections that look where they lead."""

    def __init__(self, named: bool, end: float) -> None:
        super().__init__()
        self._named, self._end = named, end

    def _open(self, kind: type[_Connection], request: urllib.request.Request) -> Any:
        def connection(host: str, **options: Any) -> _Connection:
            made = kind(host, **options)
            made.named, made.end = self._named, self._end
            made.response_class = partial(_Answer, end=self._end)  # type: ignore[assignment]
            return made

        return self.do_open(connection, request)

    def http_open(self, request: urllib.request.Request) -> Any:
        """The answer to a request."""
        return self._open(_Connection, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        """The answer to a request."""
        return self._open(_SecureConnection, request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


def _inside(address: str) -> bool:
    """Whether an address is in the machine's own network, or of no single server: also where it is one in disguise."""
    ip = ipaddress.ip_address(address)
    return any(
        not a.is_global or a.is_multicast or a.is_reserved or getattr(a, "is_site_local", False) for a in _meant(ip)
    )


def _meant(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The address, or those of IPv4 that it stands for."""
    if isinstance(ip, ipaddress.IPv4Address):
        yield ip
        return
    low = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    hidden = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ()), low if ip in _NAT64 else None]
    found = [a for a in hidden if a is not None]
    yield from found or [ip]
