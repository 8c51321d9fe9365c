"""Results as sentences that a reader can check against the tables. Plain text, unescaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite

from sensprobe.report.agreement import Agreement
from sensprobe.report.fronts import KEPT, MOST_BATCH, harmed, largest_batch, whole
from sensprobe.report.gather import Results
from sensprobe.report.names import told
from sensprobe.report.results import (
    Confirmation,
    Confirmed,
    Rival,
    Row,
    Search,
    Sensitivity,
)
from sensprobe.report.tables import ranked
from sensprobe.report.tuned import Tuned, Tuning
from sensprobe.report.values import (
    NOISE,
    UNSTABLE,
    Measured,
    Quantity,
    digits,
    in_bytes,
    plus_minus,
    shortened,
)

NAME = 60  # characters of a name in a sentence


def about_sensitivity(found: Sensitivity) -> list[str]:
    """Sentences that say what was done, and how many groups each scheme hurts and which most."""
    what = "every part, in all layers together," if found.by == "part" else "every site"
    how = {"taylor": "was priced from one gradient", "noise": "was perturbed alone"}.get(
        found.method, "was rounded alone"
    )
    tried = "amounts of noise" if found.method == "noise" else "schemes"
    lines = [
        f"One at a time, {what} {how}, in {len(found.schemes)} {tried}, on {found.n:,} "
        f"{found.split} samples."
    ]
    of = "metric" if found.has_metric else "additive"
    if of == "metric":
        lines += [_worst(found, scheme) for scheme in found.schemes]
    unstable = sum(row.unstable for row in found.rows)
    if unstable:
        lines.append(f"{UNSTABLE} {unstable} of them have {found.radius_name} above 1: unstable.")
    return [line for line in lines if line]


def _worst(found: Sensitivity, scheme: str) -> str:
    searched = found.searched
    rows, every = ranked(searched, "metric", scheme), ranked(found, "metric", scheme)
    hurt, all_hurt = _hurt(rows, found.metric), _hurt(every, found.metric)
    if not rows:
        return ""
    exact = ""
    if len(all_hurt) > len(hurt):
        exact = (
            f"; {len(all_hurt) - len(hurt)} of {len(every) - len(rows)} activations, which a "
            "search leaves exact"
        )
    if not hurt:
        return f"{scheme}: none of {len(rows)} {searched.kinds} loses beyond its error bar{exact}."
    change = found.metric.shown(hurt[0].change)
    return (
        f"{scheme}: {len(hurt)} of {len(rows)} {searched.kinds} lose beyond their error bar, "
        f"{shortened(hurt[0].group, NAME)} most ({_change(change, found.metric)}){exact}."
    )


def _hurt(rows: Sequence[Row], quantity: Quantity) -> list[Row]:
    """Those that lose beyond their error bar."""
    return [r for r in rows if r.change.differs and r.change.value * quantity.sign < 0]


def _change(shown: Measured, quantity: Quantity) -> str:
    return f"{plus_minus(shown, signed=True)} {quantity.change_unit}".rstrip()


def _level(shown: Measured, quantity: Quantity) -> str:
    return f"{plus_minus(shown)} {quantity.unit}".rstrip()


def about_agreement(found: Agreement) -> str:
    """τ, what it means for a pair of groups, and the group that the two prices differ most on."""
    tau = found.overall
    if not tau.known:
        return "Too few groups were priced both ways to compare the rankings."
    same = plus_minus(Measured(50 + 50 * tau.value, 50 * tau.stderr))
    prices = [(p, p.taylor.additive, p.measured.additive) for p in found.pairings]
    far, one, other = max(prices, key=lambda both: abs(both[1].value - both[2].value))
    return (
        f"Kendall τ between the gradient's estimate and the measurement is {plus_minus(tau)} over "
        f"{tau.n} observations: {same} % of pairs are in the same order. "
        f"They are farthest apart for {shortened(far.measured.group, NAME)} in "
        f"{far.measured.scheme}: estimated {plus_minus(one)}, measured {plus_minus(other)}."
    )


def about_predictions(search: Search) -> str:
    """Which plan's measured loss lies farthest from the sum of its sensitivities; empty where no
    plan has both numbers."""
    known = [c for c in search.candidates if isfinite(c.predicted) and isfinite(c.extra_nats)]
    if not known:
        return ""
    far = max(known, key=lambda c: abs(c.predicted - c.extra_nats))
    return (
        f"Farthest from its prediction: {told(far, search)}, predicted {digits(far.predicted, 3)} "
        f"nats, measured {digits(far.extra_nats, 3)}."
    )


def about_search(search: Search) -> list[str]:
    done = sum(not c.stopped_early for c in search.candidates)
    stopped = len(search.candidates) - done
    stored = ""
    if search.stored_bytes:
        stored = f"{in_bytes(search.stored_bytes)} as stored ({search.stored_dtype}), "
    early = f", {stopped} more were stopped early" if stopped else ""
    return [
        f"{done:,} plans were evaluated on all {search.n:,} {search.split} samples{early} "
        f"(method {search.method}). Full precision takes {stored}{in_bytes(search.full_bytes)} in "
        "float32 and has "
        f"{search.quantity.name} {_level(search.quantity.shown(search.full), search.quantity)}.",
        "Plans were chosen by these samples, so the best of many looks a little better here than "
        "it is; the confirmed numbers are the ones to quote.",
    ]


@lru_cache(maxsize=KEPT)
def about_batches(
    search: Search, memory: float, confirmed: Confirmation | None = None
) -> tuple[str, ...]:
    """The most sequences that a memory holds at once, and the most without a loss that shows."""
    known = [(largest_batch(c, search, memory), c) for c in whole(search)]
    kept = [(batch, c) for batch, c in known if batch and not harmed(c, search, confirmed)]
    lines = []
    for what, found in (
        (f"The most sequences at once in {in_bytes(memory)}", known),
        ("The most without a difference to full precision", kept),
    ):
        batch, plan = max(
            found, key=lambda pair: (pair[0], search.quantity.sign * pair[1].metric.value),
            default=(0, None),
        )  # fmt: skip
        if plan is None or not batch:
            lines.append(f"{what}: none")
            continue
        most = "any number" if batch == MOST_BATCH else f"{batch:,}"
        each = f"weights {in_bytes(plan.weight_bytes)}, state {in_bytes(plan.state_bytes)}"
        lines.append(f"{what}: {most}, under {told(plan, search)} ({each} at batch {search.batch})")
    return tuple(lines)


def samples_seen(found: Confirmation) -> str:
    """Name the samples that confirmed, and say whether they were new to the run."""
    samples = f"{found.n:,} {found.split} samples"
    if found.looks == 0:
        return f"{samples}, unseen before"
    plans = "plan" if found.looks == 1 else "plans"
    return f"{samples}, which {found.looks:,} other {plans} of this run met before"


def missed_limits(found: Confirmation) -> list[str]:
    """A warning for every plan that loses more than its budget allows."""
    q = found.quantity
    return [
        f"{plan.budget}: {plan.name} loses more than that here "
        f"({_change(q.shown(plan.change), q)}); it was chosen by what it lost on the search split."
        for plan in found.plans
        if found.misses(plan)
    ]


def about_confirmation(found: Confirmation) -> list[str]:
    """One sentence a budget: what it keeps, what it loses, what uniform would have kept."""
    q = found.quantity
    base = _level(q.shown(found.baseline), q)
    lines = [f"On {samples_seen(found)}; full precision has {q.name} {base}."]
    return lines + [_confirmed(plan, found) for plan in found.plans] + missed_limits(found)


def _confirmed(plan: Confirmed, found: Confirmation) -> str:
    q = found.quantity
    change = q.shown(plan.change)
    lost = _change(change, q) + ("" if change.differs else ", within the error,")
    text = (
        f"{plan.budget}: {plan.name} takes {in_bytes(plan.total_bytes)} and has {q.name} "
        f"{_level(q.shown(plan.metric), q)} ({lost} against full precision)."
    )
    if plan.radius > 1:
        text += f" Its recurrence is unstable ({found.radius_name} {plan.radius:.4f})."
    if plan.uniform is None:
        text += " No uniform plan fits."
    else:
        name = f"The best uniform plan that fits, {plan.uniform.name} of"
        text += f" {name} {_gained(plan.uniform, q)}"
    if plan.hand is not None:
        text += f" By hand ({plan.hand.name}), {_gained(plan.hand, q)}"
    return text


def _gained(rival: Rival, q: Quantity) -> str:
    """The bytes and the score of a rival, and what the search gains on it."""
    gain = q.shown(rival.difference)
    better = f"{_change(gain, q)} for the search" + ("" if gain.differs else ", within the error")
    return f"{in_bytes(rival.total_bytes)}, has {_level(q.shown(rival.metric), q)}: {better}."


def samples_tuned(found: Tuning) -> str:
    """The samples that tuned models are judged by."""
    counts = sorted({plan.confirmation.n for plan in found.plans})
    return f"{' or '.join(f'{n:,}' for n in counts)} confirmation samples"


def about_tuned(found: Tuning) -> list[str]:
    """One sentence a tuned model: what it scores, and what training under its plan gained."""
    lines = [
        "The model was trained under each of these plans, with every rounding inside. Scores are "
        f"of {samples_tuned(found)}, on which nothing was trained or chosen."
    ]
    lines += [_tuned(plan, found.quantity) for plan in found.plans]
    return lines + [f"{plan.name}: {line}." for plan in found.plans for line in plan.warnings]


def _tuned(plan: Tuned, q: Quantity) -> str:
    scores = plan.confirmation
    before, after, gained, left = (
        q.shown(m) for m in (scores.before, scores.after, scores.gained, scores.left)
    )
    return (
        f"{plan.name}: {in_bytes(plan.total_bytes)}, untuned {q.name} {_level(before, q)}, tuned "
        f"{_level(after, q)}: {_told(gained, q)} by tuning, {_told(left, q)} against full "
        "precision."
    )


def _told(change: Measured, q: Quantity) -> str:
    return _change(change, q) + ("" if change.differs else " (within the error)")


SIGNS = (
    "± and every bar of a figure are one standard error of the mean over samples; bars of "
    "benchmarks are quartiles of what was timed.",
    f"{NOISE} marks what lies within 1.96 standard errors of zero: it is not called a difference. "
    "Of twenty true zeros about one is taken for a difference by chance. Losses of regression have "
    "long tails: there a difference is one where its mean or the signs and ranks of its samples "
    "(Wilcoxon) say so, each at half that rate.",
    f"{UNSTABLE} marks a recurrence whose stored A has a magnitude above 1, of Mambas one whose "
    "decay at rest is.",
    "Changes and differences are paired: both models see the same samples.",
    "Cross-entropy and KL are capped at 50 nats a sample, of text a token: a plan at the cap says "
    "nothing at all.",
)


def about_origins(evaluations: int, origins: Mapping[str, int]) -> list[str]:
    """A sentence for each other run that evaluations of this one were taken from."""
    return [
        f"{count:,} of {evaluations:,} evaluations were not made in this run: they were taken from "
        f"{origin} (--reuse) and are believed as they stand there."
        for origin, count in sorted(origins.items())
    ]


def method_notes(found: Results) -> list[str]:
    """Sentences on what was measured on which samples, and on what every sign of the page means."""
    notes = [*about_origins(found.evaluations, found.origins), *SIGNS]
    if found.sensitivity is not None:
        notes += _profile_notes(found.sensitivity)
    if found.agreement is not None:
        notes.append("The error of τ is Hollander and Wolfe's asymptotic one (§8.3).")
    if (search := found.search) is not None:
        notes += [
            f"Search: {search.n:,} samples of the {search.split} split; the state is counted at "
            f"batch {search.batch}. A plan beaten beyond its error bar by one of no more bytes was "
            "stopped early and is drawn hollow.",
            "By hand: the best uniform plan within the budget with the single upgrade that fits "
            "and promises most by the sensitivities, or a plan measured beside the search (--also) "
            "that fits, whichever scored best.",
            "Bytes are those of the packed tensors with their scales and zero points. Activations "
            "take none and stay at full precision, in uniform plans too, unless they are frozen.",
            "Within a budget the plan of the best score is chosen; of equals the one with the "
            "smaller loss (cross-entropy), which sees what the score of few samples cannot, then "
            "the one of fewer bytes.",
        ]
    if (confirmed := found.confirmation) is not None:
        notes.append(
            f"Confirmation: {confirmed.n:,} samples of the {confirmed.split} split, disjoint from "
            "those of calibration and search."
        )
    return notes


def _profile_notes(profile: Sensitivity) -> list[str]:
    notes = [
        f"Sensitivities: {profile.n:,} samples of the {profile.split} split. {profile.metric.name} "
        f"does not add up over groups; {profile.additive.name} does, to first order, and is what "
        "the search adds.",
        "Colours of maps grow with the logarithm beyond the typical error bar; noise is neutral.",
    ]
    if 0 < profile.clusters < profile.n:
        notes.append(f"Samples form {profile.clusters:,} groups, and errors count groups.")
    return notes
