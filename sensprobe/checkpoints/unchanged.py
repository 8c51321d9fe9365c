"""Checks that a folder is as it was exported: its config, plan and weights together.

Since format 2 config.json has a digest over itself, plan.json and the weights. It is not a
signature: it tells damage and slips, not who made a folder. Folders of format 1 have none; what can
be proved of them is proved: that their config is complete, and that it is the one their card says.
(Their model's fingerprint is of its weights before they were rounded to float32, so it proves
nothing.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.documents import DocumentError, content_of
from sensprobe.errors import CheckpointError
from sensprobe.models import FAMILIES

DIGEST = "digest"
_CARD = "Config: "


def digest_of(config: Mapping[str, Any], plan: Any, weights: str) -> str:
    """The digest over a config.json (without its own digest), a plan.json and the SHA-256 of the
    weight file."""
    rest = {key: value for key, value in config.items() if key != DIGEST}
    text = json.dumps([rest, plan, weights], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def require_unchanged(config: Mapping[str, Any], plan: Any, source: Path) -> None:
    """CheckpointError for documents of format 2 or later that are not those that were exported."""
    if config.get(DIGEST) != digest_of(config, plan, config["weights"]["sha256"]):
        raise _changed(f"{source} or plan.json beside it was changed after the export (digest)")


def _changed(what: str) -> CheckpointError:
    return CheckpointError(
        f"{what}, and the weights belong to what was exported. Copy the folder again, or export it "
        "again."
    )


def require_complete(config: Mapping[str, Any], source: Path) -> None:
    """CheckpointError for a config of format 1 that lacks a field it was written with, is another
    than its card says, or has what only later formats have."""
    if DIGEST in config or isinstance(config["tensors"], list):
        raise _changed(f"{source} was changed after the export: it says format 1 and is of a later")
    given, family = config["config"], config["family"]
    known = FAMILIES.get(family)
    fields = known.earlier.fields.split() if known and known.earlier else []
    if missing := [name for name in fields if name not in given]:
        raise _changed(f"{source} was changed after the export: config lacks {', '.join(missing)}")
    said = _card_line(source.parent)
    if said is not None and all(name in given for name in fields):
        now = ", ".join(f"{name} {given[name]}" for name in fields)
        if said != now:
            raise _changed(
                f"{source} was changed after the export: README.md beside it has another config"
            )


def _card_line(folder: Path) -> str | None:
    """The config as the card of a folder says it; None without a card that does."""
    try:
        card = content_of(folder / "README.md").decode("utf-8", "replace")
    except DocumentError:
        return None
    lines = [line for line in card.splitlines() if line.startswith(_CARD)]
    return lines[0].removeprefix(_CARD).removesuffix(".") if len(lines) == 1 else None
