"""Exports for other runtimes: what each can express, and a folder that it loads.

    profile.py              what a runtime can express, as data; why it cannot express a scheme
    fit.py                  a plan put on a runtime: what is kept, what becomes of the rest
    codes.py                codes and scales of a tensor that joins several sites
    compressed_tensors.py   also what vLLM serves of it
    modelopt.py  torchao.py  llama_cpp.py
    emit.py  card.py  write.py              the folder, and how it is loaded

None of the runtimes' packages is needed to write for them.
"""

from __future__ import annotations

from sensprobe.errors import UsageError
from sensprobe.export.runtimes import compressed_tensors, llama_cpp, modelopt, torchao
from sensprobe.export.runtimes.fit import Change, Fit, fit, grouped, require_family
from sensprobe.export.runtimes.profile import Judge, Runtime
from sensprobe.export.runtimes.write import Written, write_for

__all__ = [
    "RUNTIMES",
    "Change",
    "Fit",
    "Judge",
    "Runtime",
    "Written",
    "fit",
    "grouped",
    "require_family",
    "runtime_named",
    "write_for",
]

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        compressed_tensors.RUNTIME,
        compressed_tensors.VLLM,
        modelopt.RUNTIME,
        torchao.RUNTIME,
        llama_cpp.RUNTIME,
    )
}
"""Every runtime by name."""


def runtime_named(name: str) -> Runtime:
    """The runtime of a name; UsageError lists those there are."""
    if name not in RUNTIMES:
        known = "; ".join(f"{runtime.name}, {runtime.about}" for runtime in RUNTIMES.values())
        raise UsageError(
            f"no runtime {name!r}. There are: {known}. An export may also be for crossbar."
        )
    return RUNTIMES[name]
