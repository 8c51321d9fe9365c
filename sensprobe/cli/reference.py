"""Writes docs/commands.md, the help of every command, from the parser, so that it cannot go stale.

python -m sensprobe.cli.reference --write docs/commands.md
python -m sensprobe.cli.reference --check docs/commands.md     exits with 1 where it differs
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sensprobe.cli.parser import build_parser

HEAD = """# Commands

`sensprobe COMMAND --help` prints the same text. This file is generated: `make docs` writes it,
and `make check` fails where it differs from the commands."""


def reference() -> str:
    """Return the whole page as Markdown: a table of the commands, then the help of each."""
    parser = build_parser()
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    rows = ["| command | what it does |", "|---|---|"]
    for choice in actions[0]._choices_actions:
        rows.append(f"| [`{choice.dest}`](#sensprobe-{choice.dest}) | {choice.help} |")
    blocks = [HEAD, "\n".join(rows)]
    for name, sub in actions[0].choices.items():
        blocks.append(f"## sensprobe {name}\n\n```text\n{sub.format_help().rstrip()}\n```")
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    """Write the page, or compare it with the commands; return the exit code."""
    os.environ["NO_COLOR"] = "1"  # newer argparse colours its help
    options = argparse.ArgumentParser()
    options.add_argument("--write", type=Path)
    options.add_argument("--check", type=Path)
    chosen = options.parse_args()
    if chosen.write:
        chosen.write.write_text(reference(), encoding="utf-8")
    elif chosen.check.read_text(encoding="utf-8") != reference():
        sys.stderr.write(f"{chosen.check} is out of date; run `make docs`.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
