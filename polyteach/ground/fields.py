"""What a JSON file says, looked at field by field: errors name the file, the field, what is allowed and what is there.

Whoever made the file may be a stranger: nothing of it is used before its type and its range are known.
"""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from polyteach.ground.files import read_json
from polyteach.ground.storage import AnyPath, StorageError

_F = TypeVar("_F", bound="Fields")

LARGEST = 32 * 2**20
"""Bytes of a described file; Python's values take up to twenty times as much memory."""


class Fields:
    """A JSON object that knows its file and its place there.

    fix: what to do about a file that is wrong, in words that end every error. Every method takes a key of the object;
    null: whether the field may be null, which gives None; it may be missing then too, unless all fields must be there
    (`whole`).
    """

    def __init__(self, file: Any, value: Any, where: str = "", fix: str = "", whole: bool = False) -> None:
        self.file, self.where, self.fix, self.whole = file, where, fix, whole
        if not isinstance(value, dict):
            raise self.error("", "must be an object", value)
        self.value: dict[str, Any] = value

    @classmethod
    def read(cls: type[_F], file: AnyPath, fix: str = "") -> _F:
        """The object in a JSON file of at most `LARGEST` bytes.

        Raises:
            ValueError: there is no such file, it is too large or cannot be read, or it is not a JSON object.
            StorageError: the object storage cannot be asked.
        """
        try:
            return cls(file, _value(file), fix=fix)
        except StorageError:
            raise
        except UnicodeEncodeError:  # half a character, as "\ud800": no file and no terminal takes it
            reason = f"{file} has text that UTF-8 cannot hold"
        except ValueError as e:  # names the file
            reason = str(e)
        except OSError as e:
            reason = f"{file} cannot be read: {e.strerror or e}"
        raise ValueError(f"{reason}{f'. {fix}' if fix else ''}")

    def __contains__(self, key: str) -> bool:
        return self.value.get(key) is not None

    def error(self, key: str, what: str, *got: object) -> ValueError:
        """The error of a field: `key` WHAT, and what is there instead."""
        place = ".".join(p for p in (self.where, key) if p) or "the file"
        given = f"; it is {short(got[0])}" if got else ""
        return ValueError(f"{self.file}: {place} {what}{given}{f'. {self.fix}' if self.fix else ''}")

    def get(self, key: str, kinds: tuple[type, ...], what: str, null: bool = False) -> Any:
        """The value, of one of these types; what: how that is called."""
        value = self.value.get(key)
        if key not in self.value and (self.whole or not null):
            raise self.error(key, "is missing")
        if value is None and null:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.error(key, f"must be {what}{' or null' if null else ''}", value)
        if isinstance(value, float) and not math.isfinite(value):
            raise self.error(key, "must be finite", value)
        return value

    def text(self, key: str, null: bool = False) -> Any:
        """A text."""
        return self.get(key, (str,), "text", null)

    def flag(self, key: str, null: bool = False) -> Any:
        """True or false."""
        return self.get(key, (bool,), "true or false", null)

    def number(self, key: str, null: bool = False, low: float = -math.inf, high: float = math.inf) -> Any:
        """A finite number from `low` to `high`."""
        return self._within(key, self.get(key, (int, float), "a number", null), low, high)

    def count(self, key: str, null: bool = False, low: float = -math.inf, high: float = math.inf) -> Any:
        """A whole number from `low` to `high`."""
        return self._within(key, self.get(key, (int,), "a whole number", null), low, high)

    def object(self: _F, key: str, null: bool = False) -> _F:
        """An object; an empty one where it may be null and is."""
        found = self.get(key, (dict,), "an object", null)
        return type(self)(self.file, {} if found is None else found, self._place(key), self.fix, self.whole)

    def objects(self: _F, key: str, null: bool = False) -> list[_F]:
        """A list of objects; an empty one where it may be null and is."""
        listed = self.get(key, (list,), "a list", null) or []
        return [
            type(self)(self.file, x, f"{self._place(key)}[{i}]", self.fix, self.whole) for i, x in enumerate(listed)
        ]

    def texts(self, key: str, null: bool = False) -> tuple[str, ...]:
        """A list of texts; an empty one where it may be null and is."""
        listed = self.get(key, (list,), "a list of texts", null) or []
        for i, x in enumerate(listed):
            if not isinstance(x, str):
                raise self.error(f"{key}[{i}]", "must be text", x)
        return tuple(listed)

    def one_of(self, key: str, allowed: Iterable[str]) -> str:
        """One of these texts."""
        value: str = self.text(key)
        if value not in allowed:
            raise self.error(key, f"must be one of {', '.join(allowed)}", value)
        return value

    def _place(self, key: str) -> str:
        return f"{self.where}.{key}".lstrip(".")

    def _within(self, key: str, value: Any, low: float, high: float) -> Any:
        if value is not None and not low <= value <= high:
            bounds = f"at least {low:,}" if high == math.inf else f"{low:,} to {high:,}"
            raise self.error(key, f"must be {bounds}", value)
        return value


def cost(said: Fields) -> dict[str, Any]:
    """What something cost, as files keep it: of (tells the same training from others), name, images, flops, seconds.

    Raises:
        ValueError: it lacks a field, or one is of another kind.
    """
    texts = {k: said.text(k) for k in ("of", "name")}
    return texts | {k: said.number(k, null=True) for k in ("images", "flops", "seconds")}


def _value(file: AnyPath) -> Any:
    size = file.stat().st_size if isinstance(file, Path) else int(file.about()["size"])
    if size > LARGEST:
        raise ValueError(f"{file} has {size:,} bytes, and at most {LARGEST:,} are read")
    value = read_json(file)
    json.dumps(value, ensure_ascii=False).encode()
    return value


def short(value: Any) -> str:
    """How a value is shown: not more than a line of it, however much there is."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value):,}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "a number of more than 20 digits"
    return repr(value[:80] if isinstance(value, str) else value)
