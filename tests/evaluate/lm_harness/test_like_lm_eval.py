"""Scores are those of lm-eval's own `hf` model, whatever the tokenizer puts around a text."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from language import MAMBA, byte_level
from lm_requests import harness, requests
from selective import tiny

from sensprobe.data import FileTokenizer
from sensprobe.errors import DataError
from sensprobe.numerics.taps import EXACT
from sensprobe.session.source import open_model, text_tokenizer

pytestmark = pytest.mark.lm
START, END = "<s>", "</s>"
PAIRS = [
    ("the state", " decays"),
    ("the state ", "decays"),
    ("", "the state"),
    ("", f"{START}the state"),
    (f"{START}the", " state"),
    ("\n", "the"),
]


def checkpoint(folder: Path, template: str | None) -> Path:
    """A folder of transformers whose tokenizer puts around a text what `template` says."""
    transformers, tokenizers = map(pytest.importorskip, ("transformers", "tokenizers"))
    folder.mkdir()
    made = tokenizers.Tokenizer.from_file(str(byte_level(folder / "tokenizer.json")))
    made.add_special_tokens([START, END])
    ids = {name: made.token_to_id(name) for name in (START, END)}
    if template is not None:
        used = [(name, ids[name]) for name in ids if name in template]
        made.post_processor = tokenizers.processors.TemplateProcessing(template, None, used)
    made.save(str(folder / "tokenizer.json"))
    names = {"bos_token": START, "eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=made.get_vocab_size(), hidden_size=16, num_hidden_layers=1, state_size=4,
        bos_token_id=ids[START], eos_token_id=ids[END], pad_token_id=None,
    )  # fmt: skip
    model = transformers.MambaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) / 4)
    model.save_pretrained(folder)
    return folder


def both(folder: Path) -> tuple[Any, Any]:
    """lm-eval's model of a folder, and ours."""
    pytest.importorskip("accelerate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
        reader = AutoTokenizer.from_pretrained(folder)
        theirs = HFLM(pretrained=model, tokenizer=reader, batch_size=1, device="cpu")
    source = open_model(folder)
    return theirs, harness(source.model, tokenizer=text_tokenizer(source))


@pytest.mark.parametrize("template", [None, f"{START} $A"], ids=["nothing", "bos"])
def test_pairs_rolling_and_generation_are_lm_evals(tmp_path: Path, template: str | None) -> None:
    theirs, ours = both(checkpoint(tmp_path / "m", template))
    texts = [("the state decays",), (f"{START}the state",)]
    asked = [pair for pair in PAIRS if template or pair[0] != "\n"]  # lm-eval has no context there
    until = {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}
    for kind, arguments in (
        ("loglikelihood", asked),
        ("loglikelihood_rolling", texts),
        ("generate_until", [("the state", until)]),
    ):
        found = getattr(ours, kind)(requests(kind, *arguments))
        one = getattr(theirs, kind)  # one at a time: it mixes up logits of requests that read alike
        want = [one(requests(kind, a), disable_tqdm=True)[0] for a in arguments]
        if kind == "loglikelihood":
            assert [greedy for _, greedy in found] == [greedy for _, greedy in want]
            found, want = ([value for value, _ in rows] for rows in (found, want))
        assert found == (want if kind == "generate_until" else pytest.approx(want, abs=1e-3))


def test_what_ends_a_text_stands_at_its_end_alone(tmp_path: Path) -> None:
    folders = [checkpoint(tmp_path / n, f"{START} $A{e}") for n, e in (("a", ""), ("b", f" {END}"))]
    bos, eos = [both(folder)[1] for folder in folders]
    asked = requests("loglikelihood", *PAIRS)
    assert eos.loglikelihood(asked) == bos.loglikelihood(asked)
    until = requests("generate_until", ("the state", {"max_gen_toks": 4}))
    assert eos.generate_until(until) == bos.generate_until(until)
    for folder in (folders[1], checkpoint(tmp_path / "c", f"$A {END}")):
        theirs, ours = both(folder)
        for text in ("the state decays", f"{START}the state"):  # which brings it gets nothing more
            rolling = requests("loglikelihood_rolling", (text,))
            want = theirs.loglikelihood_rolling(rolling, disable_tqdm=True)
            assert ours.loglikelihood_rolling(rolling) == pytest.approx(want, abs=1e-3)


def test_a_token_across_the_join_leaves_a_continuation_of_its_own(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    file = byte_level(tmp_path / "tokenizer.json")
    own = tokenizers.Tokenizer.from_file(str(file))
    context, rest = "the stat", "e"
    assert len(own.encode(context).ids) >= len(own.encode(context + rest).ids)
    from dataclasses import replace

    size = FileTokenizer(file).size
    model = tiny(replace(MAMBA, d_input=size, d_output=size))
    lm = harness(model, tokenizer=FileTokenizer(file))
    [(value, greedy)] = lm.loglikelihood(requests("loglikelihood", (context, rest)))
    before, after = own.encode(context).ids, own.encode(rest).ids
    rows = model(torch.tensor([before + after]), EXACT)[0].log_softmax(-1)
    want = sum(float(rows[len(before) - 1 + k, t]) for k, t in enumerate(after))
    assert (value, greedy) == (pytest.approx(want, abs=1e-4), False)


def test_a_continuation_without_tokens_has_no_likelihood(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "a": 1}, unk_token="a"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    lm = harness(tiny(MAMBA), tokenizer=FileTokenizer(tmp_path / "tokenizer.json"))
    assert lm.loglikelihood(requests("loglikelihood", ("a", ""))) == [(0.0, True)]
    for pair in (("a", " "), ("", " ")):
        with pytest.raises(DataError, match="makes no token of the continuation ' '"):
            lm.loglikelihood(requests("loglikelihood", pair))


def test_halves_of_characters_are_read_as_a_replacement() -> None:
    lm = harness(tiny(MAMBA))
    asked = requests("loglikelihood", ("a \ud800", "b"), ("a \ufffd", "b"))
    first, second = lm.loglikelihood(asked)
    assert first == second
