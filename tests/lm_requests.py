"""Models as lm-eval sees them, and what it asks."""

from __future__ import annotations

from typing import Any

from sensprobe.data import BYTES
from sensprobe.numerics.taps import EXACT


def harness(model: Any, tap: Any = EXACT, tokenizer: Any = BYTES, batch: int = 8) -> Any:
    from sensprobe.evaluate.lm_harness.model import HarnessModel

    return HarnessModel(model, tap, tokenizer, "tiny", batch)


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=a, idx=i)  # type: ignore[arg-type]
        for i, a in enumerate(arguments)
    ]
