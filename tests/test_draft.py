"""Drafts in int8: the text is the model's own, whatever they are worth, and few are in vain."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gpt import draft
from gpt.config import ModelConfig
from gpt.decoder import COMPILED_FROM, Decoder
from gpt.draft import Drafter, worth_drafting
from gpt.generation import Sample, Sampling, generate
from gpt.int8 import to_int8
from gpt.loops import Loops
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer("\nabcdefgh", has_bos=False)
COUNT = COMPILED_FROM


pytestmark = pytest.mark.usefixtures("two_threads")


def made(block_size: int = 24, **extras: Any) -> GPT:
    """A model that was not trained, with weights large enough to have opinions."""
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "init_std": 0.4} | extras
    model = GPT(ModelConfig(block_size=block_size, **shape), 9, seed=2, line_breaks=[0])
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # away from branches and heads that begin at 0
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.fixture
def drafted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has the smallest model drafted; collects how many tokens of each draft it has read."""
    monkeypatch.setattr(draft, "LARGE", 0)
    read: list[int] = []
    original = Drafter._drawn

    def drawn(self: Drafter, one: draft._Draft) -> list[int]:
        read.append(len(one.ids))
        return original(self, one)

    monkeypatch.setattr(Drafter, "_drawn", drawn)
    return read


def write(model: GPT, prompt: str = "abc", count: int = COUNT, **sampling: Any) -> Sample:
    wanted = Sampling(max_new_tokens=count, **sampling)
    (sample,) = generate(model, TOKENIZER, prompt, wanted, seed=3)
    return sample


def write_without(model: GPT, prompt: str = "abc", count: int = COUNT, **sampling: Any) -> Sample:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draft, "LARGE", 10**12)
        return write(model, prompt, count, **sampling)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize(
    "extras",
    [
        {"architecture": "original"},
        {"architecture": "gpt2", "bias": True},
        {"architecture": "modern"},
        {"architecture": "modern", "ngram_rows": 101, "line_sums": 3},
        {"architecture": "gpt2", "ngram_rows": 101},
    ],
    ids=lambda extras: "-".join(map(str, extras.values())),
)
def test_the_text_is_that_without_drafts(
    drafted: list[int], extras: dict[str, Any], temperature: float
) -> None:
    model = made(**extras)
    found = write(model, count=1000, temperature=temperature)
    assert found.new_tokens == 1000 and sum(drafted) > 900
    assert found == write_without(model, count=1000, temperature=temperature)


@pytest.mark.parametrize("block_size", [1, 2, 3, 9, 16, 300])
@pytest.mark.parametrize("prompt", ["a", "abcdefgha", "abcdefghabcdefgh"])
def test_blocks_and_prompts_of_any_length(drafted: list[int], block_size: int, prompt: str) -> None:
    model = made(block_size)
    assert write(model, prompt) == write_without(model, prompt)
    assert bool(drafted) == (block_size > 1)
    assert max(drafted, default=0) <= draft.TOKENS


def after(change: Callable[[np.ndarray[Any, Any]], Any]) -> Callable[..., Any]:
    """The loops' logits, changed where a draft asks for them."""
    original = Loops.after

    def changed(self: Loops, *args: Any, **wanted: Any) -> Any:
        logits = original(self, *args, **wanted)
        return logits if wanted else change(logits)

    return changed


def test_drafts_that_are_always_wrong_change_nothing_and_are_given_up(
    drafted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made()
    expected = write_without(model, count=2000, temperature=0.0)
    monkeypatch.setattr(Loops, "after", after(lambda logits_nv: -logits_nv))
    monkeypatch.setattr(Decoder, "read", lambda self, ids_bt: model(ids_bt, self.cache)[:, -1])
    assert write(model, count=2000, temperature=0.0) == expected
    assert len(drafted) in range(draft.MISSES_AT_FIRST, draft.MISSES_AT_FIRST + 3)


def test_of_a_model_that_is_sure_hardly_a_draft_is_in_vain(drafted: list[int]) -> None:
    write(made(), temperature=0.05)
    assert sum(drafted) < 1.1 * COUNT


def test_one_thread_writes_the_same_by_the_same_drafts(drafted: list[int]) -> None:
    model = made()
    by_two, of_two = write(model), list(drafted)
    drafted.clear()
    torch.set_num_threads(1)
    assert (write(model), drafted) == (by_two, of_two)


def test_a_text_ends_within_a_draft(drafted: list[int]) -> None:
    model = made()
    whole = write(model).text
    stop = whole[20:24]
    drafted.clear()
    pieces: list[str] = []
    sampling = Sampling(max_new_tokens=COUNT, stop=stop)
    (sample,) = generate(
        model, TOKENIZER, "abc", sampling, seed=3, on_text=lambda _, text: pieces.append(text)
    )
    assert sample.stop_reason == "stop"
    assert sample.text == whole[: whole.index(stop, 3)] == "abc" + "".join(pieces)
    assert sum(drafted) < 60


def test_drafts_are_for_one_text_of_a_large_model_in_whole_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = made()
    assert not worth_drafting(model, Decoder(model))
    monkeypatch.setattr(draft, "LARGE", 0)
    assert worth_drafting(model, Decoder(model))
    assert not worth_drafting(model, Decoder(model, tokens=COMPILED_FROM - 1))
    rounded = to_int8(copy.deepcopy(model))
    assert not worth_drafting(rounded, Decoder(rounded))
    monkeypatch.setattr(Drafter, "write", lambda *_: pytest.fail("drafts were made"))
    generate(model, TOKENIZER, "a", Sampling(max_new_tokens=COUNT), seed=3, indices=range(2))
