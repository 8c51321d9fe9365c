"""The model card of an artefact: what it is, what it weighs, what it scores. Only given numbers.

The card's reader has the folder and not the run it came from, so every figure says what it was
measured on, and a figure nobody gave is said to be missing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

from sensprobe.evaluate import Score
from sensprobe.export.markdown import code, fenced, one_line, plain, table
from sensprobe.models import Model
from sensprobe.models.family import config_document
from sensprobe.plans.cost import Cost, cost, site_bytes
from sensprobe.plans.scheme import EXACT, Scheme
from sensprobe.plans.sites import Kind, Site
from sensprobe.scores.metrics import INFO, MetricInfo

ABOUT = {
    "plan.json": "which scheme each tensor is in",
    "model.safetensors": "the tensors, and a header of their names and places",
    "config.json": "the model, how each tensor unpacks, and digests of it all",
}


@dataclass(frozen=True, slots=True)
class UniformFacts:
    """One scheme for every weight and state, within the same budget: what there is unsearched."""

    scheme: str
    total_bytes: int
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class HandFacts:
    """The best plan made by hand within the same budget; `difference` is the plan minus it."""

    about: str
    total_bytes: int
    score: Score
    difference: Score


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the exporter knows of a plan beyond its bytes. None and "" stand for not known.

    Scores are those of the confirmation: on samples that no earlier step has seen. `difference` is
    plan minus baseline, paired by sample. `untuned` is the plan's score on the model before it was
    trained under it, `gained` what that changed, paired. `data` is written as `--data` takes it.
    """

    task: str = "classification"
    metric: MetricInfo = INFO["correct"]
    data: str = ""
    data_fingerprint: str = ""
    confirmed: Score | None = None
    searched: Score | None = None  # on the samples the search saw, where there is no better
    baseline: Score | None = None
    whole_bytes: int | None = None  # of the model that the baseline is of, where this was pruned
    difference: Score | None = None
    untuned: Score | None = None
    gained: Score | None = None
    uniform: UniformFacts | None = None
    hand: HandFacts | None = None
    source: str = ""
    batch: int = 1
    held_state_bytes: int | None = None  # what streaming steps hold, where that is not the plan's
    stored_weight_bytes: int | None = None  # of the model's file, whose weights are stored_dtype
    stored_dtype: str = ""


def card_text(
    name: str,
    model: Model,
    plan: Mapping[str, Scheme],
    facts: CardFacts,
    radius: float,
    fingerprints: Mapping[str, str],
    folder: str,
    files: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """The card as Markdown. `radius`: the model's `spectral_radius` as stored; `folder`: the
    artefact's folder name; `files`: what each of its other files weighs."""
    sections = [
        _title(name, model, plan, facts),
        _sizes(model, plan, facts) + _files(files),
        _result(plan, model, facts),
        _schemes(model.sites, plan),
        _stability(model, radius),
        _loading(model, facts, folder),
        _identity(fingerprints),
    ]
    return "\n\n".join(sections) + "\n"


def _size(count: int) -> str:
    return f"{count:,}"


def _title(name: str, model: Model, plan: Mapping[str, Scheme], facts: CardFacts) -> str:
    values = sum(s.reals for s in model.sites.values() if s.kind is Kind.WEIGHT)
    config = ", ".join(f"{key} {value}" for key, value in config_document(model.config).items())
    origin = f" made from {plain(facts.source)}" if facts.source else ""
    origin += " and trained under its plan" if facts.untuned else ""
    rounded = sum(model.sites[site].kind is not Kind.ACTIVATION for site in plan)
    return (
        f"# {plain(name) or 'model'}\n\n"
        f"A state space model ({model.family}) for {facts.task}{origin}: {values:,} weights (real "
        f"numbers), stored under a plan that rounds {rounded} of its weight and state tensors.\n\n"
        f"Config: {config}."
    )


def _sizes(model: Model, plan: Mapping[str, Scheme], facts: CardFacts) -> str:
    def of(schemes: Mapping[str, Scheme]) -> Cost:
        return cost(model.sites.values(), schemes, model.products, facts.batch)

    ours, full = of(plan), of({})
    many = "one sequence" if facts.batch == 1 else f"{facts.batch} sequences"
    rows = [
        ["weights and scales", _size(ours.weight_bytes), _size(full.weight_bytes)],
        [f"state of {many}", _size(ours.state_bytes), _size(full.state_bytes)],
        ["together", f"**{_size(ours.total_bytes)}**", _size(full.total_bytes)],
        ["bits a value", f"{ours.effective_bits:.2f}", f"{full.effective_bits:.2f}"],
    ]
    return (
        "## Size in bytes\n\n"
        + table(["", "this plan", "full precision"], rows, 1)
        + "\n\nThe first figure is the size of the tensors in `model.safetensors`, to the byte. "
        "Full precision is float32." + _stored(facts, ours.weight_bytes) + _held(facts)
    )


def _held(facts: CardFacts) -> str:
    """What streaming steps hold of states, where it is not what the plan packs."""
    if facts.held_state_bytes is None:
        return ""
    return (
        f" Streaming steps hold the state in float32, {_size(facts.held_state_bytes)} bytes, by "
        "which a search compares plans."
    )


def _stored(facts: CardFacts, weight_bytes: int) -> str:
    """What the weights took in the file the model was made from, where that is known."""
    if facts.stored_weight_bytes is None:
        return ""
    return (
        f" The weights took {_size(facts.stored_weight_bytes)} bytes as the model was stored "
        f"({facts.stored_dtype}), {facts.stored_weight_bytes / weight_bytes:.2f} times as many."
    )


def _files(sizes: Mapping[str, int]) -> str:
    """What is what in the folder."""
    rows = [[code(name), _size(size), ABOUT[name]] for name, size in sizes.items()]
    if not rows:
        return ""
    return (
        "\n\n"
        + table(["file", "bytes", "what"], rows)
        + ("\n\nA device needs the tensors alone; the rest of these files says what they are.")
    )


def _figure(score: Score, metric: MetricInfo, signed: bool = False) -> str:
    sign, unit = ("+", metric.change_unit) if signed else ("", metric.unit)
    value, error = metric.scale * score.value, metric.scale * score.stderr
    if metric.unit == "%":
        texts = f"{value:{sign}.2f}", f"{error:.2f}"
    else:
        texts = f"{value:{sign}.4g}", f"{error:.2g}"
    return f"{texts[0]} ± {texts[1] if isfinite(error) else 'unknown'} {plain(unit)}".rstrip()


def _result(plan: Mapping[str, Scheme], model: Model, facts: CardFacts) -> str:
    rows = []
    ours = cost(model.sites.values(), plan, batch=facts.batch)
    held = facts.held_state_bytes
    total = ours.weight_bytes + (ours.state_bytes if held is None else held)
    full = cost(model.sites.values(), {}, batch=facts.batch).total_bytes
    if facts.confirmed:
        rows.append(_score_row("this plan", total, facts.confirmed, facts.metric))
    if facts.untuned:
        rows.append(_score_row("this plan, untuned", total, facts.untuned, facts.metric))
    if facts.uniform:
        name, size = (
            f"{code(facts.uniform.scheme)} for every weight and state",
            facts.uniform.total_bytes,
        )
        if facts.uniform.score:
            rows.append(_score_row(name, size, facts.uniform.score, facts.metric))
        else:
            rows.append([name, _size(size), "not measured", ""])
    if facts.hand:
        what = f"by hand: {plain(facts.hand.about)}"
        rows.append(_score_row(what, facts.hand.total_bytes, facts.hand.score, facts.metric))
    if facts.baseline:
        exact = "full precision" if facts.whole_bytes is None else "full precision, nothing pruned"
        size = facts.whole_bytes or full
        rows.append(_score_row(exact, size, facts.baseline, facts.metric))
    if not rows:
        return "## Result\n\n" + _unconfirmed(facts)
    text = "## Result\n\n" + table(["", "bytes", plain(facts.metric.name), "samples"], rows, 1)
    if facts.difference:
        delta = _figure(facts.difference, facts.metric, signed=True)
        text += f"\n\nAgainst full precision, sample by sample: {delta}."
    if facts.gained:
        delta = _figure(facts.gained, facts.metric, signed=True)
        within = "" if facts.gained.differs() else ", within the error"
        text += f"\n\nWhat training under the plan changed: {delta}{within}."
    if facts.hand:
        delta = _figure(facts.hand.difference, facts.metric, signed=True)
        text += f"\n\nAgainst the best plan made by hand within the same budget: {delta}."
    return text + "\n\n" + _provenance(facts)


def _unconfirmed(facts: CardFacts) -> str:
    if facts.searched is None:
        return "No score was given when this was exported."
    return (
        f"Not confirmed. On the {facts.searched.n:,} samples it was chosen by, where the best of "
        f"many looks a little better than it is: {plain(facts.metric.name)} "
        f"{_figure(facts.searched, facts.metric)}."
    )


def _score_row(name: str, size: int, score: Score, metric: MetricInfo) -> list[str]:
    return [name, _size(size), _figure(score, metric), f"{score.n:,}"]


def _provenance(facts: CardFacts) -> str:
    where = code(facts.data) if facts.data else "data that was not named"
    text = (
        f"Measured on {where}, on samples that calibration and search had not seen; ± one standard "
        "error."
    )
    if not facts.confirmed:
        return text + " The plan itself was not scored."
    clusters = facts.confirmed.clusters
    if clusters != facts.confirmed.n:
        text += f" Samples fall in {clusters:,} groups, and the error allows for it."
    return text


def _schemes(sites: Mapping[str, Site], plan: Mapping[str, Scheme]) -> str:
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in sites.values():
        if site.kind is not Kind.ACTIVATION or site.name in plan:
            key = (site.part.value, str(plan.get(site.name, EXACT)))
            groups.setdefault(key, []).append(site)
    rows = []
    for (part, scheme), members in groups.items():
        size = sum(sum(site_bytes(s, plan.get(s.name, EXACT))) for s in members)
        full = sum(s.full_bytes for s in members)
        counts = len(members), sum(s.reals for s in members), size, full
        rows.append([code(part), code(scheme), *map(_size, counts)])
    head = ["part", "scheme", "tensors", "values", "bytes", "at full precision"]
    return "## Schemes\n\n" + table(head, rows, words=2) + "\n\nStates are those of one sequence."


def _stability(model: Model, radius: float) -> str:
    what = "|A| as stored" if model.radius_name == "max|A|" else f"{model.radius_name}, exp(dt A)"
    verdict = "stable" if radius <= 1 else "**unstable: the state can grow without bound**"
    return f"## Stability\n\nLargest {what}: {radius:.8f} ({verdict})."


def _loading(model: Model, facts: CardFacts, folder: str) -> str:
    data, name = one_line(facts.data) or "DATA", one_line(folder)
    python = [
        "import sensprobe",
        "",
        f"model = sensprobe.load({json.dumps(name, ensure_ascii=False)})",
    ]
    shell = [
        f"sensprobe eval {shlex.quote(name)} --data {shlex.quote(data)}",
        f"sensprobe cost {shlex.quote(name)}",
    ]
    if model.reads_tokens:
        reads = f"(batch, length), tokens 0 to {model.config.d_input - 1}"
    else:
        reads = f"(batch, length, {model.config.d_input}) float32"
    return (
        "## Use\n\n"
        + fenced([*python, f"outputs = model(x)  # x: {reads}, numpy or torch"], "python")
        + f"\n\n{fenced(shell)}\n\n"
        "`plan.json` says which scheme each tensor is in, `config.json` how each tensor of "
        "`model.safetensors` unpacks. Nothing in this folder is code."
    )


def _identity(fingerprints: Mapping[str, str]) -> str:
    known = ", ".join(f"{name} {code(value)}" for name, value in fingerprints.items() if value)
    return f"## Fingerprints\n\n{known}."
