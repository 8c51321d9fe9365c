"""A search for a runtime: what it cannot express is frozen, tied or not offered from the start.

So the plan that is found is kept whole by `sensprobe export --for`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensprobe.checkpoints.to_hf import hf_document
from sensprobe.errors import UsageError
from sensprobe.export.runtimes import Judge, require_family, target_named
from sensprobe.models import Model
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind, group_pattern


@dataclass(frozen=True)
class Limits:
    """What a target leaves of a search: sites at the one format they can have there, and groups of
    sites that share a scheme, each with what to call it."""

    judge: Judge
    freeze: Mapping[str, Scheme]
    groups: tuple[tuple[str, frozenset[str]], ...]

    def why_not(self, schemes: Mapping[str, Scheme]) -> dict[str, str]:
        """Site -> why its scheme is not expressed, of those in `schemes`.

        Nor is one offered whose codes take more there than they have bits: a budget would not hold.
        """
        reasons = self.judge.reasons(schemes)
        for tensor in self.judge.tensors:
            layout = None if tensor.sites[0] in reasons else self.judge.layout(tensor, schemes)
            if layout is not None and not layout.dense:
                why = f"{layout.name} keeps codes in a byte each"
                reasons |= dict.fromkeys((n for n in tensor.sites if n in schemes), why)
        return reasons

    def require(self, frozen: Mapping[str, Scheme]) -> None:
        """UsageError for what the user froze at a scheme that the target cannot express."""
        reasons = self.why_not({**self.freeze, **frozen})
        if lost := [name for name in reasons if name in frozen]:
            name, why = lost[0], reasons[lost[0]]
            raise UsageError(
                f"--freeze {name}={frozen[name]}: {why}. Leave it out, or search without --target."
            )

    def about(self) -> str:
        """What of a search the target settles, in a line."""
        formats = sorted({str(scheme.format) for scheme in self.freeze.values()})
        return (
            f"for {self.judge.target.name}, {len(self.freeze)} tensors stay in "
            f"{' or '.join(formats)} and {len(self.groups)} groups share a scheme each"
        )

    def no_option(self, decision: str, tried: Mapping[str, Mapping[str, str]]) -> UsageError:
        """The error for a decision none of whose profiled schemes the target can express."""
        target = self.judge.target
        reasons = {scheme: next(iter(why.values())) for scheme, why in tried.items()}
        listed = "; ".join(f"{scheme}: {why}" for scheme, why in reasons.items())
        again = " ".join(f"--scheme {scheme}" for scheme in target.examples)
        return UsageError(
            f"{target.name} can keep {decision} in none of the schemes profiled ({listed}). "
            f"Profile again with some it can, such as {again}."
        )


def limits_of(name: str, model: Model) -> Limits:
    """The limits of a target on a model; UsageError or UnsupportedError where there are none."""
    judge = Judge(target_named(name), model)
    require_family(judge.target, model)
    hf_document(model)
    freeze: dict[str, Scheme] = {}
    for site in model.sites.values():
        if site.kind is Kind.ACTIVATION:
            continue
        floats = judge.target.floats(site)
        weight = site.kind is Kind.WEIGHT
        quantized = weight and judge.target.quantizes(model.family, judge.holder[site.name])
        if len(floats) == 1 and not quantized:
            freeze[site.name] = parse(floats[0])
    groups = [(_ours(t.name), frozenset(t.sites)) for t in judge.tensors if len(t.sites) > 1]
    for part in judge.target.states:
        sites = [site for site in model.sites.values() if site.part is part]
        groups.append((group_pattern(sites[0]), frozenset(site.name for site in sites)))
    open_ = [(label, sites) for label, sites in groups if not sites <= freeze.keys()]
    return Limits(judge, freeze, tuple(open_))


def _ours(name: str) -> str:
    """A tensor's name without what transformers puts around ours."""
    return name.removeprefix("backbone.").replace(".mixer.", ".")
