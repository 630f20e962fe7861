"""The command line: one subcommand per verb, found by its file.

What reads a verb's options is imported when a verb is called, so that `polyteach --help` is quick.
"""

import os
import select
import sys
from typing import TextIO

from polyteach.ground.names import unknown_name
from polyteach.ground.texts import say
from polyteach.verbs import is_group, load_verb, verbs
from polyteach.version import __version__


def usage() -> str:
    """The top-level help text."""
    known = verbs()
    width = max(map(len, known))
    lines = [f"  {verb:{width}} {what}" for verb, what in known.items()]
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
            "  polyteach predict run cat.jpg --out drawings",
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
    from polyteach.command import run

    return run(verb, status, prog, rest)


if __name__ == "__main__":
    sys.exit(main())
