"""From what a user names to a model that runs: `load`, and `load_model` which the steps share.

MODEL is looked up in this order:

    1. the name of a model that ships (`s4d-digits`); a file of that name is written `./s4d-digits`
    2. a folder that `sensprobe export` wrote
    3. a folder that mamba_ssm or transformers wrote: config.json and weights
    4. `hf:OWNER/NAME[@REVISION]`: such a folder on the Hugging Face Hub
    5. a `model.toml`, a `.safetensors` checkpoint, or a state-spaces/s4 checkpoint

A `pathlib.Path` is always a path.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import torch

from sensprobe import runtime, zoo
from sensprobe.checkpoints import (
    bytes_a_value,
    hub,
    is_checkpoint_folder,
    open_checkpoint,
)
from sensprobe.checkpoints import earlier_names as names_before
from sensprobe.checkpoints.identity import earlier_name, fingerprint
from sensprobe.data import BYTES, FileTokenizer, Tokenizer
from sensprobe.documents.files import named_path
from sensprobe.errors import DataError, PlanError, SchemeError, UsageError
from sensprobe.export import PLAN, TOKENIZER, WEIGHTS, Artefact, is_artefact, load_artefact
from sensprobe.memory import room
from sensprobe.models import Model, is_language_model
from sensprobe.models.apply import Applier, needs_calibration, observe, wanted_by
from sensprobe.numerics.taps import RoundingTap
from sensprobe.packed import PackedWeights, device_stream_of, stream_of
from sensprobe.plans.cost import site_bytes
from sensprobe.plans.plan import EXACT_PLAN, Plan, Resolved
from sensprobe.plans.plan import fingerprint as plan_fingerprint
from sensprobe.plans.plan import read as read_plan
from sensprobe.plans.presets import PRESETS, unknown
from sensprobe.plans.scheme import EXACT, Scheme, parse
from sensprobe.plans.sites import Kind, Site
from sensprobe.runtime.choice import say
from sensprobe.session.running import Array, LoadedModel, as_sequences, free_on

OnePlan: TypeAlias = Plan | str | Path | Mapping[str, str | Scheme]
PlanLike: TypeAlias = OnePlan | Sequence[OnePlan]
"""A plan, the name of a preset, the path of a plan.json, or pattern -> scheme; or several of them,
a later one's entries overriding. A preset's name comes first: a file of that name is `./w8a8`, or a
`pathlib.Path`."""


logger = logging.getLogger("sensprobe.plans.plan")
COMMON_STEMS = frozenset({"weights", "model", "ckpt", "checkpoint", "best", "last", "final"})

# -- MODEL ----------------------------------------------------------------------------------------


CPU = torch.device("cpu")


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


def load_model(spec: str | Path, norm: str | None = None) -> Source:
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


# -- plans ----------------------------------------------------------------------------------------


def as_plan(plan: PlanLike, model: Model) -> Plan:
    """The plan that was meant for a model; PlanError or SchemeError where it cannot be read."""
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, str | Path):
        return _named_plan(plan, model)
    if isinstance(plan, list | tuple):
        parts = [as_plan(part, model) for part in plan]
        entries = tuple(entry for part in parts for entry in part.entries)
        return Plan(entries, next((part.name for part in parts if part.name), ""))
    if not isinstance(plan, Mapping):
        raise PlanError(
            "a plan is a Plan, the name of a preset, the path of a plan.json or {pattern: scheme}, "
            f"not {plan!r}."
        )
    wrong = [item for item in plan.items() if not (_text(item[0]) and _text(item[1], Scheme))]
    if wrong:
        raise PlanError(f"a plan maps patterns to schemes, both text; {wrong[0]!r} is neither.")
    return Plan(tuple((p, s if isinstance(s, Scheme) else parse(s)) for p, s in plan.items()))


def resolve(plan: Plan, model: Model) -> Resolved:
    """`plan.resolve` for a model; what its patterns pass over is said to the user."""
    sites = model.sites.values()
    resolved = plan.resolve(sites)
    for note in plan.misfits(sites):
        logger.warning("%s", note)
    return resolved


def _named_plan(name: str | Path, model: Model) -> Plan:
    if isinstance(name, str) and name in PRESETS:
        return PRESETS[name].plan(model.family, model.sites.values())
    path = named_path(name)
    if isinstance(name, str) and not path.suffix and path.name == name and not path.exists():
        raise PlanError(unknown(name))
    plan = read_plan(path)
    return plan if plan.name else Plan(plan.entries, path.stem)


def _text(value: object, *others: type) -> bool:
    return isinstance(value, (str, *others))


def _calibrated(model: Model, schemes: Mapping[str, Scheme], calibration: Array | None) -> Applier:
    if not needs_calibration(schemes, model.sites):
        return Applier(model)
    if calibration is None:
        static = [
            f"{name} in {scheme}"
            for name, scheme in schemes.items()
            if needs_calibration({name: scheme}, model.sites)
        ]
        more = f" and {len(static) - 3} more" if len(static) > 3 else ""
        raise SchemeError(
            f"the plan has something to calibrate ({', '.join(static[:3])}{more}) and no data "
            "to do it on. Give calibration=x (sequences the model will not be judged on); or, for "
            "static ranges, a range in the scheme (range50) or dynamic; or leave out gptq."
        )
    x = as_sequences(calibration, model)
    if len(x) == 0:
        raise DataError("calibration holds no sequence: give at least one.")
    if not x.isfinite().all():
        raise DataError("calibration holds NaN or infinite values: no range can be read from it.")
    return Applier(model, observe(model, x, wanted_by(schemes, model)))


def load(
    model: str | Path,
    plan: PlanLike | None = None,
    device: str | torch.device = "cpu",
    *,
    calibration: Array | None = None,
    norm: str | None = None,
) -> LoadedModel:
    """A model under a plan, whose call returns outputs (a classifier's logits) as a torch tensor.

    model: a name that ships (`s4d-digits`), a checkpoint file, an exported folder, a folder of
        mamba_ssm or transformers, or a model.toml.
    plan: a `Plan`, the name of a preset (`quamba`, see `sensprobe presets`), the path of a
        plan.json, or {pattern: scheme}; or a list of such. None runs the model as it is: at full
        precision, an exported one as exported. Later patterns override earlier ones. An exported
        model takes no other plan: its weights are rounded already.
    device: "cpu", or "cuda" ("cuda:1") where there is one. An exported model stays packed in the
        memory of either (see `LoadedModel`). Any other runs on a GPU as the reference loop, which
        is slow and may differ from the CPU in the last bits, as does an exported one whose plan no
        kernel there takes; a warning says why.
    calibration: sequences, as a call takes them, that fix the ranges of static activations and
        states, and what `gptq` rounds by; run once, on the CPU, at full precision.
    norm: where a state-spaces/s4 checkpoint has its LayerNorm: none, pre or post (its default).

    Raises UsageError for a MODEL or device that does not exist, CheckpointError for a file that
    cannot be used, PlanError and SchemeError for a plan that does not fit the model or lacks
    calibration, DataError for sequences of another shape, CapacityError for an exported model that
    finds no room.
    """
    place = device_named(device)
    return loaded(load_model(model, norm), plan, place, calibration)


def loaded(
    source: Source,
    plan: PlanLike | None = None,
    place: torch.device = CPU,
    calibration: Array | None = None,
    applier: Applier | None = None,
) -> LoadedModel:
    """`load`, of what a MODEL names; `applier` is one that is calibrated for the plan already."""
    if source.artefact is not None:
        if plan is not None:
            raise UsageError(
                f"{source.name} is an exported model, and its weights are rounded already. Load "
                "the model it was made from under the plan, or leave the plan out."
            )
        chosen = Plan(tuple(source.artefact.plan.items()), source.name)
        made = source.artefact
        stored = PackedWeights.of(made.tensors, made.model.sites, made.plan)
        if (packed := packed_model(source.name, chosen, made.model, stored, place)) is not None:
            return packed
        tap = source.artefact.tap
    else:
        chosen = EXACT_PLAN if plan is None else as_plan(plan, source.model)
        schemes = resolve(chosen, source.model)
        applier = applier or _calibrated(source.model, schemes, calibration)
        tap = applier.tap(schemes)
    with _decoded_on(place, source):
        tap = _moved(tap, place)
    weights = {n: tap.weights[n] for n, s in source.model.sites.items() if s.kind is Kind.WEIGHT}
    runs = type(source.model)(source.model.config, weights)  # type: ignore[call-arg]
    return LoadedModel(source.name, chosen, tap.plan, place, runs, tap)


def packed_model(
    name: str, plan: Plan, model: Model, weights: PackedWeights, place: torch.device
) -> LoadedModel | None:
    """A model whose weights stay packed as an exported one's do; None where no kernel
    of a GPU runs it. Of `model` the config counts, its weights are not kept."""
    tap = RoundingTap(weights.plan, weights.decoded, weights.scales(), round=runtime.rounded)
    nothing = {n: torch.empty(0) for n, s in model.sites.items() if s.kind is Kind.WEIGHT}
    runs = type(model)(model.config, nothing)  # type: ignore[call-arg]
    if place.type == "cpu":
        stream, why = stream_of(runs, weights, tap.scales)
        return LoadedModel(name, plan, tap.plan, place, runs, tap, weights, stream, why)
    return _on_device(name, plan, weights, runs, tap, place)


def _on_device(
    name: str,
    plan: Plan,
    weights: PackedWeights,
    runs: Model,
    tap: RoundingTap,
    place: torch.device,
) -> LoadedModel | None:
    """A packed model in a device's memory; where kernels run whole sequences only, its steps decode
    weights as they go."""
    with room(
        weights.bytes,
        free_on(place),
        f"the weights of {name} on {place}",
        "Free some of that GPU's memory, or run on the CPU.",
    ):
        there, why = device_stream_of(runs, weights, tap.scales, place)
    if there is None:
        say(logging.WARNING, why)
        return None
    decoded = weights.decoded_on(place)
    tap = replace(_moved(replace(tap, weights={}), place), weights=decoded)
    steps = None if why else there
    return LoadedModel(name, plan, tap.plan, place, runs, tap, weights, steps, why, there)


def device_named(device: str | torch.device) -> torch.device:
    """The device, which is there; UsageError says what is instead."""
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UsageError(f"no device {str(device)!r}; use cpu or cuda.") from None
    if place.type not in ("cpu", "cuda"):
        raise UsageError(f"device {device}: sensprobe runs on cpu and cuda.")
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageError(
                f"device {device}: torch sees no CUDA GPU here. Use cpu, or install a CUDA build "
                "of torch (`sensprobe doctor` says what there is)."
            )
        if place.index is not None and place.index >= count:
            raise UsageError(
                f"device {device}: there is no GPU {place.index}; the last is cuda:{count - 1}."
            )
    return place


def _decoded_on(place: torch.device, source: Source) -> AbstractContextManager[None]:
    """Room for a model's weights in float32, where they are copied to a GPU."""
    sites = source.model.sites.values() if place.type == "cuda" else ()
    return room(
        sum(4 * site.reals for site in sites if site.kind is Kind.WEIGHT),
        free_on(place),
        f"the weights of {source.name} on {place} in float32",
        "Free some of that GPU's memory, or run on the CPU.",
    )


def _moved(tap: RoundingTap, device: torch.device) -> RoundingTap:
    """The tap with its tensors on a device."""
    weights = {name: w.to(device) for name, w in tap.weights.items()}
    scales = {
        name: (scale.to(device), None if zero is None else zero.to(device))
        for name, (scale, zero) in tap.scales.items()
    }
    return replace(tap, weights=weights, scales=scales)
