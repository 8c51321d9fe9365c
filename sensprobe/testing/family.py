"""The suite that every model family passes, whatever is inside it.

    class TestMine(FamilyContract):
        pass

needs two fixtures in its file: `model`, and `x`, a batch of at least two sequences for it. The
family's record must be in `FAMILIES` while it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from sensprobe.errors import DataError
from sensprobe.models import FAMILIES, Model
from sensprobe.models.apply import Applier, observe
from sensprobe.numerics.storage import Carry, Custom, Storage
from sensprobe.numerics.taps import EXACT, Recording
from sensprobe.plans.cost import cost
from sensprobe.plans.plan import adapted
from sensprobe.plans.scheme import parse
from sensprobe.plans.sites import Kind, Part, Site, group_pattern, matching
from sensprobe.sensitivity.groups import groups_of


@dataclass
class Seen:
    """Notes every site the model passes or asks for, with the shape of what it passes."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        self.shapes[site.name] = tuple(x.shape)
        return EXACT(site, x)

    def storage(self, site: Site) -> Storage:
        self.asked.append(site.name)
        return None


@dataclass(frozen=True)
class Nudge:
    """Adds noise of its own to each element of one site: a common factor would die in a norm."""

    name: str
    size: float = 0.1

    def noisy(self, x: Tensor) -> Tensor:
        real = torch.view_as_real(x) if x.is_complex() else x
        generator = torch.Generator().manual_seed(1)
        real = real + self.size * torch.randn(real.shape, generator=generator, dtype=real.dtype)
        return torch.view_as_complex(real) if x.is_complex() else real

    def __call__(self, site: Site, x: Tensor) -> Tensor:
        return EXACT(site, self.noisy(x) if site.name == self.name else x)

    def storage(self, site: Site) -> Storage:
        return Custom(lambda state, step: self.noisy(state)) if site.name == self.name else None


def is_inside(site: Site) -> bool:
    """True for a site that an operation keeps or computes, and rounds by `tap.storage`."""
    return site.kind is Kind.STATE or site.part is Part.DECAY


class FamilyContract:
    """Sites, weights, products and streaming of a model agree with each other."""

    def test_the_record_is_among_the_families(self, model: Model) -> None:
        assert FAMILIES.get(model.family) is model.described, (
            f"no command knows {model.family!r}: put its record into FAMILIES of sensprobe.models"
        )

    def test_initial_parameters_have_the_declared_shapes_and_deploy(self, model: Model) -> None:
        record, config = model.described, model.config
        found = record.initial(config, (0.001, 0.1), 0)
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        assert shapes == record.parameter_shapes(config)
        weights = record.deploy(found, config)
        wanted = {n: s.shape for n, s in model.sites.items() if s.kind is Kind.WEIGHT}
        assert {name: tuple(value.shape) for name, value in weights.items()} == wanted

    def test_every_declared_site_is_reached_and_no_other(self, model: Model, x: Tensor) -> None:
        seen = Seen()
        model(x, seen)
        inside = [name for name, site in model.sites.items() if is_inside(site)]
        assert set(seen.shapes) == set(model.sites) - set(inside), "what passes through the tap"
        assert sorted(seen.asked) == sorted(inside), "what is asked for with tap.storage"

    def test_layers_are_declared_in_the_order_they_are_met(self, model: Model, x: Tensor) -> None:
        seen = Recording(lambda site, value: None)
        model(x, seen)
        for sites in (model.sites.values(), seen.seen.values()):
            inside = [site.layer for site in sites if site.layer is not None]
            assert inside == sorted(inside)

    def test_stepping_reaches_the_same_sites(self, model: Model, x: Tensor) -> None:
        seen = Seen()
        model.step(x[:, 0], model.start(len(x), seen), seen)
        assert set(seen.shapes) | set(seen.asked) == set(model.sites)

    def test_a_step_returns_a_carry_of_every_state(self, model: Model, x: Tensor) -> None:
        """In the order of the sites of a layer, as `Framed.mix` says."""
        wanted = model.start(len(x)).carries
        try:
            found = model.step(x[:, 0], model.start(len(x)))[1].carries
        except TypeError as error:
            pytest.fail(f"a mixer returns its outputs and a tuple of carries: {error}")
        for layer, (got, start) in enumerate(zip(found, wanted, strict=True)):
            told = f"layer {layer}: a mixer returns a tuple with a Carry of each state"
            assert isinstance(got, tuple), told
            assert all(isinstance(carry, Carry) for carry in got), told
            assert [c.state.shape for c in got] == [c.state.shape for c in start], told
            assert all(carry.step == 1 for carry in got), "store counts the steps of a carry"

    def test_shapes_are_the_declared_ones(self, model: Model, x: Tensor) -> None:
        seen = Seen()
        model(x, seen)
        for name, site in model.sites.items():
            if site.kind is Kind.WEIGHT:
                assert seen.shapes[name] == site.shape == tuple(model.weights[name].shape), name
                assert model.weights[name].is_complex() == site.is_complex
            if site.kind is Kind.ACTIVATION and not is_inside(site):
                shape = seen.shapes[name]
                assert shape in [(*x.shape[:2], *site.shape), (len(x), *site.shape)], name

    def test_what_operations_hold_is_shown_in_the_declared_shape(
        self, model: Model, x: Tensor
    ) -> None:
        """Some steps at a time, the step first."""
        shapes: dict[str, tuple[int, ...]] = {}

        def note(site: Site, value: Tensor) -> None:
            shapes.setdefault(site.name, tuple(value.shape))

        model(x, Recording(note))
        for name, site in model.sites.items():
            if is_inside(site):
                assert name in shapes, "its storage must reach the operation that keeps it"
                assert shapes[name][0] >= 1
                assert shapes[name][1:] == (len(x), *site.shape, *([2] if site.is_complex else []))

    def test_every_site_matters(self, model: Model, x: Tensor) -> None:
        truth = model(x)
        for name in model.sites:
            nudged = model(x, Nudge(name))
            assert not torch.equal(nudged, truth), f"{name} is dead: the output ignores it"
            assert nudged.isfinite().all()

    def test_a_nudge_of_nothing_changes_nothing(self, model: Model, x: Tensor) -> None:
        """The test above can fail: without noise every output is the same to the bit."""
        truth = model(x)
        for name, site in model.sites.items():
            if not is_inside(site):
                assert torch.equal(model(x, Nudge(name, 0.0)), truth)

    def test_sites_are_named_by_themselves(self, model: Model) -> None:
        for name, site in model.sites.items():
            assert site.name == name
            assert len(site.shape) == len(site.axes)
            assert site in matching(group_pattern(site), model.sites.values())

    def test_a_part_has_a_pattern_that_names_all_its_sites_and_no_other(self, model: Model) -> None:
        for target in groups_of(model.sites.values(), by="part"):
            assert tuple(matching(target.name, model.sites.values())) == target.sites, target.name
            assert {site.kind for site in target.sites} == {target.kind}

    def test_weights_are_the_weight_sites(self, model: Model) -> None:
        weights = {n for n, s in model.sites.items() if s.kind is Kind.WEIGHT}
        assert set(model.weights) == weights, "deploy returns the weights by the names of sites"

    def test_products_name_sites_and_cover_every_matrix(self, model: Model) -> None:
        named = set()
        for weight, operand, count in model.products:
            assert model.sites[weight].kind is not Kind.STATE
            assert operand is None or operand in model.sites
            assert count > 0
            named.add(weight)
        matrices = {
            n
            for n, s in model.sites.items()
            if s.kind is Kind.WEIGHT and len(s.shape) == 2 and s.part is not Part.EMBEDDING
        }
        assert matrices <= named, "products lack what these matrices multiply"

    def test_what_rounds_inside_an_operation_can_be_priced(self, model: Model) -> None:
        """Taylor sensitivity runs the operation again (`Framed.replays`, `recurrences`)."""
        known = {name for replay in model.replays for name in replay.names}
        known |= {name for r in model.recurrences for name in (r.state, r.A, r.B, r.C)}
        assert known <= set(model.sites)
        inside = {name for name, site in model.sites.items() if is_inside(site)}
        assert inside <= known, "each must be in the names of a replay, or in a recurrence"

    def test_products_follow_from_shapes(self, model: Model) -> None:
        """A real matrix multiplies once a value, a complex one two or four times; D each x."""
        for weight, operand, count in model.products:
            site = model.sites[weight]
            if site.kind is not Kind.WEIGHT:
                continue
            reads = site if operand is None else model.sites[operand]
            one = (reads if site.part is Part.D else site).reals
            two = reads.is_complex and operand is not None and site.part is Part.A
            wanted = 2 * one if two else one
            assert count == wanted, f"{weight}: {count} products a step, by its shape {wanted}"

    def test_full_precision_is_32_bits(self, model: Model) -> None:
        assert cost(model.sites.values(), {}, model.products).effective_bits == 32

    def test_outputs_do_not_depend_on_the_rest_of_the_batch(self, model: Model, x: Tensor) -> None:
        """Up to float32 rounding: the order of sums may depend on the size of the batch."""
        whole = model(x)
        size = whole.abs().max()
        for i in range(len(x)):
            alone = model(x[i : i + 1])
            assert (alone - whole[i : i + 1]).abs().max() <= 64 * 2.0**-24 * size

    def test_an_empty_batch_gives_no_outputs(self, model: Model, x: Tensor) -> None:
        assert model(x[:0]).shape == (0, *model(x).shape[1:])

    def test_a_call_leaves_nothing_behind(self, model: Model, x: Tensor) -> None:
        before = {n: w.clone() for n, w in model.weights.items()}
        first, kept = model(x), x.clone()
        assert torch.equal(model(x), first)
        assert torch.equal(x, kept)
        assert all(torch.equal(before[n], w) for n, w in model.weights.items())

    def test_an_unknown_mode_is_an_error(self, model: Model, x: Tensor) -> None:
        with pytest.raises(ValueError, match="mode 'sideways'"):
            model(x, EXACT, "sideways")

    @pytest.mark.parametrize("text", ["int8", "int6/asym/dynamic", "e4m3/dynamic/every3", "bf16"])
    def test_stepping_is_the_forward(self, model: Model, x: Tensor, text: str) -> None:
        """The carry holds everything that passes between steps, with the state rounded too."""
        states = [s for s in model.sites.values() if s.kind is Kind.STATE]
        plan = adapted([("*", parse(text))], states).resolve(model.sites.values())
        tap = Applier(model, observe(model, x)).tap(plan)
        for chosen in (EXACT, tap):
            want, carry = model(x, chosen), model.start(len(x), chosen)
            outputs = []
            for t in range(x.shape[1]):
                out, carry = model.step(x[:, t], carry, chosen)
                outputs.append(out)
            got = outputs[-1] if want.ndim == 2 else torch.stack(outputs, dim=1)
            # Sums over a batch of steps may run in another order than over one step, and a state
            # next to the middle of two codes may then take the other: one step of some.
            loose = 1e-6 if chosen is EXACT else 0.02
            assert (got - want).abs().max() <= loose * max(1.0, want.abs().max().item())

    def test_streaming_draws_the_noise_of_the_whole_sequence(self, model: Model, x: Tensor) -> None:
        """Stochastic rounding depends on the sequence and the step, not on how it was run."""
        moving = [s for s in model.sites.values() if s.kind is Kind.ACTIVATION]
        plan = adapted([("*", parse("int4/range3/stochastic5"))], moving).resolve(moving)
        tap = Applier(model).tap(plan)
        want, carry = model(x, tap), model.start(len(x), tap)
        outputs = []
        for t in range(x.shape[1]):
            out, carry = model.step(x[:, t], carry, tap)
            outputs.append(out)
        got = outputs[-1] if want.ndim == 2 else torch.stack(outputs, dim=1)
        off = (got - want).abs() > 0.02 * max(1.0, want.abs().max().item())
        assert off.float().mean() <= 0.1  # where sums in another order cross a threshold

    def test_the_radius_is_the_largest_of_the_layers(self, model: Model) -> None:
        layers = [model.layer_radius(i) for i in range(model.config.layers)]
        assert model.spectral_radius(EXACT) == max(layers)
        assert max(layers) > 0

    def test_the_radius_has_a_name_and_reads_sites_of_every_layer(self, model: Model) -> None:
        assert model.radius_name
        for i in range(model.config.layers):
            assert {f"layers.{i}.{name}" for name in model.radius_reads} <= set(model.sites)

    def test_a_state_of_another_batch_is_refused(self, model: Model, x: Tensor) -> None:
        for other in (model.start(len(x) + 1), None, ()):
            with pytest.raises(DataError, match="make one with start"):
                model.step(x[:, 0], other)
