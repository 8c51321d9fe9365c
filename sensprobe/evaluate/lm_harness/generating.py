"""Greedy continuations of prompts, one token at a time from the streaming state.

Prompts of one length are read together and their sequences stepped together; one that has stopped
leaves the batch. So nothing is padded, and no prompt is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from sensprobe.data import Tokenizer
from sensprobe.evaluate.lm_harness.scoring import MOST, TOGETHER, blocks
from sensprobe.models import Model
from sensprobe.models.forward import StreamState, chosen, run
from sensprobe.numerics.taps import RoundingTap, Tap


@dataclass(slots=True)
class Prompt:
    """Tokens (n,) int32, at least one, and when to stop: at any of these texts, which are left
    out, or after `most` tokens."""

    tokens: np.ndarray
    until: tuple[str, ...]
    most: int
    made: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Writer:
    """A language model under a tap. `tick` is told how many prompts are done."""

    model: Model
    tap: Tap
    tokenizer: Tokenizer
    batch: int = TOGETHER
    tick: Callable[[int], None] = lambda count: None
    _ends: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        """lm-eval stops at the tokenizer's own eos, too."""
        self._ends = frozenset(self.tokenizer.ends + self.tokenizer.named("eos"))

    def continued(self, prompts: Sequence[Prompt]) -> list[str]:
        """The text that follows each prompt, in the order given."""

        def rank(place: int) -> tuple[int, bytes]:
            tokens = prompts[place].tokens
            return len(tokens), tokens.astype(">u4").tobytes()

        texts: dict[int, str] = {}
        for _, alike in groupby(sorted(range(len(prompts)), key=rank), lambda p: rank(p)[0]):
            lengths = [len(one.tokens) for one in prompts]
            for block in blocks(list(alike), lengths, self.model, self.batch):
                texts |= self._block({place: prompts[place] for place in block}, len(texts))
                self.tick(len(block))
        return [texts[place] for place in range(len(prompts))]

    def _block(self, prompts: dict[int, Prompt], first: int) -> dict[int, str]:
        """Place -> text, of prompts of one length."""
        tap = self.tap.at(first) if isinstance(self.tap, RoundingTap) else self.tap
        texts = {place: "" for place, one in prompts.items() if one.most < 1}
        live = list(prompts.items())
        with torch.inference_mode():
            outputs, state = self._read(list(prompts.values()), tap)
            while True:
                best = outputs.argmax(-1).tolist()
                rows = []
                for row, (place, one) in enumerate(live):
                    if place not in texts and (text := self._stopped(one, best[row])) is not None:
                        texts[place] = text
                    rows += [] if place in texts else [row]
                if not rows:
                    return texts
                live = [live[row] for row in rows]
                newest = torch.tensor([one.made[-1] for _, one in live])
                outputs, state = self.model.step(newest, chosen(state, torch.tensor(rows)), tap)

    def _read(self, prompts: Sequence[Prompt], tap: Tap) -> tuple[Tensor, StreamState]:
        """Outputs (b, v) after the prompts, and the state."""
        x = torch.from_numpy(np.stack([one.tokens for one in prompts]))
        state: StreamState | None = None
        for piece in x.split(MOST, dim=1):
            outputs, state = run(self.model, piece, tap, state)  # type: ignore[arg-type]
        assert state is not None
        return outputs[:, -1], state

    def _stopped(self, one: Prompt, token: int) -> str | None:
        """Take a token; the text where it is the last one."""
        if token in self._ends:
            return self.tokenizer.decode(one.made)
        one.made.append(token)
        text = self.tokenizer.decode(one.made)
        ends = [at for stop in one.until if (at := text.find(stop)) >= 0]
        if ends:
            return text[: min(ends)]
        return text if len(one.made) >= one.most else None
