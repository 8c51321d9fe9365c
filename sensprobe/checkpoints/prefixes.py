"""Prefixes that training leaves on the names of tensors.

    module.         data-parallel training          _orig_mod.   torch.compile
    model., net.    a Lightning module's attribute  base_model.  adapters

They are nested in any order (`_orig_mod.module.`). None is believed to be one by its name alone:
names without it are read where they fit the model, and where they do not, the error says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

WRAPPERS = (
    "module.",
    "_forward_module.",
    "model.",
    "base_model.",
    "net.",
    "network.",
    "online_model.",
)
INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Those that stand before the names of inner modules too."""
_MOST = 8
Names = dict[str, str]


def variants(names: Iterable[str]) -> Iterator[tuple[str, Names]]:
    """(prefix taken off, {name without it: name in the file}); first nothing, then ever more."""
    current = {name: name for name in names}
    yield "", current
    taken = ""
    for _ in range(_MOST):
        prefix, shorter = _shorter(current)
        if not prefix or len(shorter) < len(current):
            return  # two names would become one
        taken, current = taken + prefix, shorter
        yield taken, current


def _shorter(names: Names) -> tuple[str, Names]:
    """The next prefix, and the names without it: of those known the one most names have, else what
    all names begin with; "" where there is none."""
    for mark in INSIDE:
        if any(mark in name for name in names):
            return mark, {name.replace(mark, ""): theirs for name, theirs in names.items()}
    counts = {p: sum(name.startswith(p) for name in names) for p in WRAPPERS}
    prefix = max(counts, key=lambda p: counts[p])
    if not counts[prefix]:
        firsts = {name.partition(".")[0] for name in names if "." in name}
        whole = len(firsts) == 1 and all("." in name for name in names)
        prefix = f"{firsts.pop()}." if whole else ""
    return prefix, {name.removeprefix(prefix): theirs for name, theirs in names.items()}
