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

from sensprobe.data import Tokenizer
from sensprobe.errors import DataError, UsageError
from sensprobe.evaluate.lm_harness.generating import Prompt, Writer
from sensprobe.evaluate.lm_harness.scoring import TOGETHER, Asked, Scorer
from sensprobe.evaluate.lm_harness.sharing import apart
from sensprobe.models import Model
from sensprobe.progress import SILENT, Progress
from sensprobe.taps import Tap

TOKENS = 256
"""Generated at most where a task does not say."""
TRIED = (32, 16)
"""Sequences and tokens that are run to see how long the rest will take."""
NAME = "sensprobe"


class HarnessModel(LM):
    """A language model under a tap, answering lm-eval's requests.

    `name` is for messages. A text without context starts after the tokenizer's `start`; spaces at
    the end of a context count to what follows, as lm-eval has it for every causal model. A model
    that recurs has no longest context: nothing is ever cut off.
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

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): log p of the continuation, and whether it is what greedy
        decoding gives. An empty continuation is certain."""
        return self._scored([self._pair(*request.args) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Of each (text,): log p of the whole, every token after all that precedes it."""
        pairs = [self._pair("", request.args[0]) for request in requests]
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
        """What lm-eval keeps of the model with its results."""
        return {"model_source": self._name}

    # -- from text to tokens ----------------------------------------------------------------------

    def _pair(self, context: str, continuation: str) -> Asked:
        kept = context.rstrip()
        before, whole = self._encode(kept), self._encode(context + continuation)
        if len(before):
            return Asked(whole, len(before))
        start = self._tokenizer.start(context + continuation)
        return Asked(np.insert(whole, 0, start), len(start))

    def _prompt(self, context: str, settings: dict[str, Any]) -> Prompt:
        if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
            raise UsageError(
                "the task asks for sampling (do_sample), and sensprobe decodes greedily. Give "
                "lm-eval --gen_kwargs do_sample=False, or leave the task out."
            )
        until = settings.get("until") or ()
        stops = (until,) if isinstance(until, str) else tuple(until)
        tokens = self._encode(context)
        if not len(tokens):
            tokens = np.array(self._tokenizer.start(context), np.int32)
        most = settings.get("max_gen_toks", TOKENS)
        return Prompt(tokens, tuple(stop for stop in stops if stop), int(most))

    def _encode(self, text: str) -> np.ndarray:
        tokens = self._tokenizer.encode(text.encode("utf-8", "surrogatepass"))[0]
        known = self._model.config.d_input
        if len(tokens) and tokens.max() >= known:
            raise DataError(
                f"the tokenizer of {self._name} makes tokens up to {tokens.max()}, the model knows "
                f"0 to {known - 1}: it is not the one it was trained with."
            )
        return tokens

    # -- running ----------------------------------------------------------------------------------

    def _scored(self, asked: Sequence[Asked]) -> list[tuple[float, bool]]:
        out = [(0.0, True)] * len(asked)
        some = [i for i, one in enumerate(asked) if one.first < len(one.tokens)]
        self._begin([asked[i] for i in some])
        scorer = Scorer(self._model, self._tap, self._batch, self._progress.advance)
        try:
            for i, found in zip(some, scorer.likelihoods([asked[i] for i in some]), strict=True):
                out[i] = (found.value, found.greedy)
        finally:
            self._progress.end()
        return out

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
    """What lm-eval makes of `--model sensprobe --model_args …`, once `register` said how."""

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
