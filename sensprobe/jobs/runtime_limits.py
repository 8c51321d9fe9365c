"""The limits that a runtime sets a search.

Tensors that the runtime keeps in one format are frozen, those that share a scheme there are tied,
and schemes that it cannot express are not offered, so `sensprobe export --for` keeps the plan
whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sensprobe.checkpoints.to_hf import hf_document
from sensprobe.errors import UsageError
from sensprobe.export.runtimes import Judge, require_family, runtime_named
from sensprobe.models import Model
from sensprobe.plans.scheme import Scheme, parse
from sensprobe.plans.sites import Kind, group_pattern


@dataclass(frozen=True)
class Limits:
    """The limits of one runtime on one model.

    `freeze` has the sites that can have only one format there, `groups` the sets of sites that
    share a scheme, each with a name.
    """

    judge: Judge
    freeze: Mapping[str, Scheme]
    groups: tuple[tuple[str, frozenset[str]], ...]

    def why_not(self, schemes: Mapping[str, Scheme]) -> dict[str, str]:
        """Site -> the reason that the runtime cannot express its scheme, for the sites it cannot.

        A scheme whose codes take more bytes there than they have bits counts as well, because a
        budget would not hold.
        """
        reasons = self.judge.reasons(schemes)
        for tensor in self.judge.tensors:
            layout = None if tensor.sites[0] in reasons else self.judge.layout(tensor, schemes)
            if layout is not None and not layout.dense:
                why = f"{layout.name} keeps codes in a byte each"
                reasons |= dict.fromkeys((n for n in tensor.sites if n in schemes), why)
        return reasons

    def require(self, frozen: Mapping[str, Scheme]) -> None:
        """Raise UsageError if the user froze a site at a scheme that the runtime cannot express."""
        reasons = self.why_not({**self.freeze, **frozen})
        if lost := [name for name in reasons if name in frozen]:
            name, why = lost[0], reasons[lost[0]]
            raise UsageError(
                f"--freeze {name}={frozen[name]}: {why}. Leave it out, or search without --target."
            )

    def about(self) -> str:
        """A line that tells the user how many tensors are frozen and tied."""
        formats = sorted({str(scheme.format) for scheme in self.freeze.values()})
        return (
            f"for {self.judge.runtime.name}, {len(self.freeze)} tensors stay in "
            f"{' or '.join(formats)} and {len(self.groups)} groups share a scheme each"
        )

    def no_option(self, decision: str, tried: Mapping[str, Mapping[str, str]]) -> UsageError:
        """The error for a decision of which the runtime can express no profiled scheme."""
        target = self.judge.runtime
        reasons = {scheme: next(iter(why.values())) for scheme, why in tried.items()}
        listed = "; ".join(f"{scheme}: {why}" for scheme, why in reasons.items())
        again = " ".join(f"--scheme {scheme}" for scheme in target.examples)
        return UsageError(
            f"{target.name} can keep {decision} in none of the schemes profiled ({listed}). "
            f"Profile again with some it can, such as {again}."
        )


def limits_of(name: str, model: Model) -> Limits:
    """The limits that a runtime sets for a model.

    Raises UsageError for a runtime there is not, UnsupportedError for a model it cannot serve.
    """
    judge = Judge(runtime_named(name), model)
    require_family(judge.runtime, model)
    hf_document(model)
    freeze: dict[str, Scheme] = {}
    for site in model.sites.values():
        if site.kind is Kind.ACTIVATION:
            continue
        floats = judge.runtime.floats(site)
        weight = site.kind is Kind.WEIGHT
        quantized = weight and judge.runtime.quantizes(model.family, judge.holder[site.name])
        if len(floats) == 1 and not quantized:
            freeze[site.name] = parse(floats[0])
    groups = [(_ours(t.name), frozenset(t.sites)) for t in judge.tensors if len(t.sites) > 1]
    for part in judge.runtime.states:
        sites = [site for site in model.sites.values() if site.part is part]
        groups.append((group_pattern(sites[0]), frozenset(site.name for site in sites)))
    open_ = [(label, sites) for label, sites in groups if not sites <= freeze.keys()]
    return Limits(judge, freeze, tuple(open_))


def _ours(name: str) -> str:
    """A tensor's name without the prefixes that transformers adds to ours."""
    return name.removeprefix("backbone.").replace(".mixer.", ".")
