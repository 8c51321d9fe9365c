"""Checkpoints of state-spaces/s4's `example.py`: `{"model": state_dict, "acc": …, "epoch": …}`.

Its S4D layers store log_dt, log_A_real, A_imag and C; B is 1 and the kernel is ZOH. Whether
LayerNorm stands before the SSM or after the residual is not in the file: the reader takes it
from the caller. A wrong guess shows in the accuracy, which the file records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sensprobe.checkpoints.entries import entries, listed, state_of
from sensprobe.checkpoints.files import read_torch
from sensprobe.checkpoints.fit import family_hint
from sensprobe.checkpoints.headers import is_tensor
from sensprobe.checkpoints.keymap import fitted
from sensprobe.checkpoints.own import Parameters, parameter_shapes
from sensprobe.checkpoints.prefixes import variants
from sensprobe.errors import CheckpointError
from sensprobe.models import layouts, output_head
from sensprobe.models.layouts import Layout


def read(
    path: Path, norm: str = "post", entry: str | None = None, head: Any = output_head.DEFAULT
) -> Parameters:
    """The parameters; `recorded` in the header has accuracy (a fraction) and epoch, if there.

    `entry` names the state_dict to read, where the file holds several (see `entries`). `head` says
    what the decoder is where it is not one linear map (see `models.output_head`).
    """
    return found_in(read_torch(path), path, norm, entry, head)


def found_in(
    loaded: Mapping[str, Any],
    path: Path,
    norm: str = "post",
    entry: str | None = None,
    head: Any = output_head.DEFAULT,
) -> Parameters:
    """The parameters in the content of a file that is read already."""
    import torch

    state = _state_dict(loaded, path, entry)
    config = _config(state, norm, head, path)
    names = _names(config)
    shapes = parameter_shapes(config)
    wanted = {theirs: shapes[ours] for theirs, ours in names.items()}
    convolutions = [theirs for theirs in wanted if theirs.endswith("output_linear.0.weight")]
    wanted |= {name: (*wanted[name], 1) for name in convolutions}
    state = fitted(state, [], wanted, path, layout().kind)
    params = {ours: state[theirs].reshape(shapes[ours]) for theirs, ours in names.items()}
    for i in range(config.layers):
        ones = torch.ones(config.d_model, config.d_state, dtype=torch.complex128)
        params[f"layers.{i}.B"] = torch.view_as_real(ones)
    return Parameters(params, config, path, {"recorded": _recorded(loaded)})


def _state_dict(loaded: Mapping[str, Any], path: Path, entry: str | None) -> dict[str, Any]:
    """The entries of the file's state_dict, by their names without a prefix of training's."""
    inside = loaded.get("model")
    if not (inside is None or isinstance(inside, Mapping) or is_tensor(inside)):
        raise CheckpointError(
            f"{path}: `model` is of type {type(inside).__name__}, not a state_dict."
        )
    state = state_of(loaded, path, entry, _layered)
    for _, names in variants(state):
        if any(name.startswith("s4_layers.") for name in names):
            return {name: state[theirs] for name, theirs in names.items()}
    if _layered(state):
        first = next(name for name in state if "s4_layers." in name)
        raise CheckpointError(
            f"{path}: its names are those of state-spaces/s4 example.py behind a prefix that not "
            f"all of them have ({first}). Save them without it."
        )
    raise CheckpointError(
        f"{path} is not a checkpoint of state-spaces/s4 example.py: it has no s4_layers. It holds "
        f"{listed(entries(loaded)) if entries(loaded) else ', '.join(list(state)[:5])}. "
        f"{family_hint(state)}Describe another kind of file in a model.toml."
    )


def _layered(state: Mapping[str, Any]) -> bool:
    return any("s4_layers." in name for name in state)


def _config(state: Mapping[str, Any], norm: str, head: Any, path: Path) -> Any:
    """The sizes, from the shapes of three tensors."""
    decoder = {n: getattr(t, "shape", ()) for n, t in state.items() if n.startswith("decoder.")}
    matrices = [name for name, shape in decoder.items() if len(shape) == 2]
    last = "decoder.weight" if head == output_head.DEFAULT or not matrices else matrices[-1]
    layers = len({m[1] for name in state if (m := re.match(r"s4_layers\.(\d+)\.", name))})
    sizes = []
    for name, axes in (
        ("s4_layers.0.kernel.log_A_real", "heads, pairs"),
        ("encoder.weight", "heads, inputs"),
        (last, "outputs, heads"),
    ):
        shape = tuple(getattr(state[name], "shape", ())) if name in state else "missing"
        if not isinstance(shape, tuple) or len(shape) != 2 or 0 in shape:
            raise CheckpointError(
                f"{path}: {name} must have shape ({axes}); it is {shape}. This reads S4D layers."
            )
        sizes.append(shape)
    (h, n), (_, d_input), (d_output, _) = sizes
    around = {
        "d_input": d_input,
        "d_output": d_output,
        "d_model": h,
        "d_state": n,
        "layers": layers,
        "norm": norm,
        "head": head,
    }
    return layout().read(around, {})


def _names(config: Any) -> dict[str, str]:
    """Their name of each tensor -> ours; norms where the config has them."""
    names: dict[str, str] = {}
    for theirs, ours in layout().names.items():
        count = config.layers if "{i}" in theirs else 1
        if config.norm != "none" or not theirs.startswith("norms."):
            names |= {theirs.format(i=i): ours.format(i=i) for i in range(count)}
    for ours in output_head.parameter_shapes(config):
        names["decoder" + ours.removeprefix("head")] = ours
    return names


def layout() -> Layout:
    """The one kind of model that these files hold; its `kind` is the name of our family."""
    return next(iter(layouts("s4").values()))


def _recorded(loaded: Mapping[str, Any]) -> dict[str, float]:
    """The epoch and the accuracy (a fraction) that the file records, if any."""
    recorded: dict[str, float] = {}
    if isinstance(epoch := loaded.get("epoch"), int):
        recorded["epoch"] = epoch
    if isinstance(percent := loaded.get("acc"), float | int) and 0 <= percent <= 100:
        recorded["accuracy"] = percent / 100
    return recorded
