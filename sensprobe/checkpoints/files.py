"""Reading weight files without executing code: safetensors, and torch's archives as plain data.

Every problem of the file itself becomes a CheckpointError that says what was asked and what to do.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sensprobe.checkpoints.headers import Header
from sensprobe.documents import DocumentError, json_of, shown
from sensprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

METADATA_KEY = "sensprobe"
ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt")
"""Files of which a checkpoint of orbax has at least one."""
ReadTensors = Callable[[Path], tuple[dict[str, Any], dict[str, Any]]]
"""`read_safetensors`, or `read_headers` where a description is asked for."""


def require_file(path: Path) -> None:
    """CheckpointError unless path is a file with something in it."""
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # a folder that cannot be entered, an impossible name
        raise CheckpointError(
            f"no checkpoint can be read at {shown(path, 300)}: {error}."
        ) from None
    if not there:
        folder = path.parent
        if not folder.is_dir():
            beside = " Neither does its folder exist."
        else:
            held = sorted(shown(p.name) for p in folder.iterdir())[:8]
            beside = f" That folder holds: {', '.join(held) or 'nothing'}."
        raise CheckpointError(f"no checkpoint at {path}.{beside}")
    if path.is_dir():
        if any((path / name).exists() for name in ORBAX):
            raise CheckpointError(
                f"{path} is a folder that orbax wrote, which is not read: restore it in JAX, and "
                "write `flax.serialization.to_bytes` of params and batch_stats to a .msgpack file."
            )
        raise CheckpointError(
            f"{path} is a folder without a sensprobe config.json; name a checkpoint file, a "
            "model.toml, or a folder that `sensprobe export`, mamba_ssm or transformers wrote."
        )
    if not path.is_file():
        raise CheckpointError(f"{path} is a pipe or a device; name a file.")
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path} is empty: copy the checkpoint again.")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the JSON this package keeps in the header (empty where there is none)."""
    return _read(path, "pt", lambda file, name: file.get_tensor(name))


def read_headers(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same with the header of every tensor in its place; torch is not imported."""

    def header(file: Any, name: str) -> Header:
        held = file.get_slice(name)
        return Header.of(held.get_shape(), held.get_dtype())

    return _read(path, "np", header)


def _read(
    path: Path, framework: str, value: Callable[[Any, str], Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    require_file(path)
    try:
        with safe_open(path, framework=framework) as file:
            metadata = file.metadata() or {}
            tensors = {name: value(file, name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}): it is truncated or damaged; "
            "copy it again."
        ) from None
    try:
        header = json_of(metadata.get(METADATA_KEY, "{}"), infinite=True)
    except DocumentError as error:
        raise CheckpointError(
            f"{path}: its {METADATA_KEY!r} header is not JSON ({error})."
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its {METADATA_KEY!r} header is not a JSON object.")
    return tensors, header


def read_torch(path: Path) -> dict[str, Any]:
    """The content of a file that torch.save wrote: tensors and plain containers only.

    A file that wants to import or call anything else is refused, not run.
    """
    import torch

    require_file(path)
    _require_archive(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged, and was not opened, because reading "
            f"it could run code ({_wanted(str(error))}). Save it again as a plain state_dict, or "
            "as safetensors."
        ) from None
    except Exception as error:  # the file decides what goes wrong in a reader of pickles
        reason = _first_line(str(error)) or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a torch checkpoint ({reason}): it is truncated, damaged or "
            "of another kind. Copy it again, or name a .safetensors file."
        ) from None
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__}, not a state_dict of tensors."
        )
    return dict(loaded)


def _require_archive(path: Path) -> None:
    """CheckpointError for what torch.save cannot have written: its files are zips or pickles."""
    try:
        with open(path, "rb") as file:
            start = file.read(24)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from None
    if not start.startswith((b"PK", b"\x80")):
        raise CheckpointError(
            f"{path} is not a torch checkpoint: it is neither a zip nor a pickle. A text file here "
            "is often a web page or a Git LFS pointer; download the file itself. Weights in "
            "safetensors need a name that ends in .safetensors."
        )


def _wanted(refusal: str) -> str:
    """The name that a pickle asked to import, taken from torch's error message."""
    if found := re.search(r"GLOBAL (\S+)", refusal):
        return f"it asks for {found[1]}"
    _, mark, detail = refusal.partition("WeightsUnpickler error: ")
    return _first_line(detail) if mark else "it is not a plain pickle"


def _first_line(text: str) -> str:
    line = shown((text.splitlines() or [""])[0], 200)
    return "" if "load key" in line else line  # pickle quotes the byte it stumbled over


def require_finite(tensors: Mapping[str, Tensor], source: Path) -> None:
    """CheckpointError naming the tensors that hold NaN or infinity."""
    import torch

    bad = {
        name: count
        for name, t in tensors.items()
        if t.is_floating_point() and (count := int((~torch.isfinite(t.double())).sum()))
    }
    if bad:
        listed = ", ".join(f"{name} ({count})" for name, count in list(bad.items())[:5])
        raise CheckpointError(
            f"{source}: {len(bad)} tensor(s) hold NaN or infinite values: {listed}. A model with "
            "such weights has no baseline to compare with; repair or retrain it."
        )
