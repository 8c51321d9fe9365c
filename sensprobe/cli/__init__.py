"""The command line: parse, call one function, print. No logic lives here.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 asked for
something that cannot be, 130 interrupted (what is finished is kept).
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from io import TextIOWrapper

from sensprobe.cli import interrupt
from sensprobe.cli.parser import build_parser
from sensprobe.errors import SensprobeError

# Idle threads of torch's OpenMP spin for milliseconds, on the cores that the scan's threads need: a
# whole evaluation takes a third longer. The variable is read when torch is loaded, further below.
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

GO_ON = ("profile", "search", "train", "tune", "demo")
"""Commands that keep what they finished, and go on from there when run again."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign still gets the rest
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        if arguments.command == "dashboard":  # starts without PyTorch
            from sensprobe.cli import dashboard

            dashboard.run(arguments)
        from sensprobe.cli import commands

        with interrupt.remembered():
            return commands.COMMANDS[arguments.command](arguments) or 0
    except KeyboardInterrupt:
        print(f"\n{_stopped(arguments)}", file=sys.stderr)
        return 130
    except SensprobeError as error:
        if arguments.debug:
            raise
        print(f"sensprobe: {_inert(str(error))}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:
        if arguments.debug:
            raise
        print(f"sensprobe: {error}. Nothing was left half-written.", file=sys.stderr)
        return 1
    except Exception as error:
        if arguments.debug:
            raise
        print(
            f"sensprobe: this should not have happened ({type(error).__name__}: {error}). What was "
            "finished is kept. Run it again with --debug for the traceback, and report it.",
            file=sys.stderr,
        )
        return 1


def _inert(text: str) -> str:
    """Without what a terminal would obey: names may come from files that others made."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def _stopped(arguments: Namespace) -> str:
    """A line on what an interrupted command leaves, and what running it again does."""
    run = getattr(arguments, "run", None)
    if arguments.command == "bench" and run:
        return f"Stopped. Every case that was timed is kept in {run}; the next bench starts anew."
    if arguments.command in GO_ON or (arguments.command == "eval" and run):
        same = "the same command"
        if getattr(arguments, "restart", False):
            same += " without --restart"
        return f"Stopped. What was finished is kept; {same} goes on from there."
    return "Stopped."


if __name__ == "__main__":
    sys.exit(main())
