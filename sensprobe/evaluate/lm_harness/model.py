"""A model under a plan as lm-eval sees it: the three things it asks of a language model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import simple_parse_args_string

from sensprobe.data import Tokenizer, readable, require_fit
from sensprobe.errors import DataError, UsageError
from sensprobe.evaluate.lm_harness.generating import Prompt, Writer
from sensprobe.evaluate.lm_harness.scoring import TOGETHER, Asked, Scorer
from sensprobe.evaluate.lm_harness.sharing import apart
from sensprobe.evaluate.saturation import Saturation, saturations
from sensprobe.models import Model
from sensprobe.numerics.taps import RoundingTap, Tap
from sensprobe.progress import SILENT, Progress

TOKENS = 256
"""Generated at most where a task does not say."""
TRIED = (32, 16)
"""Sequences and tokens that are run to see how long the rest will take."""
LOOKED_AT = 4
"""Sequences on which states are watched."""
NAME = "sensprobe"


class HarnessModel(LM):
    """A language model under a tap, answering lm-eval's requests.

    `name` is for messages. Tokens are those of lm-eval's own `hf` model: what the tokenizer puts
    before every text stands before each (once, where the text brings it), a text without context
    starts after the tokenizer's `start`, and spaces at the end of a context count to what follows.
    Two things differ. What a tokenizer puts after every text stands at the end of a whole text
    alone, not between a context and its continuation. And a model that recurs has no longest
    context: nothing is ever cut off.
    """

    def __init__(
        self,
        model: Model,
        tap: Tap,
        tokenizer: Tokenizer,
        name: str,
        batch: int = TOGETHER,
        progress: Progress = SILENT,
    ) -> None:
        super().__init__()
        self._model, self._tap, self._tokenizer = model, tap, tokenizer
        self._name, self._batch, self._progress = name, batch, progress
        self.saturated: list[Saturation] | None = None

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """For each (context, continuation): log p of the continuation, and whether it is what
        greedy decoding gives. An empty continuation is certain; DataError for one without
        tokens."""
        return self._scored([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """For each (text,): log p of the whole, every token after all that precedes it."""
        pairs = [self._whole(request.args[0]) for request in requests]
        return [value for value, _ in self._scored(pairs)]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Greedy continuations of each (context, settings), up to the first stop string."""
        prompts = [self._prompt(*request.args) for request in requests]
        writer = Writer(
            self._model, self._tap, self._tokenizer, self._batch, self._progress.advance
        )
        self._progress.begin(f"continuing {len(prompts):,} prompts", len(prompts))
        try:
            return writer.continued(prompts)
        finally:
            self._progress.end()

    def get_model_info(self) -> dict[str, Any]:
        """The facts of the model that lm-eval keeps with its results."""
        return {"model_source": self._name}

    # -- from text to tokens ----------------------------------------------------------------------

    def _pair(self, context: str, continuation: str) -> Asked:
        """What follows a context is what the tokens of both have beyond as many as it has alone.

        Where a token spans the join, that is nothing: the continuation is then encoded by itself,
        as lm-eval's pull request 4055 does.
        """
        kept = context.rstrip()
        rest = context[len(kept) :] + continuation
        if not kept:
            return self._alone(rest)
        before, whole = self._after_bos(kept), self._after_bos(kept + rest)
        if not len(before):
            return self._alone(rest)
        after = whole[len(before) :]
        if not len(after) and rest:
            after = self._some(rest)
        return Asked(np.concatenate([before, after]), len(before))

    def _alone(self, text: str) -> Asked:
        """A text that nothing precedes. One that brings the token it starts after has it once."""
        tokens, start = self._some(text) if text else self._encode(text), self._start(text)
        if len(start) == 1 < len(tokens) and tokens[0] == start[0]:
            return Asked(tokens, 1)
        return Asked(np.insert(tokens, 0, start), len(start))

    def _whole(self, text: str) -> Asked:
        """A text all of which is scored, with what the tokenizer puts around it: nothing where it
        begins with the token it would start after, as in lm-eval."""
        tokens, start = self._encode(text), self._start(text)
        before, after = self._tokenizer.added
        if tuple(tokens[: len(start)]) != start:
            tokens = np.concatenate([before, tokens, after]).astype(tokens.dtype)
        return Asked(np.insert(tokens, 0, start), len(start))

    def _after_bos(self, text: str) -> np.ndarray:
        """The tokens of a text after what the tokenizer puts before it, unless it brings that."""
        tokens, before = self._encode(text), self._tokenizer.added[0]
        if tuple(tokens[: len(before)]) == before:
            return tokens
        return np.insert(tokens, 0, before)

    def _some(self, text: str) -> np.ndarray:
        tokens = self._encode(text)
        if not len(tokens):
            raise DataError(
                f"the tokenizer of {self._name} makes no token of the continuation {text[:40]!r}, "
                "so it has no likelihood; leave the task out, or use the model's own tokenizer."
            )
        return tokens

    def _start(self, text: str) -> tuple[int, ...]:
        start = self._tokenizer.start(text)
        require_fit(start, self._model.config.d_input, self._name)
        return start

    def _prompt(self, context: str, settings: dict[str, Any]) -> Prompt:
        if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
            raise UsageError(
                "the task asks for sampling (do_sample), and sensprobe decodes greedily. Give "
                "lm-eval --gen_kwargs do_sample=False, or leave the task out."
            )
        until = settings.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        tokens = self._after_bos(context)
        if not len(tokens):
            tokens = np.array(self._start(context), np.int32)
        most = settings.get("max_gen_toks", TOKENS)
        return Prompt(tokens, tuple(stop for stop in stops if stop), int(most))

    def _encode(self, text: str) -> np.ndarray:
        tokens = self._tokenizer.encode(readable(text).encode())[0]
        require_fit(tokens, self._model.config.d_input, self._name)
        return tokens

    # -- running ----------------------------------------------------------------------------------

    def _scored(self, asked: Sequence[Asked]) -> list[tuple[float, bool]]:
        out = [(0.0, True)] * len(asked)
        some = [i for i, one in enumerate(asked) if one.first < len(one.tokens)]
        self._look([asked[i].tokens for i in some[:LOOKED_AT]])
        self._begin([asked[i] for i in some])
        scorer = Scorer(self._model, self._tap, self._batch, self._progress.advance)
        try:
            for i, found in zip(some, scorer.likelihoods([asked[i] for i in some]), strict=True):
                out[i] = (found.value, found.greedy)
        finally:
            self._progress.end()
        return out

    def _look(self, sequences: Sequence[np.ndarray]) -> None:
        """Watch for values that leave their range in the first sequences that are asked for."""
        if self.saturated is None and sequences and isinstance(self._tap, RoundingTap):
            batches = [torch.from_numpy(tokens[None]) for tokens in sequences]
            self.saturated = saturations(self._model, self._tap, batches)

    def _begin(self, asked: Sequence[Asked]) -> None:
        """Tell how many sequences there are, and about how long they take."""
        tokens = apart([one.tokens for one in asked])
        seconds = tokens * self._seconds_a_token() if tokens > 100 * TRIED[0] * TRIED[1] else None
        self._progress.begin(f"scoring {len(asked):,} sequences", len(asked), seconds)

    def _seconds_a_token(self) -> float:
        x = torch.zeros(TRIED, dtype=torch.int32)
        for _ in range(2):  # the first time, kernels may be compiled
            began = time.perf_counter()
            with torch.inference_mode():
                self._model(x, self._tap)
        return (time.perf_counter() - began) / x.numel()


Opened = Callable[..., HarnessModel]


@register_model(NAME)
class NamedModel(HarnessModel):
    """The class lm-eval makes for `--model sensprobe --model_args …`, after `register`."""

    opened: ClassVar[Opened]

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: Any = None) -> Any:
        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: Any = None) -> Any:
        given = {k: v for k, v in (additional_config or {}).items() if v is not None}
        return cls.opened(**(arg_dict | given))


def register(opened: Opened) -> None:
    """Say what makes a model for lm-eval's own command line.

    It is called with what --model_args says, and batch_size and device where given.
    """
    NamedModel.opened = staticmethod(opened)
