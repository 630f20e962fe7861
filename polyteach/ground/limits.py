"""How far reading goes for what a stranger may have made: where uris may lead, and what one image may cost."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, unquote, urlsplit

_W = TypeVar("_W", bound="WebAddress")

MAX_PIXELS = 100_000_000
"""Pixels of an image from which on it is refused, unless more are allowed."""
BYTES = 256 * 2**20, 4
"""Most bytes of an image's file: so many, or so many for every pixel that an image may have, whichever is more."""
SECONDS = 60.0
"""Longest time that fetching one image from a web server may take, all tries and redirects together."""
REDIRECTS = 5
"""Redirects that are followed for one image."""
WEB = {"http": 80, "https": 443}
"""Protocols of web servers, and their ports."""


@dataclass(frozen=True)
class WebAddress:
    """A URL of a web server in one form: without . and .. among its folders, without a name or password and a fragment.

    host: without brackets; internationalised names in ASCII. path: begins with a slash. query: without the question
    mark.
    """

    protocol: str
    host: str
    port: int
    path: str
    query: str = ""

    @classmethod
    def parsed(cls: type[_W], text: str) -> _W:
        """The address that a text means.

        Raises:
            ValueError: it is none; says why, without the text.
        """
        if _odd(text):
            raise ValueError("a URL with control characters")
        parts = urlsplit(text)
        protocol = parts.scheme.lower()
        if protocol not in WEB or not text[len(protocol) :].startswith("://"):
            raise ValueError(f"not a URL that begins with {' or '.join(f'{p}://' for p in WEB)}")
        if "@" in parts.netloc or "\\" in parts.netloc:
            raise ValueError("a URL with a name or password before its host")
        port = parts.port or WEB[protocol]
        host = (parts.hostname or "").rstrip(".")
        if ":" not in host:
            host = host.encode("idna").decode() if host else ""
            if not re.fullmatch(r"[a-z0-9._-]+", host):
                raise ValueError("a URL whose host is none")
        return cls(protocol, host, port, _plain(parts.path), quote(parts.query, safe=_KEPT))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == WEB[self.protocol] else f":{self.port}"
        return f"{self.protocol}://{host}{port}{self.path}" + (f"?{self.query}" if self.query else "")

    def within(self: _W, beginning: _W) -> bool:
        """Whether it begins so: the same server, and the same folder (or file), or one below."""
        if (self.protocol, self.host, self.port) != (beginning.protocol, beginning.host, beginning.port):
            return False
        folder = beginning.path.rstrip("/")
        if folder and ".." in re.split(r"[/\\]", unquote(unquote(self.path))):
            return False  # written so that only the server sees it
        return self.path in (beginning.path, folder) or self.path.startswith(f"{folder}/")


_KEPT = "!#$%&'()*+,/:;=?@[]~"
"""What a URL may hold as it is; all else is written as %XX."""


def _odd(text: str) -> bool:
    return any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _plain(path: str) -> str:
    """A URL's path without its . and .. (RFC 3986, 5.2.4), also where they are written as %2e."""
    segments = re.sub("%2e", ".", quote(path, safe=_KEPT), flags=re.IGNORECASE).removeprefix("/").split("/")
    out: list[str] = []
    for segment in segments:
        if segment == "..":
            del out[-1:]
        elif segment != ".":
            out.append(segment)
    if segments[-1] in (".", "..") and out:
        out.append("")
    return "/" + "/".join(out)


@dataclass(frozen=True)
class Limits:
    """What reading a store or a dataset may do. Whoever opens it says so; nothing that lies in it can widen them.

    Args:
        allow_remote: where else than from files of this machine and object storage images may be fetched: a protocol
            (http, https), or the beginning of URLs, also of servers in this machine's own network
            (docs/guide/store.md).
        max_pixels: refuse images with more pixels than this, whatever the store says of them.

    Raises:
        ValueError: a limit that is none.
    """

    allow_remote: Sequence[str] = ()
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        several = (self.allow_remote,) if isinstance(self.allow_remote, str) else tuple(self.allow_remote)
        object.__setattr__(self, "allow_remote", several)  # a tuple, so that limits can be compared and hashed
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels must be at least 1; got {self.max_pixels}")
        for given in self.allow_remote:
            if given in WEB:
                continue
            try:
                address = WebAddress.parsed(given)
                if address.query or "#" in given:
                    raise ValueError("a URL with a query")
            except ValueError as e:
                raise ValueError(
                    f"allow_remote: {given!r} is {e}; give a protocol ({', '.join(WEB)}) or the beginning of URLs, "
                    "such as https://images.example/photos/. Files of this machine and object storage need none"
                ) from e

    @property
    def max_bytes(self) -> int:
        """Bytes of an image's file beyond which it is refused."""
        return max(BYTES[0], BYTES[1] * self.max_pixels)

    def named(self, address: WebAddress) -> bool:
        """Whether an address lies within a beginning that was allowed, wherever its server may be."""
        return any(address.within(WebAddress.parsed(a)) for a in self.allow_remote if a not in WEB)

    def allows(self, address: WebAddress) -> bool:
        """Whether an address may be fetched, its server being outside of the machine's own network or `named`."""
        return address.protocol in self.allow_remote or self.named(address)
