"""What is said of a teacher after a question mark: `NAME?key=value&key=value`. Nothing here needs torch."""

import os
from collections.abc import Mapping

from polyteach.ground.names import did_you_mean


def options_of(family: str, name: str, examples: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """NAME and what is said of it. A file or folder that is called so, question mark and all, has nothing said of it.

    examples: a value of each key that there is.

    Raises:
        ValueError: a key that there is not, one without a value or one said twice.
    """
    where, question, text = name.partition("?")
    if not question or os.path.exists(os.path.expanduser(name)):
        return name, {}
    options: dict[str, str] = {}
    for pair in text.split("&"):
        key, equals, value = pair.partition("=")
        if key not in examples or not equals or not value:
            known = " or ".join(f"?{k}={v}" for k, v in examples.items())
            close = "" if key in examples else did_you_mean(key, examples)
            raise ValueError(f"{family}:{name}: {pair!r} is no option of such a teacher; it takes {known}{close}")
        if key in options:
            raise ValueError(f"{family}:{name}: {key} is said twice")
        options[key] = value
    return where, options
