"""The command line: one subcommand per verb, made from its signature.

A verb's module is imported when its command is called, so that `polyteach --help` is quick.
"""

import errno
import functools
import inspect
import os
import re
import select
import sys
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple, TextIO

from polyteach.ground.names import unknown_name
from polyteach.ground.options import explained, from_file
from polyteach.ground.texts import say
from polyteach.verbs import is_group, load_verb, verbs
from polyteach.version import __version__

OF_A_PATH = (
    errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG,
    errno.ELOOP, errno.ENXIO,
)  # fmt: skip
"""What the system says of a path that somebody gave, and that no program can mend."""


def usage() -> str:
    """The top-level help text."""
    lines = [f"  {verb:9}{what}" for verb, what in verbs().items()]
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
        say(f"polyteach {__version__}", stream=sys.stdout)
        return 0
    known = verbs()
    if argv[0] not in known:
        say(f"polyteach: {unknown_name('verb', argv[0], known)}")
        return 2
    if argv[0] != "train" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        say(f"polyteach {argv[0]}: is one process's work; start it without torchrun")
        return 2
    group, name, prog, rest = "", argv[0], argv[0], argv[1:]
    if is_group(name):
        group, known = name, verbs(name)
        if not rest or rest[0] not in known:
            asked = bool(rest) and rest[0] in ("-h", "--help")
            lines = [f"usage: polyteach {group} VERB [ARGUMENTS]", "", *(f"  {k:12}{v}" for k, v in known.items())]
            if rest and not asked:
                lines.insert(0, f"polyteach {group}: {unknown_name('verb', rest[0], known)}")
            say(*lines, stream=sys.stdout if asked else sys.stderr)
            return 0 if asked else 2
        prog, name, rest = f"{group} {rest[0]}", rest[0], rest[1:]
    verb, status = load_verb(name, group)
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
        from polyteach.ground.storage import StorageError

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
    return status(result)


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

    argv, file, config = _config_option(argv)
    options = _options(verb)
    _known(argv, options)
    call, unknown = tyro.cli(
        _entry(verb, _configured(file, config, options)),
        prog=f"polyteach {prog}",
        description=_description(verb),
        args=argv,
        return_unknown_args=True,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    if unknown:  # tyro would print them as they are
        several = "words are" if len(unknown) > 1 else "word is"
        raise ValueError(f"{len(unknown)} {several} too many: {' '.join(map(repr, unknown))}; see --help")
    return call()


def _configured(file: str, config: dict[str, Any], options: dict[str, "Option"]) -> dict[str, Any]:
    """Parameter or option of a group -> its value in the configuration."""
    values = {}
    for name, value in config.items():
        if name not in options:
            raise unknown_name("key of --config", name, sorted(options), "it knows")
        try:
            values[options[name].name] = from_file(value, options[name].hint)
        except ValueError as e:
            raise ValueError(f"--config {file}: {name}: {e}; got {value!r}") from e
    return values


def _description(verb: Callable[..., Any]) -> str:
    """The docstring without its list of arguments, which tyro shows beside the options."""
    before, _, arguments = (inspect.getdoc(inspect.unwrap(verb)) or "").partition("\nArgs:\n")
    sections = re.split(r"\n(?=\S)", arguments)
    examples = [x for x in sections if x.startswith("Examples:")]
    from polyteach.ground.tables import width_of, wrapped

    # tyro joins a paragraph's lines, unless they begin with a space, and leaves it to the terminal to break words
    width = min(width_of(sys.stdout), 120)
    told = ["\n".join(wrapped(text, width, " ", hanging="")) for text in before.strip().split("\n\n")]
    return "\n".join(["\n\n".join(told), "", *examples, "", "--config FILE.yaml gives options from a file."])


def _config_option(argv: list[str]) -> tuple[list[str], str, dict[str, Any]]:
    """The command line without --config FILE, the file, and what it says."""
    rest, file = list(argv), None
    for i, word in enumerate(argv):
        if word == "--config":
            if i + 1 == len(argv):
                raise ValueError("--config needs a file")
            file, rest = argv[i + 1], argv[:i] + argv[i + 2 :]
        elif word.startswith("--config="):
            file, rest = word.partition("=")[2], argv[:i] + argv[i + 1 :]
    if file is None:
        return rest, "", {}
    from polyteach.ground.files import read_text, yaml_value

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
    return rest, file, {str(k).replace("-", "_"): v for k, v in config.items()}


def _known(argv: list[str], options: "dict[str, Option]") -> None:
    """Refuse options that the verb does not have.

    Raises:
        ValueError: lists those it has, and the one that was meant.
    """
    named = [n for n, o in options.items() if not o.positional]
    before = argv[: argv.index("--")] if "--" in argv else argv  # what stands behind it is no option
    for word in (w.partition("=")[0] for w in before if w.startswith("--")):
        name = word[2:].replace("-", "_")
        if name not in ("help", *named, *(f"no_{n}" for n in named)) and not name.startswith("tyro_"):
            raise unknown_name("option", word, ["--" + n.replace("_", "-") for n in (*named, "config")])


class Option(NamedTuple):
    """name: of the verb's parameter, or of the field of a group. hint: its type. positional: it needs no --NAME."""

    name: str
    hint: Any
    positional: bool


def _options(verb: Callable[..., Any]) -> dict[str, Option]:
    """Name on the command line -> the option; the name may be set in the annotation."""
    verb = inspect.unwrap(verb)
    hints = _hints(verb)
    out = {}
    for name, parameter in inspect.signature(verb).parameters.items():
        if is_dataclass(parameter.default):
            of = typing.get_type_hints(type(parameter.default), include_extras=True)
            found = [Option(f.name, of[f.name], False) for f in fields(parameter.default)]
        else:
            found = [Option(name, hints[name], parameter.kind is not inspect.Parameter.KEYWORD_ONLY)]
        for option in found:
            named = [getattr(m, "name", None) for m in getattr(option.hint, "__metadata__", ())]
            out[next((n for n in named if n), option.name)] = option
    return out


def _hints(verb: Callable[..., Any]) -> dict[str, Any]:
    """The types of its parameters. Not of what it returns, which a door does not import."""
    taken = SimpleNamespace(__annotations__={k: v for k, v in verb.__annotations__.items() if k != "return"})
    return typing.get_type_hints(taken, verb.__globals__, include_extras=True)


def _entry(verb: Callable[..., Any], given: dict[str, Any]) -> Callable[..., Any]:
    """The verb's call, not made yet, for tyro. given: other defaults, of parameters and of options of groups.

    tyro gets twins of the groups that check nothing: what a group refuses is told as everything else is.
    """
    inner = inspect.unwrap(verb)
    signature = inspect.signature(inner)
    hints = _hints(inner)
    parameters = []
    groups = set()
    for name, parameter in signature.parameters.items():
        default = given.get(name, parameter.default)
        if is_dataclass(parameter.default):
            groups.add(name)
            default = _twin(parameter.default, given)
            hints[name] = type(default)
        parameters.append(parameter.replace(default=default, annotation=hints[name]))

    def call(*args: Any, **kwargs: Any) -> Any:
        options: dict[str, Any] = {}
        for name, value in kwargs.items():
            options |= vars(value) if name in groups else {name: value}
        return functools.partial(verb, *args, **options)

    # no functools.wraps, and no wrapper that a type checker adds: tyro would look through it
    call.__dict__.pop("__wrapped__", None)
    call.__name__, call.__doc__, call.__annotations__ = inner.__name__, inner.__doc__, hints
    call.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    return call


def _twin(group: Any, given: dict[str, Any]) -> Any:
    """A group of the same options, whose values nothing has checked."""
    import tyro

    hints = typing.get_type_hints(type(group), include_extras=True)
    told = explained(type(group))
    described = [(f.name, Annotated[hints[f.name], tyro.conf.arg(help=told.get(f.name))]) for f in fields(group)]
    twin = make_dataclass(type(group).__name__, described)
    twin.__doc__ = (type(group).__doc__ or "").partition("\n")[0]
    return twin(**{f.name: given.get(f.name, getattr(group, f.name)) for f in fields(group)})


if __name__ == "__main__":
    sys.exit(main())
