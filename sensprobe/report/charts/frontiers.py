"""Score against bytes: every plan a search evaluated, and the fronts of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from statistics import median
from types import MappingProxyType

from sensprobe.report.charts.chart import (
    UNKNOWN_ERROR,
    Axis,
    Chart,
    Level,
    Look,
    Point,
    Series,
    Tick,
    byte_axis,
    error_of,
    log_ticks,
    nothing,
)
from sensprobe.report.charts.labels import apart
from sensprobe.report.charts.tuning import about_tuned, joined
from sensprobe.report.comparing import RELATIVE, relative_loss
from sensprobe.report.fronts import KEPT, FrontView, by_batch, feasible, largest_batch, whole
from sensprobe.report.names import told
from sensprobe.report.results import Candidate, Compared, Search
from sensprobe.report.tables import (
    CHOSEN,
    DOMINATED,
    FRONT,
    MARKS,
    MOST_DOMINATED,
    UNIFORM,
    mark_of,
    symbol,
    thinned,
)
from sensprobe.report.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, SERIES, SYMBOLS, VERMILION
from sensprobe.report.tuned import Tuned, Tuning, tuned_beside
from sensprobe.report.values import Measured, digits, in_bytes, plus_minus, shortened

EVERYTHING = FrontView()
SHARES = ("share", "relative")
"""What is drawn over the share of full precision's bytes."""
WIDER, MIDDLES = 1.6, 4.0
"""How many times the bytes of the largest telling plan, and how many times what the middle one of
them loses, a front is drawn to at first."""
LOOKS = {
    DOMINATED: Look("circle", 5, GREY, letter=DOMINATED),
    FRONT: Look("circle", 9, BLUE, letter=FRONT),
    UNIFORM: Look("diamond", 11, ORANGE, letter=UNIFORM),
    CHOSEN: Look("star", 16, GREEN, letter=CHOSEN),
}
PRESET, RING = Look("square", 10, VERMILION), Look("circle", 21, PURPLE)


def frontier(search: Search, view: FrontView = EVERYTHING, tuned: Tuning | None = None) -> Chart:
    """Plans with error bars of one standard error, full precision as a band, presets by name, and
    above its plan each tuned model, as it scores on the search split.

    The name of a mark is the plan's.
    """
    title = f"What {search.quantity.name} the memory buys"
    plotted = [c for c in search.candidates if c.total_bytes > 0 and isfinite(c.metric.value)]
    fits = [c for c in plotted if feasible(c, view)] if view.limited or view.feasible else plotted
    fit = f"{len(fits):,} of {len(plotted):,} plans fit and are stable" if view.limited else ""
    if view.feasible:
        plotted = fits
    if not plotted:
        return nothing(title, "no plan was evaluated")
    also = [b for b in search.compared if b.total_bytes > 0 and isfinite(b.metric.value)]
    trained = [t for t in tuned_beside(tuned, search) if isfinite(t.search.after.value)]
    if view.feasible:
        trained = [t for t in trained if feasible(t.seen_on("search"), view)]
    sizes = [*(c.total_bytes for c in plotted), *(b.total_bytes for b in also)]
    sizes += [t.total_bytes for t in trained]
    loss = search.quantity.paired_first if view.loss is None else view.loss
    both: list[Candidate | Compared] = [*plotted, *also]
    height = _Height(search, loss, both)
    selected = [c for c in plotted if c.name in view.selected]
    named = [c for c in plotted if c.name in view.named]
    asked: list[Candidate | Compared] = [*also, *selected, *named]
    front = [c for c in plotted if c.on_front or c.name in search.picks]
    most = max((c.total_bytes for c in (*asked, *front)), default=search.full_bytes)
    seen = [s for s in (*sizes, search.full_bytes) if 0 < s <= WIDER * most]
    if isfinite(view.budget):
        seen.append(round(view.budget))
    bytes_of = byte_axis(
        f"weights and state at batch {search.batch}", [*seen, 1.3 * min(sizes)], log=view.log
    )
    presets = [height.mark(b, about_compared(b, search), b.name, "bottom center") for b in also]
    rings = [height.mark(c, about(c, search))._replace(hollow=True) for c in selected]
    dominated, *others = _marks(plotted, search, height)
    gained = [height.tuned(t) for t in trained]
    wanted = [*map(height.mark, asked), *(after for _, after in gained)]
    axis = height.axis([height.mark(c).y for c in front], [mark.y for mark in wanted])
    outside = sum(
        not (_within(bytes_of, p.total_bytes) and _within(axis, height.of(p))) for p in both
    )
    bars = "bars: one standard error" + (", paired with full precision" if loss else "")
    more = f"; {outside:,} of {len(both):,} plans lie outside"
    drawn = Chart(
        title,
        tuple(filter(None, (fit, bars + more if outside else bars))),
        x=bytes_of,
        y=axis,
        series=(
            dominated,
            Series("", tuple(map(height.mark, _front(plotted))), joined="steps", marks=False),
            *others,
            Series("compared plan", tuple(presets), PRESET),
            *joined(gained),
            Series("selected", tuple(rings), RING),
        ),
        levels=() if loss else _full_precision(search),
        rules=((view.budget, PURPLE),) if isfinite(view.budget) else (),
        height=520,
    )
    return apart(drawn)


def _within(axis: Axis, place: float) -> bool:
    assert axis.ends is not None
    return axis.ends[0] <= place <= axis.ends[1]


class _Height:
    """Places plans on the vertical axis: by score, or by what they lose, on a log axis whose lowest
    tick stands for no loss."""

    def __init__(self, search: Search, loss: bool, plans: Sequence[Candidate | Compared]) -> None:
        self._search, self._loss = search, loss
        lost = [self._lost(plan.change).value for plan in plans] if loss else []
        self._floor = min((v for v in lost if v > 0), default=1e-6) / 2
        self._most = max((v for v in lost if isfinite(v)), default=self._floor)

    def of(self, plan: Candidate | Compared) -> float:
        """Where a plan is, without its error."""
        q = self._search.quantity
        if not self._loss:
            return q.shown(plan.metric).value
        return max(self._lost(plan.change).value, self._floor)

    def mark(
        self,
        plan: Candidate | Compared,
        about: tuple[str, ...] = (),
        label: str = "",
        side: str = "top left",
    ) -> Point:
        value = self._search.quantity.shown(plan.metric)
        if self._loss:
            lost = self._lost(plan.change)
            value = replace(lost, value=max(lost.value, self._floor))
        below, above = error_of(value)
        if self._loss:  # a log axis ends above zero
            below = min(below, value.value - self._floor)
        return Point(
            plan.total_bytes, value.value, plan.name, about, shortened(label, 32), side,
            y_error=(below, above),
        )  # fmt: skip

    def tuned(self, plan: Tuned) -> tuple[Point, Point]:
        """The marks of a tuned model: the plan before, and after."""
        after, scores = plan.seen_on("search"), plan.search
        lost = replace(scores.left, value=scores.left.value - scores.gained.value)
        before = replace(after, metric=scores.before, change=lost)
        name, lines = plan.candidate or "", about_tuned(plan, self._search.quantity, "search")
        return self.mark(before)._replace(name=name), self.mark(after, lines)._replace(name=name)

    def axis(self, front: Sequence[float], asked: Sequence[float]) -> Axis:
        """The axis between ends that hold full precision, what was asked for and of the front what
        loses no more than several times what the plan in its middle does."""
        q, full = self._search.quantity, self._search.quantity.shown(self._search.full)
        if self._loss:
            none, ends = self._floor, (self._floor / 1.4, 1.6 * max(self._most, self._floor))
            ticks = (Tick(none, "none"), *log_ticks(1.5 * none, ends[1]))
            return Axis(f"{q.name} lost to full precision", q.change_unit, True, ticks, ends)
        known = [v for v in (*front, full.value) if isfinite(v)] or [*asked, 0.0]
        best = max(known, key=lambda v: q.sign * v)
        near = MIDDLES * median([abs(best - v) for v in known])
        kept = [
            *(v for v in asked if isfinite(v)),
            *(v for v in known if abs(best - v) <= near or not near),
        ]
        error = full.stderr if isfinite(full.stderr) else 0.0
        kept += [full.value - error, full.value + error] if isfinite(full.value) else []
        room = 0.12 * (max(kept) - min(kept)) or abs(best) / 10 or 1.0
        return Axis(
            f"{q.heading} on {self._search.n:,} {self._search.split} samples",
            ends=(min(kept) - room, max(kept) + room),
        )

    def _lost(self, change: Measured) -> Measured:
        return self._search.quantity.shown(change).times(-self._search.quantity.sign)


def _marks(plotted: Sequence[Candidate], search: Search, height: _Height) -> list[Series]:
    """A series for each kind of plan, the least telling first; of many dominated plans a part."""
    found: dict[str, list[Candidate]] = {mark: [] for mark in LOOKS}
    for c in plotted:
        found[symbol(c, search)].append(c)
    names, every = dict(MARKS), len(found[DOMINATED])
    found[DOMINATED] = thinned(found[DOMINATED])
    if every > MOST_DOMINATED:
        names[DOMINATED] += f" ({len(found[DOMINATED]):,} of {every:,} drawn)"
    largest = max((c.total_bytes for c in found[CHOSEN]), default=0)
    uniform = _uniform_names(plotted)
    last = max(c.total_bytes for c in plotted)  # a label right of it would leave the chart

    def point(mark: str, c: Candidate) -> Point:
        at = height.mark(c, about(c, search))
        if mark == DOMINATED:
            return at._replace(y_error=UNKNOWN_ERROR, hollow=c.stopped_early)
        if mark == UNIFORM:
            label = shortened(uniform[c.name], 18)
            side = "bottom left" if c.total_bytes == last else "bottom right"
            return at._replace(label=label, side=side)
        if mark == CHOSEN:
            side = "top right" if c.total_bytes == largest else "top left"
            first, *others = search.picks[c.name]
            label = f"{shortened(first, 24)}{f' +{len(others)}' if others else ''}"
            return at._replace(label=label, side=side)
        return at

    return [
        Series(names[mark], tuple(point(mark, c) for c in found[mark]), look)
        for mark, look in LOOKS.items()
    ]


def _uniform_names(plans: Sequence[Candidate]) -> dict[str, str]:
    """What uniform plans are labelled by: "int6", or "int6/head" beside "int6/head/dynamic"."""
    schemes = {c.name: c.uniform.split("/") for c in plans if c.uniform}

    def short(words: list[str]) -> str:
        alike = [w for w in schemes.values() if w != words]
        enough = (k for k in range(1, len(words)) if all(w[:k] != words[:k] for w in alike))
        return "/".join(words[: next(enough, len(words))])

    return {name: short(words) for name, words in schemes.items()}


def _front(plans: Sequence[Candidate]) -> list[Candidate]:
    """The plans that no other beats, in growing bytes."""
    kept = [c for c in plans if c.on_front and isfinite(c.metric.value)]
    return sorted(kept, key=lambda c: c.total_bytes)


def _full_precision(search: Search) -> tuple[Level, ...]:
    full = search.quantity.shown(search.full)
    if not isfinite(full.value):
        return ()
    value = f"{plus_minus(full)} {search.quantity.unit}".rstrip()
    return (Level(full.value, "full precision", value, full.stderr),)


def about(c: Candidate, search: Search) -> tuple[str, ...]:
    """Everything a reader asks of one plan, a line each."""
    what = mark_of(c, search) or "dominated"
    lines = _about(c, search, told(c, search), what)
    lines.append(f"{digits(c.effective_bits, 3)} bits a value")
    if c.radius > 1:
        lines.append(f"{search.radius_name} {digits(c.radius, 5)}: unstable")
    return (*lines, f"plan {c.name}")


def about_compared(b: Compared, search: Search) -> tuple[str, ...]:
    """The lines of `about` for a plan that was measured beside the search."""
    return tuple(_about(b, search, b.name, "saved" if b.saved else "measured beside the search"))


def _about(plan: Candidate | Compared, search: Search, name: str, what: str) -> list[str]:
    q = search.quantity
    return [
        name,
        what,
        f"{q.heading} {q.level(plan.metric)}",
        f"{q.change_heading} {q.change(plan.change)}",
        f"{in_bytes(plan.total_bytes)} in all",
        f"weights {in_bytes(plan.weight_bytes)}, state {in_bytes(plan.state_bytes)}",
    ]


@lru_cache(maxsize=KEPT)
def batches(search: Search, memory: float, *, loss: bool | None = None) -> Chart:
    """The best plan for every batch: how many sequences run at once in a memory, and how well.

    A mark is a plan at its largest batch; only stable ones that were measured in full have one."""
    title = f"The best plan by batch in {in_bytes(memory)}"
    loss = search.quantity.paired_first if loss is None else loss
    best = by_batch(search, memory)
    if not best:
        return nothing(title, "no plan that was measured in full fits it")

    uniform = [(largest_batch(c, search, memory), c) for c in whole(search) if c.uniform]
    uniform = [(batch, c) for batch, c in uniform if batch]
    height = _Height(search, loss, [c for _, c in (*best, *uniform)])

    def point(batch: int, c: Candidate, label: str = "") -> Point:
        state = round(c.state_bytes / search.batch * batch)
        at = replace(c, state_bytes=state, total_bytes=c.weight_bytes + state)
        about_it = (f"up to batch {batch:,}", *about(at, search))
        return height.mark(c, about_it, label, "bottom left")._replace(x=batch)

    marks = tuple(point(batch, c) for batch, c in best)
    names = _uniform_names([c for _, c in uniform])
    others = tuple(point(batch, c, names[c.name]) for batch, c in uniform)
    lines = (height.mark(best[0][1])._replace(x=1), *marks)
    last = max(mark.x for mark in (*marks, *others))
    ticks = [2**k for k in range(0, 21, 2) if 2**k <= last]
    across = Axis(
        "sequences at once",
        log=True,
        ticks=tuple(Tick(batch, f"{batch:,}") for batch in ticks),
        ends=(0.9, 1.3 * last),
    )
    drawn = Chart(
        title,
        ("weights once, state a sequence; each mark at the largest batch that fits",),
        x=across,
        y=height.axis([mark.y for mark in marks], [mark.y for mark in others]),
        series=(
            Series("", lines, LOOKS[FRONT], joined="before", marks=False),
            Series("best", marks, LOOKS[FRONT]),
            Series("uniform", others, LOOKS[UNIFORM]),
        ),
        levels=() if loss else _full_precision(search),
        height=400,
    )
    return apart(drawn)


def fronts(
    searches: Mapping[str, Search],
    of: str = "score",
    tuned: Mapping[str, Tuning | None] = MappingProxyType({}),
) -> Chart:
    """One staircase a run, and its tuned models as marks, both on the search split.

    `of`: "score", "change" (to the run's own full precision, over bytes), "share" (the same over
    the share of full precision's bytes, for models of different sizes) or "relative" (the loss as a
    share of full precision's score over that share, for unlike metrics too).
    """
    title = "Fronts side by side"
    drawn = {name: s for name, s in searches.items() if _front(s.candidates)}
    if not drawn:
        return nothing(title, "no run here has a front yet")
    headings = sorted({s.quantity.heading for s in searches.values()})
    if len(headings) > 1 and of != "relative":
        return nothing(title, f"these runs measure different things: {', '.join(headings)}")
    lines = []
    for k, (name, s) in enumerate(drawn.items()):
        points = tuple(_front_point(name, c, s, of) for c in _front(s.candidates))
        look = Look(SYMBOLS[k % len(SYMBOLS)], 9, SERIES[k % len(SERIES)])
        lines.append(Series(shortened(name, 40), points, look, joined="steps"))
        trained = tuple(_tuned_point(name, t, s, of) for t in tuned_beside(tuned.get(name), s))
        crosses = Look("cross", 11, look.colour)
        lines.append(Series(f"{shortened(name, 40)}, tuned" if trained else "", trained, crosses))
    batches = ", ".join(sorted({str(s.batch) for s in searches.values()}))
    places = [point.x for line in lines for point in line.points]
    across = byte_axis(f"weights and state at batch {batches}", places)
    if of in SHARES:
        across = Axis("bytes", "% of full precision", log=True)
    quantity = next(iter(drawn.values())).quantity
    heading = quantity.heading if of == "score" else quantity.change_heading
    heading = RELATIVE if of == "relative" else heading
    bars = "bars: one standard error" + (", paired with full precision" if of != "score" else "")
    return Chart(title, (bars,), x=across, y=Axis(heading), series=tuple(lines), height=520)


def _front_point(run: str, c: Candidate, search: Search, of: str) -> Point:
    return _point(c, search, of, (shortened(run, 60), *about(c, search)))


def _tuned_point(run: str, tuned: Tuned, search: Search, of: str) -> Point:
    lines = (shortened(run, 60), *about_tuned(tuned, search.quantity, "search"))
    return _point(tuned.seen_on("search"), search, of, lines)


def _point(plan: Candidate | Compared, search: Search, of: str, about: tuple[str, ...]) -> Point:
    value = search.quantity.shown(plan.metric if of == "score" else plan.change)
    if of == "relative":
        value = relative_loss(plan, search)
    share = 100 / search.full_bytes if of in SHARES and search.full_bytes else 1.0
    return Point(share * plan.total_bytes, value.value, plan.name, about, y_error=error_of(value))
