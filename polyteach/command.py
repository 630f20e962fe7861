"""One verb's command line: its words and its file of options become a call, and what goes wrong one line."""

import errno
import functools
import inspect
import os
import re
import sys
import typing
from collections.abc import Callable
from dataclasses import fields, is_dataclass, make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

import tyro
import yaml

from polyteach.ground.files import Twice, once, read_text, yaml_value
from polyteach.ground.names import unknown_name
from polyteach.ground.options import explained, from_file
from polyteach.ground.signals import TERMINATED, terminated_as_interrupted
from polyteach.ground.storage import StorageError
from polyteach.ground.tables import width_of, wrapped
from polyteach.ground.texts import say
from polyteach.verbs import command_line

OF_A_PATH = (
    errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG,
    errno.ELOOP, errno.ENXIO,
)  # fmt: skip
"""What the system says of a path that somebody gave, and that no program can mend."""


NOTHING = "(default: none)"


class Option(NamedTuple):
    """name: of the verb's parameter, or of the field of a group. hint: its type. positional: it needs no --NAME."""

    name: str
    hint: Any
    positional: bool


def run(verb: Callable[..., Any], status: Callable[[Any], int], prog: str, argv: list[str]) -> int:
    """Call a verb as the command line says; returns the exit status.

    verb: as `grouped` makes it. status: exit status of what it returned. prog: what it is called. argv: the words
    behind it.
    """
    try:
        with terminated_as_interrupted(), command_line():
            result = _call(verb, prog, argv)
    except KeyboardInterrupt as e:
        why, then = (*map(str, e.args), "", "")[:2]
        then = then or "what was written is whole. The same command goes on."
        say("", f"polyteach {prog}: stopped{f' ({why})' if why else ''}; {then}")
        return 143 if why == TERMINATED else 130
    except ValueError as e:
        _complain(prog, e)
        return int(getattr(e, "status", 2))
    except OSError as e:
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


def _configured(file: str, config: dict[str, Any], options: dict[str, Option]) -> dict[str, Any]:
    """Parameter or option of a group -> its value in the configuration."""
    values = {}
    for name, value in config.items():
        if name not in options:
            raise unknown_name("key of --config", name, sorted(options), "it knows", "--help lists them")
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
    # tyro joins a paragraph's lines, unless they begin with a space, and leaves it to the terminal to break words
    width = min(width_of(sys.stdout), 120)
    told = ["\n".join(wrapped(text, width, " ", hanging="")) for text in before.strip().split("\n\n")]
    return "\n".join(["\n\n".join(told), "", *examples, "", "--config FILE.yaml gives options from a file."])


def _config_option(argv: list[str]) -> tuple[list[str], str, dict[str, Any]]:
    """The command line without --config FILE, the file, and what it says."""
    rest, file = list(argv), None
    for i, word in enumerate(argv):
        if file is not None and word.partition("=")[0] == "--config":
            raise ValueError("--config is given twice; write all options into one file, or give some of them here")
        if word == "--config":
            if i + 1 == len(argv):
                raise ValueError("--config needs a file")
            file, rest = argv[i + 1], argv[:i] + argv[i + 2 :]
        elif word.startswith("--config="):
            file, rest = word.partition("=")[2], argv[:i] + argv[i + 1 :]
    if file is None:
        return rest, "", {}
    try:
        text = read_text(Path(file))
    except OSError as e:
        raise ValueError(f"--config {file}: {os.strerror(e.errno or 0)}") from e
    except ValueError as e:
        raise ValueError(f"--config {e}") from e
    try:
        config = yaml_value(text, once(yaml.SafeLoader))
    except ValueError as e:
        if isinstance(e.__cause__, Twice):
            raise ValueError(f"--config {file}: {e}") from e
        raise ValueError(f"--config {file} is not valid YAML: {e}") from e
    if not isinstance(config, dict):
        must = "is empty; it must" if config is None else "must"
        raise ValueError(f"--config {file} {must} be NAME: VALUE lines")
    if {"verb", "options"} <= set(config):
        raise ValueError(
            f"--config {file} is the record of a run, and not a file of options: write those of its 'options' that you "
            "want into one, NAME: VALUE lines"
        )
    named: dict[str, Any] = {}
    for key, value in config.items():
        name = str(key).replace("-", "_")
        if name in named:
            raise ValueError(f"--config {file}: {name.replace('_', '-')} is given twice, with - and with _; keep one")
        named[name] = value
    return rest, file, named


def _known(argv: list[str], options: dict[str, Option]) -> None:
    """Refuse options that the verb does not have.

    Raises:
        ValueError: lists those it has, and the one that was meant.
    """
    named = [n for n, o in options.items() if not o.positional]
    before = argv[: argv.index("--")] if "--" in argv else argv  # what stands behind it is no option
    for word in (w.partition("=")[0] for w in before if w.startswith("--")):
        name = word[2:].replace("-", "_")
        if name not in ("help", *named, *(f"no_{n}" for n in named)) and not name.startswith("tyro_"):
            raise unknown_name(
                "option", word, ["--" + n.replace("_", "-") for n in (*named, "config")], fix="--help lists them"
            )


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
        if default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            # of several words tyro would say that the default is none
            hints[name] = Annotated[hints[name], tyro.conf.arg(help_behavior_hint="(required)")]
        elif name not in groups and _shown(default):
            hints[name] = Annotated[hints[name], tyro.conf.arg(help_behavior_hint=_shown(default))]
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
    hints = typing.get_type_hints(type(group), include_extras=True)
    told = explained(type(group))
    values = {f.name: given.get(f.name, getattr(group, f.name)) for f in fields(group)}
    described = [
        (name, Annotated[hints[name], tyro.conf.arg(help=told.get(name), help_behavior_hint=_shown(value))])
        for name, value in values.items()
    ]
    twin = make_dataclass(type(group).__name__, described)
    twin.__doc__ = (type(group).__doc__ or "").partition("\n")[0]
    return twin(**values)


def _shown(default: Any) -> str | None:
    """What help says behind an option: of an empty list tyro would show nothing where its values go."""
    return NOTHING if isinstance(default, tuple | list | dict) and not default else None
