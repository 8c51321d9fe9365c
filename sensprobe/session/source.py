"""A model with its weights, and where it came from: `open_model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from sensprobe import zoo
from sensprobe.checkpoints import earlier_names as names_before
from sensprobe.checkpoints import open_checkpoint
from sensprobe.checkpoints.identity import earlier_name, fingerprint
from sensprobe.data import BYTES, FileTokenizer, Tokenizer
from sensprobe.errors import DataError
from sensprobe.export import TOKENIZER, Artefact, load_artefact
from sensprobe.models import Model, is_language_model
from sensprobe.plans.plan import fingerprint as plan_fingerprint
from sensprobe.session.outline import Found, Outline, find_model


@dataclass(frozen=True)
class Source:
    """A model and where it came from.

    `recorded` is what the file says of itself, unchecked: {"metric", "value", "n", "split"} of our
    own checkpoints, {"accuracy", "epoch"} of state-spaces/s4's, {"name", "task", "fingerprints"} of
    exported models; less where the file says less. `fingerprint` identifies what the file holds;
    `earlier` computes the names that the model can be proved to have had in older runs (see
    `checkpoints.identity`). `tokenizer` reads text for a language model, where it has one.
    """

    model: Model
    outline: Outline
    path: Path
    recorded: Mapping[str, Any]
    fingerprint: str
    norm: str | None = None  # that a checkpoint was opened with, where it does not say
    artefact: Artefact | None = None
    tokenizer: Tokenizer | None = None
    earlier: Callable[[], frozenset[str]] = frozenset

    @property
    def name(self) -> str:
        return self.outline.name


def open_model(spec: str | Path, norm: str | None = None) -> Source:
    """The model a MODEL names.

    `norm` says where a checkpoint of state-spaces/s4 or S5 has its norm: none, pre or post. Raises
    UsageError for a name that is nothing, CheckpointError for a file that cannot be used.
    """
    found = find_model(spec, norm)
    return _exported(found) if found.exported else _checkpoint(found)


def _checkpoint(found: Found) -> Source:
    read = open_checkpoint(found.path, found.norm)
    recorded = read.header.get("recorded", {})
    known = frozenset(zoo.EARLIER_NAMES.get(found.name, ()) if found.ships else ())
    return Source(
        read.model,
        outlined(found.name, read.model, stored=read.stored),
        found.path,
        recorded if isinstance(recorded, dict) else {},
        read.fingerprint,
        found.norm,
        tokenizer=_tokenizer(read.model, found.path),
        earlier=lambda: known | names_before(found.path, found.norm),
    )


def _exported(found: Found) -> Source:
    artefact = load_artefact(found.path)
    recorded = {k: artefact.config[k] for k in ("name", "task", "fingerprints")}
    model, plan = artefact.model, plan_fingerprint(artefact.plan)
    print_ = fingerprint(model.family, model.config, artefact.tensors, more=plan)
    name = artefact.config["name"] or found.path.resolve().name
    return Source(
        model,
        outlined(name, model, plan=artefact.plan),
        found.path,
        recorded,
        print_,
        artefact=artefact,
        tokenizer=_tokenizer(model, found.path),
        earlier=partial(_earlier_artefact_name, artefact),
    )


def outlined(name: str, model: Model, **known: Any) -> Outline:
    """The outline of an open model; `known` are its other fields."""
    return Outline(name, model.family, model.config, model.sites, model.products, **known)


def _tokenizer(model: Model, path: Path) -> Tokenizer | None:
    """The tokenizer of a language model: the tokenizer.json next to its weights, or bytes if its
    vocabulary is the 256 bytes; None if there is neither."""
    if not is_language_model(model):
        return None
    file = (path if path.is_dir() else path.parent) / TOKENIZER
    if file.is_file():
        return FileTokenizer(file.absolute())  # the hub keeps links: what lies beside is by name
    return BYTES if model.config.d_input == BYTES.size else None


def text_tokenizer(source: Source) -> Tokenizer:
    """The tokenizer a model reads text with; DataError where it reads none or comes without one."""
    if source.tokenizer is not None:
        return source.tokenizer
    if not is_language_model(source.model):
        raise DataError(
            f"{source.name} does not predict the next of its tokens, so text says nothing to it. "
            "Name a language model, or data of this one's kind."
        )
    raise DataError(
        f"{source.name} knows {source.model.config.d_input:,} tokens and there is no {TOKENIZER} "
        f"beside its weights ({source.path}), which says what they stand for. Copy the one it was "
        "trained with there; a model of 256 tokens reads bytes and needs none."
    )


def _earlier_artefact_name(artefact: Artefact) -> frozenset[str]:
    """The fingerprint that version 0.1 gave an exported model: a hash of its decoded weights and
    its calibrated scales."""
    digest = sha256(earlier_name(artefact.model.config, artefact.model.weights).encode())
    for name, (scale, zero) in sorted(artefact.tap.scales.items()):
        digest.update(name.encode())
        for x in (scale, zero):
            digest.update(b"" if x is None else x.contiguous().numpy().tobytes())
    return frozenset([digest.hexdigest()[:16]])
