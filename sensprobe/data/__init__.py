"""Real data, from files or the user's own code, cut into splits that share no sample.

    digits                    scikit-learn's handwritten digits, on every machine
    mnist:FOLDER              the four MNIST IDX files, packed with gzip or not
    cifar10:FOLDER            CIFAR-10 in its binary files or as JPEGs, gray or in colour
    spoken-digits:PATH        recordings of spoken digits, read sample by sample
    keywords:FILE             features of spoken keywords, split by speaker
    listops                   operations on lists of digits, as tokens, drawn by a generator
    mackey-glass, lorenz      chaotic systems, to be predicted some steps ahead at every step
    npz:FILE                  arrays x, y, optionally split and group
    python:FILE.py:FUNCTION   the user's own code, which returns such arrays; run only when named
    text:PATH                 text for language models: a file, a folder or a tar of .txt
    pydoc                     text that Python ships, on every machine

Every error is a `DataError` (the data is at fault) or a `UsageError` (the request is).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from sensprobe.data import (
    arrays,
    cifar10,
    digits,
    dynamics,
    keywords,
    listops,
    mnist,
    pydoc_topics,
    spoken_digits,
    text,
)
from sensprobe.data.dataset import (
    SPLIT_NAMES,
    Dataset,
    Split,
    Splits,
    Task,
    check_fits,
)
from sensprobe.data.options import split_options
from sensprobe.data.pydoc_topics import training_text as pydoc_training_text
from sensprobe.data.sampling import (
    Reordered,
    beginning,
    check_limit,
    is_ordered,
    missing_classes,
    reordered,
)
from sensprobe.data.text import documents_of
from sensprobe.data.tokens import ByteTokenizer, FileTokenizer, Tokenizer, readable, require_fit
from sensprobe.data.user import UserFunction, load_function
from sensprobe.documents.files import named_path
from sensprobe.errors import UsageError
from sensprobe.usercode.trust import Gate, Named

__all__ = [
    "BYTES",
    "SAMPLES",
    "SPLIT_NAMES",
    "ByteTokenizer",
    "Dataset",
    "FileTokenizer",
    "Reordered",
    "Split",
    "Splits",
    "Task",
    "Tokenizer",
    "UserFunction",
    "beginning",
    "check_fits",
    "check_limit",
    "documents_of",
    "is_ordered",
    "kind_of",
    "load_data",
    "load_function",
    "missing_classes",
    "pydoc_training_text",
    "readable",
    "reads_text",
    "reordered",
    "require_fit",
    "split_options",
]

FORMS = (
    "digits, mnist:FOLDER, cifar10:FOLDER, spoken-digits:PATH, keywords:FILE, listops, "
    "mackey-glass, lorenz, npz:FILE, python:FILE.py:FUNCTION, text:PATH, pydoc"
)
BYTES = ByteTokenizer()


def load_data(
    spec: str, *, seed: int = 0, tokenizer: Tokenizer = BYTES, gate: Gate | None = None
) -> Dataset:
    """The data `spec` names; `seed` shuffles data that comes without splits of its own.

    `gate` is asked before code of `python:` runs; without a gate the code counts as named by the
    caller, and runs. Text is read with `tokenizer`, which is the model's. The splits are disjoint.
    Splits that are costly to read are read on first access.
    """
    if not 0 <= seed < 2**63:
        raise UsageError(f"--data-seed {seed}: give a whole number from 0 on.")
    kind, colon, rest = spec.partition(":")
    if kind == "digits" and not colon:
        return digits.load()
    if (generated := GENERATED.get(spec.partition(",")[0])) is not None:
        return generated(spec)
    if spec.partition(",")[0] == pydoc_topics.NAME:
        return pydoc_topics.load(spec, tokenizer)
    if kind not in (*TASKS, *READERS, TEXT):
        raise UsageError(_unknown(spec, kind))
    if not rest:
        raise UsageError(f"data {spec!r} names nothing after {kind}:; the forms are {FORMS}")
    if kind in TASKS:
        return TASKS[kind](rest, spec)
    if kind in READERS:
        return READERS[kind](spec, rest, seed, gate or Named())
    return text.load(spec, rest, seed, tokenizer)


def kind_of(spec: str) -> str:
    """The kind of data that a spec names, which stands before its colon or its options."""
    return spec.partition(":")[0].partition(",")[0]


def reads_text(spec: str) -> bool:
    """True if the data of a spec is text, which needs a tokenizer."""
    return spec.partition(":")[0] == TEXT or spec.partition(",")[0] == pydoc_topics.NAME


def _npz(spec: str, rest: str, seed: int, gate: Gate) -> Dataset:
    return arrays.load_npz(named_path(rest), spec, seed)


def _python(spec: str, rest: str, seed: int, gate: Gate) -> Dataset:
    function = load_function(spec, gate)
    found = function()
    gate.ran(function.code, function.function_name)
    return arrays.from_mapping(found, spec, seed)


TEXT = "text"
READERS: dict[str, Callable[[str, str, int, Gate], Dataset]] = {
    "npz": _npz,
    "python": _python,
}
TASKS: dict[str, Callable[[str, str], Dataset]] = {
    "mnist": mnist.load,
    "cifar10": cifar10.load,
    "spoken-digits": spoken_digits.load,
    "keywords": keywords.load,
}
"""Readers of files that come with splits of their own: what follows the colon, and the spec."""
GENERATED: dict[str, Callable[[str], Dataset]] = {
    listops.NAME: listops.load,
    **dict.fromkeys(dynamics.SYSTEMS, dynamics.load),
}
SAMPLES = ("digits", *TASKS, *GENERATED, *READERS)
"""The kinds of data that are samples, each with a target of its own."""
KINDS = (*SAMPLES, TEXT, pydoc_topics.NAME)


def _unknown(spec: str, kind: str) -> str:
    if Path(spec).suffix == ".npz":
        hint = f"did you mean npz:{spec}? "
    elif spec and Path(spec).is_dir():
        hint = f"did you mean mnist:{spec} or text:{spec}? "
    elif spec and Path(spec).is_file():
        hint = f"did you mean text:{spec}? "
    else:
        near = difflib.get_close_matches(kind_of(spec), KINDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown data {spec!r}; {hint}The forms are {FORMS}"
