"""Exports for other runtimes: what each can express, and a folder that it loads.

    profile.py              what a runtime can express, as data; why it cannot express a scheme
    fit.py                  a plan put on a target: what is kept, what becomes of the rest
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
from sensprobe.export.runtimes.profile import Judge, Target
from sensprobe.export.runtimes.write import Written, write_for

__all__ = [
    "TARGETS",
    "Change",
    "Fit",
    "Judge",
    "Target",
    "Written",
    "fit",
    "grouped",
    "require_family",
    "target_named",
    "write_for",
]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        compressed_tensors.TARGET,
        compressed_tensors.VLLM,
        modelopt.TARGET,
        torchao.TARGET,
        llama_cpp.TARGET,
    )
}
"""Every target by name."""


def target_named(name: str) -> Target:
    """The target of a name; UsageError lists those there are."""
    if name not in TARGETS:
        known = "; ".join(f"{target.name}, {target.about}" for target in TARGETS.values())
        raise UsageError(f"no target {name!r}. There are: {known}.")
    return TARGETS[name]
