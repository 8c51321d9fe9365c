"""Checkpoints of S5: those of lindermanlab/S5, and of PyTorch modules that name their parts so.

    encoder.encoder.kernel, .bias           (d_input, h), (h,)
    encoder.layers_{i}.seq.Lambda_re, Lambda_im, B, C, D, log_step
                                            (n,), (n,), (n, h, 2), (h, n, 2), (h,), (n, 1)
                                            C1 and C2, or C of twice the width, of both directions
    encoder.layers_{i}.norm.scale, .bias    and of a batch norm mean and var, in `batch_stats`
    encoder.layers_{i}.out1, out2           Dense: both of a full gate, out2 alone of a half one
    decoder.kernel, .bias                   (h, d_output), (d_output,)

Files are flax's msgpack (of a TrainState, of variables, or of params alone), .npz and .safetensors
with names joined by "/" or ".", and what torch.save made of a state_dict. A PyTorch port may write
`layers.{i}`, `weight` for `kernel` (transposed) and `scale`, `running_mean`, `running_var`, and a
complex number where there are pairs (`Lambda`, B, C); what stands before the names is found.

What no file says comes from `options`, the fields of S5Config in `s5_parts.OPTIONS`; without them
it is what lindermanlab/S5's run_train.py has without arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sensprobe.checkpoints import s5_parts
from sensprobe.checkpoints.arrays import Array, read_npz
from sensprobe.checkpoints.entries import note
from sensprobe.checkpoints.fit import family_hint, require_shapes
from sensprobe.checkpoints.headers import Header, is_tensor
from sensprobe.checkpoints.keymap import Rule
from sensprobe.checkpoints.msgpack import begins_map, read_msgpack
from sensprobe.checkpoints.own import Parameters, parameter_shapes, require_layers
from sensprobe.documents import shown
from sensprobe.errors import CheckpointError

SUFFIXES = (".npz", ".msgpack")
_MODES = re.compile(r"(?:.*\.)?Lambda(?:_re)?")
_LAYER = re.compile(r"(?P<before>(?:.*?\.)??)(?:encoder\.)?layers[._]\d+\.seq\.Lambda(?:_re)?")
_OPTIMIZER = re.compile(r"(?:.*\.)?opt[^.]*\.")
_REAL = {"torch.complex64": "torch.float32", "torch.complex128": "torch.float64"}
_DEPTH = 12
"""The most tables that a tensor may stand in, one inside the other; deeper ones are not read."""
Flat = dict[str, Any]
"""Values by their dotted names."""


def only_here(path: Path) -> bool:
    """True for a file of a format that nothing else here reads."""
    if path.suffix in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return begins_map(file.read(16))
    except OSError:
        return False


def has_layers(loaded: Mapping[Any, Any]) -> bool:
    """True for tensors with the names of an S5 layer among them."""
    return any(_MODES.fullmatch(name) for name, _ in _walked(loaded))


def load(path: Path) -> Mapping[str, Any]:
    """The content of a file of such a format, whose arrays are `Array`s."""
    return read_npz(path) if path.suffix == ".npz" else read_msgpack(path)


def read(
    loaded: Mapping[Any, Any],
    path: Path,
    options: Mapping[str, Any],
    entry: str | None = None,
    rules: Sequence[Rule] = (),
    headers: bool = False,
) -> Parameters:
    """The parameters in what a file holds.

    `options` are fields of the config that the file does not say (`s5_parts.ASSUMED`). `entry` is
    what stands before the model's names ("params"), where several models are there. `rules` give
    the names of another port the form above. `headers` asks for a description: no `Array` becomes
    a tensor. CheckpointError names what is missing, left over or of another shape; UsageError names
    a field of the config that means nothing.
    """
    flat = _flat(loaded, path)
    called = _model_names(_renamed(flat, rules, path), entry, path)
    held = {name: _value(flat[theirs], headers) for name, theirs in called.items()}
    held = {name: value for name, value in held.items() if _is_weight(value)}
    whole = any(_OPTIMIZER.match(name) for name in flat)
    config, assumed = s5_parts.config_of(held, options, whole, path)
    require_layers(config, held, path)
    parts = s5_parts.parts(config, held)
    wanted = {name: shape for part in parts.values() for name, shape in part.reads.items()}
    require_shapes(held, wanted, path, "S5", called)
    shapes = parameter_shapes(config)
    params = {ours: _made(part, held, shapes[ours]) for ours, part in parts.items()}
    _say(config, assumed, params, path)
    return Parameters(params, config, path, {})


def _say(config: Any, assumed: Mapping[str, Any], params: Mapping[str, Any], path: Path) -> None:
    """A note on what was assumed of the model."""
    if assumed:
        said = ", ".join(f"{name} = {_toml(value)}" for name, value in assumed.items())
        note(
            f"{path} does not say everything about its model. It is read with {said}; a model.toml "
            'with format = "s5" and [config] says otherwise.'
        )
    imag = params["layers.0.A_imag"]
    if "conjugate" not in assumed or not config.conjugate or isinstance(imag, Header):
        return
    if 4 * min(int((imag > 0).sum()), int((imag < 0).sum())) > config.d_state:
        note(
            f"{path} has eigenvalues of either sign of the imaginary part, as a model without "
            "conjugate symmetry has them (conj_sym): config.conjugate = false may be right."
        )


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _value(value: Any, headers: bool) -> Any:
    if isinstance(value, Array):
        return value.header if headers else value.tensor()
    return value


def _is_weight(value: Any) -> bool:
    """True for what a model computes with; counters and scalars of training are none."""
    return is_tensor(value) and value.ndim > 0 and (value.is_floating_point() or value.is_complex())


def _made(part: s5_parts.Part, held: Flat, shape: tuple[int, ...]) -> Any:
    """A parameter, or its header where there are headers."""
    read = [held[name] for name in part.reads]
    if isinstance(read[0], Header):
        return Header(shape, _REAL.get(read[0].dtype, read[0].dtype))
    return part.make(*read).contiguous()


# -- names ----------------------------------------------------------------------------------------


def _walked(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Values with the names that lead to them, "." between those; a table that stands in several
    places, perhaps in itself, by the first of them."""
    seen: set[int] = set()

    def walk(table: Mapping[Any, Any], before: str, depth: int) -> Iterator[tuple[str, Any]]:
        seen.add(id(table))
        for name, value in table.items():
            full = before + str(name).replace("/", ".")
            if not isinstance(value, Mapping):
                yield full, value
            elif depth < _DEPTH and id(value) not in seen:
                yield from walk(value, f"{full}.", depth + 1)

    return walk(loaded, "", 0)


def _flat(loaded: Mapping[Any, Any], path: Path) -> Flat:
    """`_walked` as a table; CheckpointError for a name that two values have."""
    out: Flat = {}
    for name, value in _walked(loaded):
        if name in out:
            raise CheckpointError(
                f"{path} has two values called {shown(name)}, with / and . between the names: "
                "take one away."
            )
        out[name] = value
    return out


def _renamed(flat: Flat, rules: Sequence[Rule], path: Path) -> dict[str, str]:
    """Name by the rules -> name in the file; what is mapped to "" is left out."""
    out: dict[str, str] = {}
    used: set[Rule] = set()
    for theirs in flat:
        fits = ((rule, rule.renamed(theirs)) for rule in rules)
        rule, name = next(((r, n) for r, n in fits if n is not None), (None, theirs))
        used |= {rule} if rule else set()
        if name in out and name:
            raise CheckpointError(
                f"{path}: {shown(out[name])} and {shown(theirs)} both become {shown(name)}; change "
                "the keys."
            )
        out[name] = theirs
    if idle := [rule.theirs for rule in rules if rule not in used]:
        raise CheckpointError(f"{path}: keys that fit no tensor: {', '.join(idle[:6])}.")
    out.pop("", None)
    return out


def _model_names(names: Mapping[str, str], entry: str | None, path: Path) -> dict[str, str]:
    """The names of one model without what stands before them -> names in the file."""
    names = {name: theirs for name, theirs in names.items() if not _OPTIMIZER.match(name)}
    models = sorted({found["before"] for name in names if (found := _LAYER.fullmatch(name))})
    before = f"{entry}." if entry else ""
    if entry is None and len(models) == 1:
        before = models[0]
    if before not in models:
        _refuse(names, models, entry, path)
    stats = re.sub(r"(^|\.)params\.", r"\1batch_stats.", before)  # flax keeps them beside params
    stats = f"{before}batch_stats." if stats == before else stats
    out: dict[str, str] = {}
    for name, theirs in names.items():
        start = stats if name.startswith(stats) else before
        if name.startswith(start):
            short = re.sub(r"^encoder\.(?=encoder\.|layers[._]\d)", "", name.removeprefix(start))
            short = re.sub(r"^layers_(\d+)\.", r"layers.\1.", short)
            if short in out:
                raise CheckpointError(
                    f"{path}: {shown(out[short])} and {shown(theirs)} are both {shown(short)}."
                )
            out[short] = theirs
    return out


def _refuse(names: Mapping[str, str], models: Sequence[str], entry: str | None, path: Path) -> None:
    """The CheckpointError for a file without the one model that is asked for."""
    if models:
        listed = ", ".join(repr(before.rstrip(".")) for before in models)
        which = f"no entry {entry!r}" if entry is not None else "several entries"
        raise CheckpointError(
            f"{path} has {which} of an S5 model: {shown(listed, 200)}. Say which in a model.toml: "
            f'entry = "{shown(models[0].rstrip("."))}".'
        )
    held = shown(", ".join(list(names)[:6]), 300) or "nothing"
    if any("ff_enc." in name for name in names):
        raise CheckpointError(
            f"{path} holds an S5Block of s5-pytorch, whose feed-forward part this family does not "
            f"have: {held}."
        )
    if lone := next((name for name in names if _MODES.fullmatch(name)), None):
        raise CheckpointError(
            f"{path} holds S5 layers alone ({shown(lone)}), not a model: needed are an encoder, "
            "layers with norms and a decoder, called encoder, layers.{i}.seq, layers.{i}.norm and "
            f"decoder. It holds {held}. If they have other names, map them in the [keys] of a "
            'model.toml with format = "s5".'
        )
    raise CheckpointError(
        f"{path} holds no S5 model, the only one read from such files: no "
        f"layers_{{i}}/seq/Lambda_re is there. It holds {held}. {family_hint(names)}".rstrip()
    )
