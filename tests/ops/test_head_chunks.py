"""The chunked form against the recurrence it rearranges."""

from __future__ import annotations

import pytest
import torch
from scans import MAMBA2, kept, problem, sites
from selective import MAMBA2S, inputs, tiny

from sensprobe.errors import UnsupportedError
from sensprobe.models.apply import Applier
from sensprobe.numerics.storage import Carry
from sensprobe.ops.head_chunks import CHUNK, head_chunks
from sensprobe.ops.head_scan import reference as head_scan
from sensprobe.plans.scheme import parse

NEAR = 3e-6  # of the largest output: sums of a chunk's length in another order, in float32


def assert_near(got: tuple[torch.Tensor, Carry], wanted: tuple[torch.Tensor, Carry]) -> None:
    (y, memory), (y_wanted, memory_wanted) = got, wanted
    assert memory.step == memory_wanted.step
    for a, b in ((y, y_wanted), (memory.state, memory_wanted.state)):
        torch.testing.assert_close(a, b, rtol=0, atol=NEAR * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("length", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
@pytest.mark.parametrize("groups", [1, 3])
def test_an_exact_state_gives_what_the_recurrence_gives(length: int, groups: int) -> None:
    p = problem(MAMBA2, 2, length, 6, 5, groups, 7)
    assert_near(head_chunks(*p), head_scan(*p))


def test_no_steps_give_nothing() -> None:
    p = problem(MAMBA2, 2, 0, 4, 3, 2, 5)
    y, memory = head_chunks(*p)
    assert y.shape == (2, 0, 4, 3)
    assert not memory.state.any()


def test_it_goes_on_where_it_was() -> None:
    p = problem(MAMBA2, 1, 150, 2, 3, 1, 4)
    whole = head_chunks(*p)
    x, dt, A, B, C = p
    first, memory = head_chunks(x[:, :37], dt[:, :37], A, B[:, :37], C[:, :37])
    rest, memory = head_chunks(x[:, 37:], dt[:, 37:], A, B[:, 37:], C[:, 37:], None, None, memory)
    assert_near((torch.cat([first, rest], dim=1), memory), whole)


@pytest.mark.parametrize(
    "scheme", ["bf16/every16", "int8/head/every32", "int8/head/clip0.4/every8"]
)
def test_a_state_rounded_where_chunks_end_is_rounded_there(scheme: str) -> None:
    """Its last step reads what memory gives back. Codes flip where a sum's last bit decides, so
    a few states differ by one step of their scale; the rest agrees."""
    p = problem(MAMBA2, 2, 75, 4, 5, 2, 6)
    storage = kept(scheme, sites(MAMBA2, p)[0], 2.0)
    (y, memory), (y_wanted, wanted) = head_chunks(*p, None, storage), head_scan(*p, None, storage)
    exact, _ = head_scan(*p)
    assert memory.step == wanted.step
    off = (y - y_wanted).abs() > NEAR * y_wanted.abs().max()
    assert off.float().mean() < 0.02
    assert (y - y_wanted).abs().mean() < 0.02 * (exact - y_wanted).abs().mean()


@pytest.mark.parametrize(
    ("decay", "state", "says"),
    [("int8", None, "exact decays"), (None, "int8/head", "stays exact"), ("bf16", "bf16", "decay")],
)
def test_what_chunks_would_get_wrong_is_refused(
    decay: str | None, state: str | None, says: str
) -> None:
    p = problem(MAMBA2, 1, 5, 2, 3, 1, 4)
    of_state, of_decay = sites(MAMBA2, p)
    with pytest.raises(UnsupportedError, match=says):
        head_chunks(*p, kept(decay, of_decay, 0.7), kept(state, of_state, 2.0))


@pytest.mark.parametrize("name", MAMBA2S)
def test_a_model_in_chunks_gives_what_it_gives_step_by_step(name: str) -> None:
    model = tiny(MAMBA2S[name])
    x = inputs(model.config)
    wanted = model(x)
    torch.testing.assert_close(
        model(x, mode="chunked"), wanted, rtol=0, atol=1e-5 * wanted.abs().max().item()
    )
    tap = Applier(model).tap({"layers.0.state": parse("int8/head/dynamic")})
    with pytest.raises(UnsupportedError, match="stays exact"):
        model(x, tap, mode="chunked")
