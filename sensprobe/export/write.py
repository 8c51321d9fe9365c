"""Writing an artefact: the folder is read back and compared before it takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from sensprobe.checkpoints.exported import CARD, CONFIG, FILES, PLAN, WEIGHTS
from sensprobe.checkpoints.identity import fingerprint as identity
from sensprobe.checkpoints.unchanged import DIGEST, digest_of
from sensprobe.documents.files import named_path
from sensprobe.errors import RunError, SchemeError
from sensprobe.export import compact, document
from sensprobe.export.card import CardFacts, card_text
from sensprobe.export.document import OPTIONAL
from sensprobe.export.folder import require_place, write_folder
from sensprobe.export.read import load_artefact
from sensprobe.export.tensors import layout, stored
from sensprobe.models import Model
from sensprobe.models.apply import Applier
from sensprobe.numerics.taps import RoundingTap
from sensprobe.plans.plan import Plan, fingerprint
from sensprobe.plans.scheme import Scheme, parse


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Where an artefact lies and what it weighs.

    file_bytes = weight_bytes (the tensors, equal to the cost's) + header_bytes (names and shapes);
    folder_bytes adds the plan, the config and the card.
    """

    path: Path
    weight_bytes: int
    header_bytes: int
    file_bytes: int
    folder_bytes: int
    fingerprints: dict[str, str]


def export_model(
    model: Model,
    plan: Mapping[str, Scheme],
    applier: Applier,
    out: Path,
    *,
    name: str,
    model_fingerprint: str = "",
    card: CardFacts | None = None,
    overwrite: bool = False,
    text_files: Mapping[str, bytes] | None = None,
) -> ExportResult:
    """Write a model under a resolved plan as folder `out`.

    `applier` is the one the plan was evaluated with: its calibration is what the file keeps, so
    that a reloaded artefact computes what the simulation computed, to the bit. `model_fingerprint`
    is the name of the checkpoint at full precision (without it one of `model.weights`), which the
    artefact records. `text_files` are those the model's text is read with (`TEXT`), where it has
    some. Raises UsageError where `out` is taken (an artefact may be replaced with `overwrite`),
    SchemeError for a static scheme without calibration or one that text cannot say, RunError where
    the disk refuses. `out` is whole or untouched.
    """
    out, facts = named_path(out).resolve(), card or CardFacts()
    require_place(out, FILES, overwrite, OPTIONAL)
    _require_text(plan)
    tap = applier.tap(plan)
    entries = layout(model.sites, plan)
    prints = {
        "model": model_fingerprint or identity(model.family, model.config, model.weights),
        "plan": fingerprint(plan),
        "data": facts.data_fingerprint,
    }
    described = Plan(tuple(plan.items()), name).to_json()
    tensors = stored(applier, plan, tap)

    def pair(compactly: bool) -> tuple[bytes, dict[str, Any]]:
        """The weight file and config.json."""
        held = compact.joined(tensors, entries) if compactly else tensors
        weights = save(held, {} if compactly else {"format": "pt"})
        config = document.describe(
            name, model, facts.task, entries, weights, prints, compactly=compactly
        )
        mark = digest_of(config, described, config["weights"]["sha256"])
        return weights, config | {DIGEST: mark}

    weights, config = pair(compactly=False)
    size = config["weights"]["data_bytes"]
    if compact.is_heavy(len(weights) + len(document.lines(config)) - size, size):
        weights, config = pair(compactly=True)
    files = {
        PLAN: document.lines(described),
        WEIGHTS: weights,
        CONFIG: document.lines(config),
    }
    files |= text_files or {}
    sizes = {file: len(files[file]) for file in (PLAN, WEIGHTS, CONFIG)}
    radius = model.spectral_radius(tap)
    text = card_text(name, model, plan, facts, radius, prints, out.name, sizes)
    files[CARD] = text.encode()
    write_folder(out, files, lambda draft: _require_same(draft, tap))
    whole = sum(len(content) for content in files.values())
    return ExportResult(out, size, len(weights) - size, len(weights), whole, config["fingerprints"])


def _require_text(plan: Mapping[str, Scheme]) -> None:
    """SchemeError for a scheme that its text, all that plan.json keeps, does not say in full."""
    for site, scheme in plan.items():
        if parse(str(scheme)) != scheme:
            raise SchemeError(
                f"{site}: {scheme!r} holds more than its text {str(scheme)!r} says, so a plan file "
                "would lose it. Make the scheme with `sensprobe.plans.scheme.parse`."
            )


def _require_same(folder: Path, tap: RoundingTap) -> None:
    """RunError unless what was written reads back as what was simulated, to the bit."""
    read = load_artefact(folder).tap
    same = dict(read.plan) == dict(tap.plan)
    same &= read.weights.keys() == tap.weights.keys() and read.scales.keys() == tap.scales.keys()
    same = same and all(torch.equal(read.weights[n], w) for n, w in tap.weights.items())
    for name, (scale, zero) in tap.scales.items() if same else ():
        again, origin = read.scales[name]
        same &= torch.equal(again, scale) and (zero is None) == (origin is None)
        same &= zero is None or origin is None or torch.equal(origin, zero)
    if not same:
        raise RunError(
            f"what was written to {folder.parent} does not read back as what was simulated, so it "
            "was removed. Check the disk and export again; if it stays so, report it with the plan."
        )
