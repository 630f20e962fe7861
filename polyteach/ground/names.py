"""Names: which may become a file's name, and what to say of one that is none of those there are."""

import difflib
import re
from collections.abc import Collection, Iterable
from importlib.metadata import entry_points

LISTED = 40
"""So many known names are listed in an error; of more, the closest alone."""

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "vulkan", "meta")
"""Kinds of devices, as torch calls them."""
LONGEST = 120
"""Characters of a name that becomes part of a file's: file systems take 255 bytes, and endings come after it."""


def fit_name(what: str, name: object) -> str:
    """`name`, if it may become a file's name: letters, digits, ".", "_" and "-" of ASCII, a letter or digit first.

    So it stays in its folder, on every file system: no separator, no "..", no hidden file, no control character. What
    a file says its names are is held against this where the file is read; what a person types, where it is taken.

    what: such names are, as in "label set name".

    Raises:
        ValueError: it may not; says which characters are allowed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        shown = name if len(repr(name)) <= LONGEST else repr(name)[:LONGEST]
        raise ValueError(
            f"{what} {shown!r}: use letters, digits, '.', '_' and '-', a letter or digit first: it becomes part of "
            "files' names"
        )
    if len(name) > LONGEST:
        raise ValueError(f"{what} {name[:40] + '...'!r} has {len(name):,} characters; at most {LONGEST} are allowed")
    return name


def plain(name: str) -> str:
    """Its letters and digits alone, without case: what two spellings of one name have in common."""
    return "".join(c for c in name.casefold() if c.isalnum())


def closest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """At most `most` of `known` that may have been meant, the likeliest first; none where none is like it.

    Only letters and digits count, without case: `resnet_50` is `resnet50`. Then come names that differ by a typo, then
    those that contain what was given, or are contained in it, the shortest first.
    """
    spelt: dict[str, list[str]] = {}
    for one in known:
        spelt.setdefault(plain(one), []).append(one)
    given = plain(name)
    keys = [given] if given in spelt else []
    keys += difflib.get_close_matches(given, spelt, most, 0.6)
    if len(given) >= 3:
        within = [k for k in spelt if given in k or (len(k) >= 3 and k in given)]
        keys += sorted(within, key=lambda k: (len(k), k))
    return [one for key in dict.fromkeys(keys) for one in spelt[key]][:most]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence ". Did you mean ...?", to stand behind an error; empty where nothing is like `name`."""
    close = closest(name, known)
    return f". Did you mean {' or '.join(close)}?" if close else ""


def unknown_name(what: str, name: str, known: Collection[str], there: str = "there are", fix: str = "") -> ValueError:
    """The error for a `name` that is none of `known`: those there are, the closest, and what to do.

    what: such names are, as in "unknown WHAT 'x'". there: begins the list. fix: a sentence where none fits.
    """
    if not known:
        text = f"unknown {what} {name!r}; there is none"
    elif len(known) <= LISTED:
        text = f"unknown {what} {name!r}; {there} {', '.join(known)}{did_you_mean(name, known)}"
    elif close := closest(name, known, 6):
        text = f"unknown {what} {name!r}; did you mean {', '.join(close)}? ({len(known):,} are known)"
    else:
        text = f"unknown {what} {name!r}; none of the {len(known):,} known ones is like it, such as {min(known)}"
    return ValueError(f"{text}{'' if text.endswith(('?', ')')) or not fix else '.'}{f' {fix}' if fix else ''}")


def check_device(name: str) -> None:
    """Refuse what is no device's name; whether this machine has it only torch can say (`devices.find_device`).

    Raises:
        ValueError: torch knows no such kind of device; says which was meant.
    """
    kind, _, index = str(name).partition(":")
    known = kind in DEVICES or (kind.isalpha() and _foreign_devices())
    if not known or not re.fullmatch(r"\d*", index) or str(name).endswith(":"):
        raise no_device(str(name))


def _foreign_devices() -> bool:
    """Whether another distribution may bring torch kinds of devices that are not listed here."""
    return bool(entry_points(group="torch.backends"))


def no_device(name: str) -> ValueError:
    """The error of a name that is no device's."""
    given = re.sub(r"^(gpu|nvidia):?", "cuda:", name.strip().casefold()).rstrip(":")
    close = difflib.get_close_matches(given, ("auto", "cpu", "cuda", *(f"cuda:{i}" for i in range(8)), "mps", "xpu"), 1)
    meant = f". Did you mean {close[0]}?" if close else ""
    return ValueError(f"device {name!r} is none: say auto, cpu, cuda or cuda:NUMBER{meant}")
