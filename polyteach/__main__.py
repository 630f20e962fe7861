"""The command line: one subcommand per verb, made from its signature.

A verb's module is imported when its command is called, so that `polyteach --help` is quick.
"""

import errno
import functools
import importlib
import inspect
import os
import re
import select
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from polyteach.names import unknown_name
from polyteach.texts import say

VERBS = {
    "ingest": "images (a folder, a list, a tar, a Parquet file) -> store",
    "label": "store + teachers -> pseudo labels in the store",
    "train": "stores -> student (or, from people's labels, a teacher)",
    "pretrain": "images -> backbone, without labels (SimCLR, VICReg): the rivals",
    "transfer": "student + a downstream store -> scores, by one protocol for every rival",
    "predict": "student + images -> targets and pictures",
    "report": "scores of many transfers -> one page of tables, curves and pictures",
    "store": "look after a store: check, info, split, merge, drop-labels, repair",
    "demo": "the whole method on real photographs with real packaged teachers",
}
GROUPS = {
    "store": (
        "stores",
        {
            "check": "verify every part, and say what is broken",
            "info": "what is in it: images, label sets, their statistics and classes",
            "split": "divide the images into training, validation and test",
            "merge": "several stores into a new one",
            "drop-labels": "delete label sets",
            "repair": "take out what is broken, and nothing else",
        },
    )
}
"""Verbs of verbs: the module, and what there is in it."""
OF_A_PATH = (
    errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG,
    errno.ELOOP, errno.ENXIO,
)  # fmt: skip
"""What the system says of a path that somebody gave, and that no program can mend."""


def usage() -> str:
    """The top-level help text."""
    lines = [f"  {verb:9}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: polyteach VERB [ARGUMENTS]   (polyteach VERB --help tells them, with examples)",
            "",
            "Many specialist vision models teach one general model (MuST, ICCV 2021).",
            "",
            *lines,
            "",
            "every verb takes --config FILE.yaml: the same names as its options; options on the command line win",
            "",
            "  polyteach ingest photos/ store",
            "  polyteach label store --teacher boxes=torchvision:fasterrcnn_resnet50_fpn classes=timm:resnet50",
            "  polyteach train store --out run",
            "  polyteach predict run cat.jpg --out pictures",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    Where who reads what it prints has gone, as in `polyteach label --help | head`, that is the end, without a word:
    141, as of a program that the shell says SIGPIPE has ended.
    """
    try:
        try:
            return _main(argv)
        finally:
            sys.stdout.flush()  # else the interpreter does it, and complains
    except BrokenPipeError:
        gone = [stream for stream in (sys.stdout, sys.stderr) if _unread(stream)]
        if not gone:  # another pipe, as to a server
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in gone:
            os.dup2(nowhere, stream.fileno())
        return 141


def _unread(stream: TextIO) -> bool:
    """Whether it goes into a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except (OSError, ValueError):  # no file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _main(argv: list[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        say(*usage().split("\n"), stream=sys.stdout)
        return 0 if argv else 2
    if argv[0] == "--version":
        import polyteach

        say(f"polyteach {polyteach.__version__}", stream=sys.stdout)
        return 0
    if argv[0] not in VERBS:
        say(f"polyteach: {unknown_name('verb', argv[0], VERBS)}")
        return 2
    if argv[0] != "train" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        say(f"polyteach {argv[0]}: is one process's work; start it without torchrun")
        return 2
    module, name, prog, rest = argv[0], argv[0], argv[0], argv[1:]
    if argv[0] in GROUPS:
        module, known = GROUPS[argv[0]]
        if not rest or rest[0] not in known:
            asked = bool(rest) and rest[0] in ("-h", "--help")
            lines = [f"usage: polyteach {argv[0]} VERB [ARGUMENTS]", "", *(f"  {k:12}{v}" for k, v in known.items())]
            if rest and not asked:
                lines.insert(0, f"polyteach {argv[0]}: {unknown_name('verb', rest[0], known)}")
            say(*lines, stream=sys.stdout if asked else sys.stderr)
            return 0 if asked else 2
        prog, name, rest = f"{argv[0]} {rest[0]}", rest[0].replace("-", "_"), rest[1:]
    home = importlib.import_module(f"polyteach.{module}")
    verb: Callable[..., Any] = getattr(home, name)
    try:
        result = _call(verb, prog, rest)
    except KeyboardInterrupt as e:
        why = f" ({e})" if str(e) else ""
        say("", f"polyteach {prog}: stopped{why}; what was written is whole. The same command goes on.")
        return 130
    except ValueError as e:
        _complain(prog, e)
        return int(getattr(e, "status", 2))
    except OSError as e:
        from polyteach.storage import StorageError

        if e.filename and e.errno in OF_A_PATH:
            say(f"polyteach {prog}: {_paths(e)}: {e.strerror}")
            return 1
        if isinstance(e, StorageError | BlockingIOError | PermissionError | TimeoutError):
            _complain(prog, e)
            return 1
        if e.errno != errno.ENOSPC:
            raise
        where = f" at {e.filename}" if e.filename else ""
        say(
            f"polyteach {prog}: the disk is full{where}. Nothing is half-written; make room, then give the same "
            "command again and it goes on"
        )
        return 1
    # a verb whose work may be done in part says so by a function of its module
    return int(home.status(result)) if hasattr(home, "status") else 0


def _paths(error: OSError) -> str:
    names = [f for f in (error.filename, error.filename2) if f is not None]
    return " -> ".join(os.fsdecode(f) if isinstance(f, bytes) else str(f) for f in names)


def _complain(prog: str, error: Exception) -> None:
    """Further lines of an error are set in, so that none passes for one of ours: names in it may hold line ends."""
    first, *more = str(error).split("\n")
    say(f"polyteach {prog}: {first}", *(f"  {line}" for line in more))


def _call(verb: Callable[..., Any], prog: str, argv: list[str]) -> Any:
    """What the verb returned. argv: the command line behind it.

    Raises:
        ValueError: an option or a configuration that is none, words that the verb has no place for; or the verb's own.
    """
    import tyro

    argv, config = _config_option(argv)
    options = _options(verb)
    _known(argv, options)
    words: list[str] = []
    positional: dict[str, Any] = {}
    for name, value in config.items():
        if name not in options:
            raise unknown_name("key of --config", name, sorted(options), f"{verb.__name__} knows")
        parameter = options[name]
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            words += _words(name, value)
        else:
            listed = isinstance(value, list)
            positional[parameter.name] = tuple(map(str, value)) if listed else str(value)
    call, unknown = tyro.cli(
        _entry(verb, positional),
        prog=f"polyteach {prog}",
        description=_description(verb),
        args=_merge(words, argv),
        return_unknown_args=True,
    )
    if unknown:  # tyro would print them as they are
        several = "words are" if len(unknown) > 1 else "word is"
        raise ValueError(f"{len(unknown)} {several} too many: {' '.join(map(repr, unknown))}; see --help")
    return call()


def _description(verb: Callable[..., Any]) -> str:
    """The docstring without its list of arguments, which tyro shows beside the options."""
    before, _, arguments = (inspect.getdoc(verb) or "").partition("\nArgs:\n")
    sections = re.split(r"\n(?=\S)", arguments)
    examples = [x for x in sections if x.startswith("Examples:")]
    from polyteach.tables import width_of, wrapped

    # tyro joins a paragraph's lines, unless they begin with a space, and leaves it to the terminal to break words
    width = min(width_of(sys.stdout), 120)
    told = ["\n".join(wrapped(text, width, " ", hanging="")) for text in before.strip().split("\n\n")]
    return "\n".join(["\n\n".join(told), "", *examples, "", "--config FILE.yaml gives options from a file."])


def _merge(words: list[str], argv: list[str]) -> list[str]:
    """Options of the configuration that the command line does not give itself, behind the command line's words."""
    given = {w.split("=")[0].replace("--no-", "--").replace("_", "-") for w in argv if w.startswith("--")}
    out = list(argv)
    take = False
    for word in words:
        if word.startswith("--"):
            take = word.replace("--no-", "--").replace("_", "-") not in given
        if take:
            out.append(word)
    return out


def _config_option(argv: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The command line without --config FILE, and what that file says."""
    rest, file = list(argv), None
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                raise ValueError("--config needs a file")
            file, rest = argv[i + 1], argv[:i] + argv[i + 2 :]
        elif word.startswith("--config="):
            file, rest = word.partition("=")[2], argv[:i] + argv[i + 1 :]
    if file is None:
        return rest, {}
    from polyteach.files import read_text, yaml_value

    try:
        text = read_text(Path(file))
    except OSError as e:
        raise ValueError(f"--config {file}: {os.strerror(e.errno or 0)}") from e
    except ValueError as e:
        raise ValueError(f"--config {e}") from e
    try:
        config = yaml_value(text)
    except ValueError as e:
        raise ValueError(f"--config {file} is not valid YAML: {e}") from e
    if not isinstance(config, dict):
        raise ValueError(f"--config {file} must be NAME: VALUE lines")
    if {"verb", "options"} <= set(config):
        raise ValueError(
            f"--config {file} is the record of a run, and not a file of options: write those of its 'options' that you "
            "want into one, NAME: VALUE lines"
        )
    return rest, {str(k).replace("-", "_"): v for k, v in config.items()}


def _known(argv: list[str], options: dict[str, inspect.Parameter]) -> None:
    """Raises:
    ValueError: an option that the verb does not have; lists those it has, and the one that was meant.
    """
    named = [n for n, p in options.items() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    before = argv[: argv.index("--")] if "--" in argv else argv  # what stands behind it is no option
    for word in (w.partition("=")[0] for w in before if w.startswith("--")):
        name = word[2:].replace("-", "_")
        if name not in ("help", *named, *(f"no_{n}" for n in named)) and not name.startswith("tyro_"):
            raise unknown_name("option", word, ["--" + n.replace("_", "-") for n in (*named, "config")])


def _options(verb: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Option name -> parameter; the option's name may be set in the annotation."""
    hints = typing.get_type_hints(_entry(verb, {}), include_extras=True)
    out = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        named = [getattr(m, "name", None) for m in getattr(hints[name], "__metadata__", ())]
        out[next((n for n in named if n), name)] = parameter
    return out


def _words(name: str, value: Any) -> list[str]:
    option = "--" + name.replace("_", "-")
    if isinstance(value, bool):
        return [option if value else "--no-" + option[2:]]
    if isinstance(value, dict):
        return [option, *(f"{k}={v}" for k, v in value.items())]
    if isinstance(value, list):
        return [option, *map(str, value)]
    return [option, str(value)]


def _entry(verb: Callable[..., Any], defaults: dict[str, Any]) -> Callable[..., Any]:
    """The verb's call, not made yet; with other defaults, and no return type, as its classes are imported late."""
    signature = inspect.signature(verb)
    replaced = [p.replace(default=defaults.get(n, p.default)) for n, p in signature.parameters.items()]

    def call(*args: Any, **kwargs: Any) -> Any:
        return functools.partial(verb, *args, **kwargs)

    # no functools.wraps, and no wrapper that a type checker adds: tyro would look through it, to the return type
    call.__dict__.pop("__wrapped__", None)
    call.__name__, call.__doc__ = verb.__name__, verb.__doc__
    call.__annotations__ = {k: v for k, v in verb.__annotations__.items() if k != "return"}
    call.__signature__ = signature.replace(parameters=replaced, return_annotation=None)  # type: ignore[attr-defined]
    return call


if __name__ == "__main__":
    sys.exit(main())
