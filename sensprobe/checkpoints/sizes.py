"""Family and config from the JSON or TOML that describes a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from sensprobe.documents import shown
from sensprobe.errors import CheckpointError, UsageError
from sensprobe.models import FAMILIES


def config_from(document: Mapping[str, Any], source: Path) -> tuple[str, Any]:
    """Family and config from a JSON description; CheckpointError for what it does not know."""
    family = document.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        raise CheckpointError(
            f"{source} says it is a {shown(repr(family))} model; families here: "
            f"{', '.join(FAMILIES)}."
        )
    config_class = FAMILIES[family].config
    known = {f.name for f in fields(config_class)}
    given = document.get("config", {})
    if not isinstance(given, Mapping):
        raise CheckpointError(
            f"{source}: its config is of type {type(given).__name__}, not a table of sizes."
        )
    if unknown := sorted(set(given) - known):
        raise CheckpointError(
            f"{source}: unknown config key(s) {', '.join(map(shown, unknown[:5]))}; known: "
            f"{sorted(known)}."
        )
    try:
        return str(family), config_class(**given)
    except TypeError as error:
        raise CheckpointError(f"{source}: its config is incomplete ({error}).") from None
    except UsageError as error:
        raise CheckpointError(f"{source}: config.{error}") from None
