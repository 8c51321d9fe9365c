"""A model as a graph: what reads what in one layer, with shapes and bits."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

from sensprobe.plans.sites import Kind, Part, Site
from sensprobe.report.charts.chart import LABEL, Axis, Chart, Look, Point, Series, nothing
from sensprobe.report.plans import EXACT_TEXT, OUTSIDE, place_of, resolved
from sensprobe.report.results import Entries
from sensprobe.report.theme import BLUE, GREEN, GREY, VERMILION
from sensprobe.report.values import in_bytes, shortened

READS = {
    Part.IN_PROJ_IN: (Part.NORM,),
    Part.Z: (Part.IN_PROJ_IN, Part.IN_PROJ_Z),
    Part.CONV_IN: (Part.IN_PROJ_IN, Part.IN_PROJ_X, Part.IN_PROJ_B, Part.IN_PROJ_C),
    Part.CONV_STATE: (Part.CONV_IN,),
    Part.X: (Part.CONV_IN, Part.CONV, Part.CONV_STATE),
    Part.DT_PROJ_IN: (Part.X, Part.X_PROJ_DT),
    Part.DT: (Part.DT_PROJ_IN, Part.DT_PROJ, Part.IN_PROJ_DT),
    Part.DECAY: (Part.DT, Part.A),
    Part.B: (Part.X, Part.X_PROJ_B),
    Part.C: (Part.X, Part.X_PROJ_C),
    Part.STATE: (Part.DECAY, Part.DT, Part.B, Part.X),
    Part.Y: (Part.STATE, Part.C, Part.D, Part.X),
    Part.OUT_PROJ_IN: (Part.Y, Part.Z, Part.GATED_NORM),
    Part.OUT_PROJ_OUT: (Part.OUT_PROJ_IN, Part.OUT_PROJ),
    Part.OUT: (Part.OUT_PROJ_OUT,),
    Part.HEAD_IN: (Part.ENCODER, Part.EMBEDDING, Part.NORM),
    Part.HEAD: (Part.HEAD_IN,),
    Part.ENCODER: (Part.INPUT,),
}
"""Part -> what it is computed of, in any family. Of what a model lacks, that is read instead; a
weight reads nothing but where it stands for the product with it (encoder and head)."""
INSTEAD = {Part.DECAY: (Part.A,), Part.OUT_PROJ_OUT: (Part.OUT_PROJ_IN, Part.OUT_PROJ)}
COLUMNS = {Kind.WEIGHT: 0, Kind.ACTIVATION: 1, Kind.STATE: 2}
LOOKS = {
    Kind.WEIGHT: Look("circle", 14, BLUE),
    Kind.ACTIVATION: Look("square", 12, GREEN),
    Kind.STATE: Look("diamond", 14, VERMILION),
}
BREAK = Point(nan, nan)


def model_graph(sites: Sequence[Site], entries: Entries = (), layer: str = "0") -> Chart:
    """The tensors of a layer (or those outside of layers) from the top in the order of the forward
    pass: weights left, activations in the middle, states right, each with its shape and the scheme
    that a plan gives it, and a line from each to what is computed of it."""
    title = "Outside of the layers" if layer == OUTSIDE else f"Layer {layer}"
    own = [s for s in sites if place_of(s.name)[0] == layer]
    if not own:
        return nothing(title, "the model has no such layer")
    schemes = resolved(entries, own)
    places = {s.name: (COLUMNS[s.kind], k) for k, s in enumerate(own)}

    def point(site: Site) -> Point:
        name = place_of(site.name)[1]
        scheme = str(schemes.get(site.name, EXACT_TEXT))
        shape = " × ".join(map(str, site.shape)) + " complex" * site.is_complex
        lines: tuple[str, ...] = (site.name, site.kind.value, shape, scheme)
        if site.full_bytes:
            lines = (*lines, f"{in_bytes(site.full_bytes)} at full precision")
        label = f"{shortened(name, LABEL)} [{shape}]\n{shortened(scheme, LABEL)}"
        side = "middle left" if site.kind is Kind.WEIGHT else "middle right"
        return Point(*places[site.name], site.name, lines, label, side)

    lines = [
        part
        for source, target in edges(own)
        for part in (Point(*places[source]), Point(*places[target]), BREAK)
    ]
    return Chart(
        title,
        ("in brackets the shape, then the scheme; from the top in the order of the forward pass",),
        x=Axis(ticks=(), ends=(-1.4, 3.4), grid=False),
        y=Axis(ticks=(), ends=(len(own) - 0.4, -0.6), grid=False),
        series=(
            Series("", tuple(lines), Look(colour=GREY), "straight", marks=False),
            *(
                Series(kind.value, tuple(point(s) for s in own if s.kind is kind), look)
                for kind, look in LOOKS.items()
            ),
        ),
        height=150 + 38 * len(own),
        width=10.0,
    )


def edges(sites: Sequence[Site]) -> list[tuple[str, str]]:
    """(name, name of what is computed of it) for the sites of one layer. A bias is read where the
    matrix of its name is."""
    here: dict[Part, str] = {site.part: site.name for site in sites if site.part is not Part.BIAS}
    stored = {site.part for site in sites if site.kind is Kind.WEIGHT}
    found = []
    for part, name in here.items():
        if part in stored and part not in (Part.ENCODER, Part.HEAD):
            continue
        for source in _sources(part, here):
            found.append((here[source], name))
            bias = f"{here[source]}.bias"
            found += [(s.name, name) for s in sites if s.name == bias]
    if (head := here.get(Part.HEAD)) is not None:  # nothing is computed of what it writes
        found += [(head, s.name) for s in sites if s.name == f"{head}.bias"]
    return list(dict.fromkeys(found))


def _sources(part: Part, here: dict[Part, str]) -> list[Part]:
    out = []
    for source in READS.get(part, ()):
        if source in here:
            out.append(source)
        else:
            out += [s for s in INSTEAD.get(source, READS.get(source, ())) if s in here]
    return [source for source in out if source is not part]
