"""From what a user names to a model: `open_model`.

MODEL is looked up in this order:

    1. the name of a model that ships (`s4d-digits`); a file of that name is written `./s4d-digits`
    2. a folder that `sensprobe export` wrote
    3. a folder that mamba_ssm or transformers wrote: config.json and weights
    4. `hf:OWNER/NAME[@REVISION]`: such a folder on the Hugging Face Hub
    5. a `model.toml`, a `.safetensors` checkpoint, or a state-spaces/s4 checkpoint

A `pathlib.Path` is always a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from sensprobe import zoo
from sensprobe.checkpoints import bytes_a_value, hub, is_checkpoint_folder, open_checkpoint
from sensprobe.checkpoints import earlier_names as names_before
from sensprobe.checkpoints.identity import earlier_name, fingerprint
from sensprobe.data import BYTES, FileTokenizer, Tokenizer
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError, UsageError
from sensprobe.export import PLAN, TOKENIZER, WEIGHTS, Artefact, is_artefact, load_artefact
from sensprobe.models import Model, is_language_model
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.plan import fingerprint as plan_fingerprint
from sensprobe.plans.scheme import EXACT
from sensprobe.plans.sites import Kind, Site

COMMON_STEMS = frozenset({"weights", "model", "ckpt", "checkpoint", "best", "last", "final"})


@dataclass(frozen=True)
class Source:
    """A model and where it came from.

    `recorded` is what the file says of itself, unchecked: {"metric", "value", "n", "split"} of our
    own checkpoints, {"accuracy", "epoch"} of state-spaces/s4's, {"name", "task", "fingerprints"} of
    exported models; less where the file says less. `fingerprint` identifies what the file holds;
    `earlier` computes the names that the model can be proved to have had in older runs (see
    `checkpoints.identity`). `tokenizer` reads text for a language model, where it has one. `stored`
    has the type of every weight site in the file.
    """

    model: Model
    name: str
    path: Path
    recorded: Mapping[str, Any]
    fingerprint: str
    artefact: Artefact | None = None
    tokenizer: Tokenizer | None = None
    earlier: Callable[[], frozenset[str]] = frozenset
    stored: Mapping[str, str] = field(default_factory=dict)

    def stored_as(self, site: Site) -> tuple[str, int]:
        """How the file keeps a site, and bytes: of weights their type there, of an exported model's
        their scheme. States are in no file: float32, of one sequence. Activations take none."""
        if site.kind is not Kind.WEIGHT:
            return ("float32" if site.kind is Kind.STATE else ""), site.full_bytes
        if self.artefact is not None:
            scheme = self.artefact.plan.get(site.name, EXACT)
            return str(scheme), site_bytes(site, scheme)[0]
        dtype = self.stored.get(site.name, "float32")
        return dtype, bytes_a_value(dtype) * site.reals

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights as the file stores them: what the user has, without any plan. An
        exported model's file also holds the static scales of its states and activations."""
        if self.artefact is not None:
            every = self.model.sites.values()
            return sum(site_bytes(s, self.artefact.plan.get(s.name, EXACT))[0] for s in every)
        weights = (s for s in self.model.sites.values() if s.kind is Kind.WEIGHT)
        return sum(self.stored_as(site)[1] for site in weights)

    @property
    def stored_dtype(self) -> str:
        """The types of the weights in the file, the one with most bytes first: "bfloat16"; of an
        exported model "packed"."""
        if self.artefact is not None:
            return "packed"
        found: dict[str, int] = {}
        for site in self.model.sites.values():
            if site.kind is Kind.WEIGHT:
                dtype, size = self.stored_as(site)
                found[dtype] = found.get(dtype, 0) + size
        return ", ".join(sorted(found, key=lambda dtype: -found[dtype]))


def open_model(spec: str | Path, norm: str | None = None) -> Source:
    """The model a MODEL names.

    `norm` says where a state-spaces/s4 checkpoint has its LayerNorm: none, pre or post. Raises
    UsageError for a name that is nothing, CheckpointError for a file that cannot be used.
    """
    shipped = zoo.shipped()
    if isinstance(spec, str) and spec in shipped:
        _refuse_norm(norm, f"{spec} ships with its config")
        source = _from_file(shipped[spec], spec, None)
        known = frozenset(zoo.EARLIER_NAMES.get(spec, ()))
        return replace(source, earlier=lambda: known | source.earlier())
    path = named_path(spec)
    if not path.exists() and hub.on_hub(spec):
        folder = hub.fetched(str(spec))
        _refuse_norm(norm, f"{spec} has its config")
        return _from_file(folder, str(spec).partition("/")[2].partition("@")[0], None)
    if not path.exists():
        raise UsageError(_unknown(str(spec), path))
    if is_checkpoint_folder(path):
        _refuse_norm(norm, f"{path} has its config")
        return _from_file(path, path.resolve().name, None)
    if is_artefact(path):
        _refuse_norm(norm, f"{path} is an exported model and has its config")
        return _from_artefact(path)
    if path.name == WEIGHTS and (path.parent / PLAN).is_file():
        raise UsageError(
            f"{path} holds packed weights of an exported model; name its folder: {path.parent}."
        )
    if path.suffix in (".toml", ".safetensors"):
        _refuse_norm(norm, f"{path} says so itself, under `norm` of its config")
    return _from_file(path, _name(path), norm)


def _name(path: Path) -> str:
    """What to call a file's model: its folder's name where every model's file is called so."""
    return path.resolve().parent.name if path.stem in COMMON_STEMS else path.stem


def _from_file(path: Path, name: str, norm: str | None) -> Source:
    read = open_checkpoint(path, norm)
    recorded = read.header.get("recorded", {})
    return Source(
        read.model,
        name,
        path,
        recorded if isinstance(recorded, dict) else {},
        read.fingerprint,
        tokenizer=_tokenizer(read.model, path),
        earlier=partial(names_before, path, norm),
        stored=read.stored,
    )


def _from_artefact(path: Path) -> Source:
    artefact = load_artefact(path)
    recorded = {k: artefact.config[k] for k in ("name", "task", "fingerprints")}
    model, plan = artefact.model, plan_fingerprint(artefact.plan)
    print_ = fingerprint(model.family, model.config, artefact.tensors, more=plan)
    name = artefact.config["name"] or path.resolve().name
    reader = _tokenizer(model, path)
    earlier = partial(_earlier_artefact_name, artefact)
    return Source(model, name, path, recorded, print_, artefact, reader, earlier)


def _tokenizer(model: Model, path: Path) -> Tokenizer | None:
    """What a language model reads text with: the tokenizer.json beside its weights, else bytes
    where its vocabulary has just those."""
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
    """What an exported model was called before: its weights as they run, and calibrated scales."""
    digest = sha256(earlier_name(artefact.model.config, artefact.model.weights).encode())
    for name, (scale, zero) in sorted(artefact.tap.scales.items()):
        digest.update(name.encode())
        for x in (scale, zero):
            digest.update(b"" if x is None else x.contiguous().numpy().tobytes())
    return frozenset([digest.hexdigest()[:16]])


def _refuse_norm(norm: str | None, reason: str) -> None:
    if norm is not None:
        raise UsageError(
            f"norm {norm!r} is for state-spaces/s4 checkpoints; {reason}. Leave it out."
        )


def _unknown(spec: str, path: Path) -> str:
    shipped = list(zoo.shipped())
    near = get_close_matches(spec, shipped, n=1, cutoff=0.5)
    if not near and path.parent.is_dir():
        beside = [p.name for p in path.parent.iterdir()]
        near = [str(path.parent / n) for n in get_close_matches(path.name, beside, n=1)]
    hint = f" Did you mean {near[0]}?" if near else ""
    if not near and not path.parent.is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", spec):
        hint = f" Of the Hugging Face Hub, write hf:{spec}."
    return (
        f"no model {spec!r}: nothing ships under that name and no such file exists.{hint} Models "
        f"that ship: {', '.join(shipped) or 'none'}. A MODEL may also be a checkpoint file, a "
        "folder that `sensprobe export` wrote, or a model.toml."
    )
