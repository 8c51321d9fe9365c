"""Tensors as the header of a safetensors file describes them: shapes and types, without numbers.

A model is described (`describe`) from these as it is opened from tensors, by the same code: what
reads a file asks `is_tensor` and for `shape`, `ndim`, `dtype` and `is_floating_point`, which both
have. Nothing here imports torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

_TYPES = {
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "BF16": "bfloat16",
    "C64": "complex64",
}
_KINDS = {"F": "float", "I": "int", "U": "uint"}
Tensors = Mapping[str, Any]
"""Tensors of torch, or headers, by name."""


@dataclass(frozen=True, slots=True)
class Header:
    """One tensor of a file; `dtype` is the name torch gives it, as in "torch.float32"."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, shape: list[int], stored: str) -> Header:
        """The header of a tensor whose type has a name of safetensors ("F32")."""
        name = _TYPES.get(stored) or _KINDS.get(stored[:1], stored[:1]) + stored[1:].lower()
        return cls(tuple(shape), f"torch.{name}")

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def is_floating_point(self) -> bool:
        return "float" in self.dtype

    def is_complex(self) -> bool:
        return "complex" in self.dtype


def is_tensor(value: object) -> TypeGuard[Any]:
    """True for a tensor of torch and for the header of one."""
    torch = sys.modules.get("torch")
    return isinstance(value, Header) or (torch is not None and isinstance(value, torch.Tensor))


def is_dense(value: Any) -> bool:
    """True for a dense tensor on the CPU, and for the header of one."""
    if isinstance(value, Header):
        return True
    return str(value.layout) == "torch.strided" and bool(value.device.type == "cpu")


def bytes_a_value(dtype: str) -> int:
    """Bytes of one real number of a type, by its name in torch ("bfloat16")."""
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) // 8 if bits else 1
