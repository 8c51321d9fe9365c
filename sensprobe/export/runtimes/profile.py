"""What a runtime can express, as data; and why it cannot express a scheme.

A runtime keeps some matrices in *layouts* (codes and scales), every other weight in a float format,
states in a float format that is one for all layers, and computes activations in a dtype of its own.
Sites that it holds as one tensor (the rows of `in_proj`) share one layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from sensprobe.checkpoints.hf import PACKAGE
from sensprobe.checkpoints.to_hf import HfTensor, hf_tensors
from sensprobe.models import FAMILIES, Model
from sensprobe.models.apply import Applier, encode_weight, inputs_of
from sensprobe.plans.formats import Int
from sensprobe.plans.scheme import EXACT, Rounding, Scales, Scheme, parse
from sensprobe.plans.sites import Kind, Part, Site

if TYPE_CHECKING:
    from sensprobe.export.runtimes.emit import Emitted
    from sensprobe.export.runtimes.fit import Fit

FLOATS = ("fp32", "fp16", "bf16")
EVERY_SCALE = frozenset(Scales)
LINEARS = {
    name: frozenset(tensor.matrix for tensor in layout.tensors if tensor.matrix)
    for name, family in FAMILIES.items()
    for layout in family.layouts
    if layout.package == PACKAGE
}
"""The linear maps of a mixer, by family."""
PROJECTED = {family: parts for family, parts in LINEARS.items() if "x_proj" not in parts}
"""Those of families whose B, C and dt come from in_proj, as Mamba-2's do: the ones that vLLM and
ModelOpt quantize."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way a runtime keeps a matrix, by the name it has there.

    `groups` None allows any length that divides the rows. `zeros` are the zero points it stores:
    "none", those that are "codes" themselves, or "int8" (of codes centred on 0). `reads` is the
    scheme that the runtime rounds the matrix's input to. `same` tells that it reads our codes;
    otherwise it rounds the weights anew, to a grid of its own. `dense` tells that codes take as
    many bits there as the format has. Rows are stored `rows` at a time, columns `columns`.
    """

    name: str
    formats: frozenset[str]
    granularities: frozenset[str]
    groups: frozenset[int] | None = None
    zeros: str = "none"
    symmetric: bool = True
    scales: frozenset[Scales] = EVERY_SCALE
    reads: str | None = None
    same: bool = True
    dense: bool = True
    rows: int = 1
    columns: int = 1

    def why_not(self, scheme: Scheme, rows: int, columns: int) -> str | None:
        """Why a matrix's stored scheme (see `stored`) is not in this layout; None if it is."""
        if str(scheme.format) not in self.formats:
            return f"{self.name} has no {scheme.format}"
        if scheme.granularity not in self.granularities:
            return f"{self.name} has no scale a {scheme.granularity}"
        if scheme.granularity == "group" and columns % scheme.group:
            return f"{self.name} needs groups that divide the {columns} columns"
        if scheme.granularity == "group" and self.groups and scheme.group not in self.groups:
            return f"{self.name} has groups of {', '.join(map(str, sorted(self.groups)))}"
        if scheme.asym and self.zeros == "none":
            return f"{self.name} has no zero points"
        if not scheme.asym and not self.symmetric:
            return f"{self.name} has a zero point a scale"
        if scheme.scales not in self.scales:
            return f"{self.name} keeps scales as {', '.join(sorted(self.scales))}"
        for what, together, count in (
            ("rows", self.rows, rows),
            ("columns", self.columns, columns),
        ):
            if count % together:
                return f"{self.name} packs {together} {what} together, and there are {count}"
        return None


@dataclass(frozen=True)
class Runtime:
    """The record of a runtime: all that the rest of the package asks of one.

    `emit(fit, applier)` returns what its folder holds, `use(fit, folder)` the lines that load a
    folder of that name or path. `matrices`: family -> those it quantizes (see `HfTensor.matrix`).

    `rest` are the formats every other weight may be kept in, the first where none is asked for;
    `parts` are exceptions to it. `states` are the formats of each kind of state, one for all
    layers; the first where none is asked for. `examples` are schemes worth profiling for it. `bare`
    are matrices that it multiplies without their module, which would round the input.
    """

    name: str
    about: str
    matrices: Mapping[str, frozenset[str]]
    layouts: tuple[Layout, ...]
    rest: tuple[str, ...]
    states: Mapping[Part, tuple[str, ...]]
    examples: tuple[str, ...]
    emit: Callable[[Fit, Applier], Emitted]
    use: Callable[[Fit, str], list[str]]
    parts: Mapping[Part, tuple[str, ...]] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    activations: str = "stays in the runtime's own dtype"

    def quantizes(self, family: str, tensor: HfTensor) -> bool:
        """Whether a tensor may be in a layout."""
        return tensor.matrix in self.matrices[family]

    def floats(self, site: Site) -> tuple[str, ...]:
        """The formats an unquantized weight or a state may be kept in."""
        if site.kind is Kind.STATE:
            return self.states[site.part]
        return self.parts.get(site.part, self.rest)


def stored(scheme: Scheme, columns: int) -> Scheme:
    """What of a weight's scheme shows in its codes and scales: not how they were found.

    A scale for the whole tensor is a scale a row, repeated; a group longer than a row is one too.
    """
    granularity, group = scheme.granularity, scheme.group
    if granularity == "tensor" or (granularity == "group" and group > columns):
        granularity, group = "channel", 0
    if not scheme.scaled:
        granularity, group = "tensor", 0
    return Scheme(scheme.format, granularity, group, scheme.asym, scales=scheme.scales)


@dataclass(frozen=True)
class Judge:
    """Says of schemes on a model's sites what a runtime makes of them."""

    runtime: Runtime
    model: Model
    _zeros: dict[tuple[str, Scheme], tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def tensors(self) -> list[HfTensor]:
        return hf_tensors(self.model)

    @cached_property
    def holder(self) -> dict[str, HfTensor]:
        """Weight site -> the tensor it is in."""
        return {site: tensor for tensor in self.tensors for site in tensor.sites}

    @cached_property
    def reads(self) -> dict[str, str]:
        """Matrix -> the activation it multiplies."""
        return inputs_of(self.model)

    def reasons(self, schemes: Mapping[str, Scheme]) -> dict[str, str]:
        """Site -> why its scheme is not expressed, of those in `schemes` (exact ones too)."""
        sites = self.model.sites
        live = [n for n in schemes if sites[n].kind is Kind.ACTIVATION and not schemes[n].exact]
        kept = [n for n in schemes if sites[n].kind is not Kind.ACTIVATION]
        out = {n: reason for n in kept if (reason := self._alone(sites[n], schemes))}
        for tensor in self.tensors:
            named = [n for n in tensor.sites if n in schemes]
            out |= self._together(tensor, {n: schemes[n] for n in named}, out)
        for part in self.runtime.states:
            out |= self._one_for_all(part, schemes, out)
        return out | {n: r for n in live if (r := self._activation(n, schemes, out))}

    def layout(self, tensor: HfTensor, schemes: Mapping[str, Scheme]) -> Layout | None:
        """The layout a tensor is kept in under schemes that are expressed."""
        scaled = schemes.get(tensor.sites[0], EXACT).scaled
        return self._find(self.model.sites[tensor.sites[0]], schemes)[0] if scaled else None

    def _alone(self, site: Site, schemes: Mapping[str, Scheme]) -> str | None:
        scheme = schemes[site.name]
        if scheme.scaled and site.kind is Kind.WEIGHT and self._quantized(site):
            return self._find(site, schemes)[1]
        floats = self.runtime.floats(site)
        weight = site.kind is Kind.WEIGHT
        plain = replace(scheme, rounding=Rounding.NEAREST, seed=0) if weight else scheme
        if plain in map(parse, floats):
            return None
        what = "this tensor" if weight else "this state"
        return f"{self.runtime.name} keeps {what} in {' or '.join(floats)}"

    def _quantized(self, site: Site) -> bool:
        return self.runtime.quantizes(self.model.family, self.holder[site.name])

    def _activation(
        self, name: str, schemes: Mapping[str, Scheme], known: Mapping[str, str]
    ) -> str | None:
        """Why a rounded activation is not kept: no layout of what multiplies it rounds it so."""
        readers = [n for n, operand in self.reads.items() if operand == name]
        asked = [n for n in readers if n in schemes]
        for layout in self.runtime.layouts:
            if layout.reads is not None and parse(layout.reads) == schemes[name]:
                found = [n in known or self._find(self.model.sites[n], schemes)[0] for n in asked]
                if readers and all(one is layout for one in found):
                    return None
        return f"an activation {self.runtime.activations}"

    def _find(self, site: Site, schemes: Mapping[str, Scheme]) -> tuple[Layout | None, str | None]:
        """The layout of a matrix's scheme, or why it is not in the last that has its format."""
        scheme, operand = schemes[site.name], schemes.get(self.reads.get(site.name, ""), EXACT)
        if scheme.hadamard:
            return None, "its codes are those of a rotated matrix"
        kept = stored(scheme, site.shape[-1])
        if not any(str(kept.format) in layout.formats for layout in self.runtime.layouts):
            return None, f"{self.runtime.name} has no {kept.format} matrices"
        rows = sum(self.model.sites[n].shape[0] for n in self.holder[site.name].sites)
        reasons = []
        for layout in self.runtime.layouts:
            reason = layout.why_not(kept, rows, site.shape[-1])
            reason = reason or self._zero_points(layout, site, scheme)
            reason = reason or self._input(layout, site, operand)
            if reason is None:
                return layout, None
            if str(kept.format) in layout.formats:
                reasons.append(reason)
        return None, reasons[-1]

    def _input(self, layout: Layout, site: Site, operand: Scheme) -> str | None:
        """Why a layout that rounds a matrix's input is not that of a plan."""
        if layout.reads is None:
            return None
        if parse(layout.reads) != operand:
            return f"{layout.name} rounds its input to {layout.reads}, which the plan does not"
        bare = self.holder[site.name].matrix in self.runtime.bare
        return f"{self.runtime.name} never rounds the input of this matrix" if bare else None

    def _zero_points(self, layout: Layout, site: Site, scheme: Scheme) -> str | None:
        """Why a matrix's zero points do not fit; ranges on one side of zero have far ones."""
        if not scheme.asym or not layout.same:
            return None
        assert isinstance(scheme.format, Int)
        plain = replace(scheme, rounding=Rounding.NEAREST)
        key = (site.name, plain)
        if key not in self._zeros:
            zero = encode_weight(self.model, site, plain)[""].zero
            assert zero is not None
            self._zeros[key] = int(zero.min()), int(zero.max())
        half = 2 ** (scheme.format.bits - 1)
        most = (0, scheme.format.levels) if layout.zeros == "codes" else (half - 128, half + 127)
        low, high = self._zeros[key]
        if most[0] <= low and high <= most[1]:
            return None
        return f"a zero point of its is {low if low < most[0] else high}, and codes end before that"

    def _together(
        self, tensor: HfTensor, schemes: Mapping[str, Scheme], known: Mapping[str, str]
    ) -> dict[str, str]:
        """Reasons of sites that one tensor holds together."""
        if len(schemes) < 2:
            return {}
        bad = [n for n in schemes if n in known]
        if bad and len(bad) < len(schemes):
            why = f"{tensor.name} is one tensor, and {bad[0]} is not expressed"
            return {n: why for n in schemes if n not in known}
        kept = {n: stored(s, self.model.sites[n].shape[-1]) for n, s in schemes.items()}
        if bad or len(set(kept.values())) == 1:
            return {}
        first, *others = kept
        other = next(n for n in others if kept[n] != kept[first])
        pair = f"{first} in {schemes[first]}, {other} in {schemes[other]}"
        return dict.fromkeys(schemes, f"{tensor.name} is one tensor ({pair})")

    def _one_for_all(
        self, part: Part, schemes: Mapping[str, Scheme], known: Mapping[str, str]
    ) -> dict[str, str]:
        sites = [n for n in schemes if self.model.sites[n].part is part and n not in known]
        if len({schemes[n] for n in sites}) < 2:
            return {}
        return dict.fromkeys(sites, f"{self.runtime.name} has one format for every layer's {part}")
