"""sensprobe: which tensors of a state space model can live in how few bits, found and proven.

    import sensprobe
    model = sensprobe.load("s4d-digits", plan={"layers.*.A": "int8/head/asym"})
    logits = model(x)

Importing this package imports no torch: what is named here is loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sensprobe.session.load import load
    from sensprobe.session.loaded import LoadedModel

__version__ = "0.2.0"

__all__ = ["LoadedModel", "__version__", "load"]

_HOME = {"LoadedModel": "sensprobe.session.loaded", "load": "sensprobe.session.load"}
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
