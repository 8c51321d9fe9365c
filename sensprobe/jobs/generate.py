"""Text from a language model, one token a step."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sensprobe.data import Tokenizer, readable, require_fit
from sensprobe.errors import UsageError
from sensprobe.session.loaded import LoadedModel

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def generate(
    model: LoadedModel,
    tokenizer: Tokenizer,
    prompt: str | bytes,
    *,
    tokens: int,
    temperature: float,
    seed: int,
    write: Callable[[str], None],
) -> dict[str, Any]:
    """Go on from a prompt; `write` is called with the prompt and then with pieces of text as they
    are known, once nothing can be refused any more.

    It ends at any of the tokens that end a text, or after `tokens`. What of a prompt is no UTF-8 is
    read as U+FFFD. Temperature 0 takes the likeliest token, others draw from
    softmax(logits / temperature) with a generator seeded so that the same call writes the same.
    """
    if tokens < 1:
        raise UsageError(f"--tokens {tokens}: ask for at least one token.")
    if not (isfinite(temperature) and temperature >= 0):
        raise UsageError(f"--temperature {temperature}: a number from 0, which draws nothing, up.")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: a whole number from 0 to 2^63 - 1.")
    prompt = readable(prompt)
    read, ends = _read(model, tokenizer, prompt), frozenset(tokenizer.ends)
    write(prompt)
    state, began = model.start(), time.perf_counter()
    for token in read:
        outputs, state = model.advance(_one(token), state)
    ready, generator = time.perf_counter(), torch.Generator().manual_seed(seed)
    written: list[int] = []
    told = (0, 0)
    for k in range(tokens):
        token = _next(outputs[0].cpu(), temperature, generator)
        if token in ends:
            break
        written.append(token)
        piece, told = _piece(tokenizer, written, told)
        write(piece)
        if k + 1 < tokens:
            outputs, state = model.advance(_one(token), state)
    taken = time.perf_counter() - ready
    piece, _ = _piece(tokenizer, written, told, last=True)
    write(piece)
    return {
        "model": model.name,
        "prompt": prompt,
        "text": tokenizer.decode(written),
        "prompt_tokens": len(read),
        "tokens": len(written),
        "prompt_seconds": ready - began,
        "seconds": taken,
        "tokens_per_second": len(written) / taken if taken else 0.0,
        "packed": model.packed,
        "weight_bytes": model.weight_bytes,
        "state_bytes": model.state_bytes(),
    }


def _piece(
    tokenizer: Tokenizer, written: list[int], told: tuple[int, int], *, last: bool = False
) -> tuple[str, tuple[int, int]]:
    """The text that tokens add to the text told so far; "" while a character is incomplete.

    `told` counts the tokens before the last piece, and before this one: a tokenizer may write a
    token otherwise where a text begins, so each piece is read behind the one before it, and a long
    text is not read anew at every token.
    """
    first, next_ = told
    before, text = tokenizer.decode(written[first:next_]), tokenizer.decode(written[first:])
    if text.endswith(REPLACEMENT) and not last:
        return "", told
    return text[len(before) :], (next_, len(written))


def _read(model: LoadedModel, tokenizer: Tokenizer, prompt: str) -> np.ndarray:
    """The prompt's tokens after the one that stands before a text, which it may bring."""
    tokens, start = tokenizer.encode(prompt.encode())[0], tokenizer.start(prompt)
    if tokenizer.file is None or tuple(tokens[: len(start)]) != start:
        tokens = np.insert(tokens, 0, start)
    require_fit(tokens, model.sites["embedding"].shape[0], model.name)
    return tokens


def _one(token: int) -> Tensor:
    return torch.tensor([int(token)])


def _next(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if not temperature:
        return int(logits.argmax())
    below = logits.double() - logits.max()
    chances = torch.softmax((below / temperature).nan_to_num(0.0), dim=-1)  # 0 / 0 is the largest
    return int(torch.multinomial(chances, 1, generator=generator))
