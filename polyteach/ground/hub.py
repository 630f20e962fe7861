"""The Hugging Face hub: in one line why it gives no file, and no waiting for one that is out of reach."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

PATIENCE = 5
"""Seconds that a server has to take a connection; without it huggingface_hub tries six times, for up to a minute."""


def unavailable(error: BaseException, repository: str) -> str:
    """Why nothing was had of a repository ("ORG/NAME"), and what to do, as an error of huggingface_hub has it."""
    kinds = {t.__name__ for t in type(error).__mro__}
    page = f"https://huggingface.co/{repository}"
    if "GatedRepoError" in kinds:
        return f"{repository} is gated: accept its terms at {page}, then log in with: hf auth login"
    if "RevisionNotFoundError" in kinds:
        return f"{repository} has no such revision; see {page}/tree/main"
    if "RepositoryNotFoundError" in kinds:
        return f"there is no {repository} on the hub, or it is private: then log in with: hf auth login"
    # before the files that are not there, of which it is a kind
    if kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        return f"{repository} is not in this machine's cache, and the hub cannot be asked (no connection, or offline)"
    if "EntryNotFoundError" in kinds:
        return f"{repository} has no such file: {_first(error)}"
    if kinds & {"ConnectionError", "TimeoutError", "ConnectError", "TimeoutException", "NetworkError", "URLError"}:
        return f"the hub cannot be reached ({_first(error)})"
    return _first(error)


def _first(error: BaseException) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def impatient() -> Iterator[None]:
    """Within, a host that takes no connection in `PATIENCE` seconds counts as being offline, once for all requests.

    What is in the cache is found then, as with HF_HUB_OFFLINE=1. Behind a proxy, which answers for others, and with a
    huggingface_hub before 1.0 nothing changes.
    """
    client = _client()
    hooks = getattr(client, "event_hooks", {}).get("request") if client is not None else None
    if hooks is None:
        yield
        return
    asked = _asked({})
    hooks.append(asked)
    try:
        yield
    finally:
        if asked in hooks:
            hooks.remove(asked)


def _client() -> Any:
    try:
        from huggingface_hub import get_session  # only where something is downloaded
    except ImportError:
        return None
    return None if getproxies() else get_session()


def _asked(known: dict[tuple[str, int], str]) -> Callable[[Any], None]:
    """What is done before every request. known: hosts that were asked for a connection -> why they took none."""

    def asked(request: Any) -> None:
        from huggingface_hub.errors import OfflineModeIsEnabled

        url = urlsplit(str(request.url))
        place = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
        if place not in known:
            try:
                socket.create_connection(place, timeout=PATIENCE).close()
                known[place] = ""
            except OSError as e:
                known[place] = str(e)
        if known[place]:
            raise OfflineModeIsEnabled(f"{place[0]} cannot be reached: {known[place]}")

    return asked
