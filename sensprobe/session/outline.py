"""A model without its weights: finding what a MODEL names, and describing it without torch.

MODEL is looked up in this order:

    1. the name of a model that ships (`s4d-digits`); a file of that name is written `./s4d-digits`
    2. a folder that mamba_ssm or transformers wrote: config.json and weights
    3. a folder that `sensprobe export` wrote
    4. `hf:OWNER/NAME[@REVISION]`: such a folder on the Hugging Face Hub
    5. a `model.toml`, a `.safetensors` checkpoint, or a checkpoint of state-spaces/s4 or S5

A `pathlib.Path` is always a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from sensprobe import zoo
from sensprobe.checkpoints import bytes_a_value, describe, hub, is_artefact, is_checkpoint_folder
from sensprobe.checkpoints.exported import PLAN, WEIGHTS
from sensprobe.documents.files import named_path
from sensprobe.errors import UsageError
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.plan import Resolved
from sensprobe.plans.scheme import EXACT
from sensprobe.plans.sites import Kind, Site

COMMON_STEMS = frozenset({"weights", "model", "ckpt", "checkpoint", "best", "last", "final"})


@dataclass(frozen=True, slots=True)
class Found:
    """The place of a MODEL. `name` is "" for an exported folder, which says its name itself."""

    path: Path
    name: str
    norm: str | None = None  # of a checkpoint of state-spaces/s4 or S5, where the user says it
    exported: bool = False
    ships: bool = False  # with this package, under `name`


@dataclass(frozen=True, slots=True)
class Outline:
    """The sites, sizes and stored types of a model, known without its weights.

    `products` are the multiplications of a step: (weight, what it multiplies, how many). `stored`
    has the type of every weight site in the file ("bfloat16"); `plan` is that of an exported model,
    None for any other.
    """

    name: str
    family: str
    config: Any
    sites: Mapping[str, Site]
    products: list[tuple[str, str | None, int]]
    stored: Mapping[str, str] = field(default_factory=dict)
    plan: Resolved | None = None

    def stored_as(self, site: Site) -> tuple[str, int]:
        """The type in which the file keeps a site, and its bytes.

        A weight of an exported model has its scheme as type. A state is in no file and counts as
        float32 for one sequence; an activation takes no bytes.
        """
        if site.kind is not Kind.WEIGHT:
            return ("float32" if site.kind is Kind.STATE else ""), site.full_bytes
        if self.plan is not None:
            scheme = self.plan.get(site.name, EXACT)
            return str(scheme), site_bytes(site, scheme)[0]
        dtype = self.stored.get(site.name, "float32")
        return dtype, bytes_a_value(dtype) * site.reals

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights as the file stores them. The file of an exported model also holds
        the static scales of its states and activations."""
        if self.plan is not None:
            every = self.sites.values()
            return sum(site_bytes(s, self.plan.get(s.name, EXACT))[0] for s in every)
        weights = (s for s in self.sites.values() if s.kind is Kind.WEIGHT)
        return sum(self.stored_as(site)[1] for site in weights)

    @property
    def stored_dtype(self) -> str:
        """The types of the weights in the file, the one with most bytes first ("bfloat16"); of an
        exported model "packed"."""
        if self.plan is not None:
            return "packed"
        found: dict[str, int] = {}
        for site in self.sites.values():
            if site.kind is Kind.WEIGHT:
                dtype, size = self.stored_as(site)
                found[dtype] = found.get(dtype, 0) + size
        return ", ".join(sorted(found, key=lambda dtype: -found[dtype]))


def outline_of(spec: str | Path, norm: str | None = None) -> Outline:
    """The outline of the model a MODEL names; the errors are those of `open_model`, except those
    that only the weights' numbers can show."""
    found = find_model(spec, norm)
    seen = describe(found.path, found.norm)
    name = found.name or seen.name or found.path.resolve().name
    return Outline(
        name, seen.family.name, seen.config, seen.sites, seen.products, seen.stored, seen.plan
    )


def find_model(spec: str | Path, norm: str | None = None) -> Found:
    """The place of the model that a MODEL names, downloaded first if it is on the hub.

    `norm` says where a checkpoint of state-spaces/s4 or S5 has its norm: none, pre or post. Raises
    UsageError for a name that is nothing, and for a norm of a file that says it itself.
    """
    shipped = zoo.shipped()
    if isinstance(spec, str) and spec in shipped:
        _refuse_norm(norm, f"{spec} ships with its config")
        return Found(shipped[spec], spec, ships=True)
    path = named_path(spec)
    if not path.exists() and hub.on_hub(spec):
        folder = hub.fetched(str(spec))
        _refuse_norm(norm, f"{spec} has its config")
        return Found(folder, str(spec).partition("/")[2].partition("@")[0])
    if not path.exists():
        raise UsageError(_unknown(str(spec), path))
    if is_checkpoint_folder(path):
        _refuse_norm(norm, f"{path} has its config")
        return Found(path, path.resolve().name)
    if is_artefact(path):
        _refuse_norm(norm, f"{path} is an exported model and has its config")
        return Found(path, "", exported=True)
    if path.name == WEIGHTS and (path.parent / PLAN).is_file():
        raise UsageError(
            f"{path} holds packed weights of an exported model; name its folder: {path.parent}."
        )
    if path.suffix == ".toml":
        _refuse_norm(norm, f"{path} says so itself, under `norm` of its config")
    return Found(path, _name(path), norm)


def _name(path: Path) -> str:
    """The name of a file's model: its folder's where every model's file is called so."""
    return path.resolve().parent.name if path.stem in COMMON_STEMS else path.stem


def _refuse_norm(norm: str | None, reason: str) -> None:
    if norm is not None:
        raise UsageError(
            f"norm {norm!r} is for checkpoints of state-spaces/s4 and S5; {reason}. Leave it out."
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
