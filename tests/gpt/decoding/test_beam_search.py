"""Beam search, beside every text there is and beside greedy writing."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from small_training import SmallTraining
from torch import Tensor, nn
from typer.testing import CliRunner

from commands.sample import app as command
from gpt.config import ModelConfig
from gpt.decoding.beam_search import beam_search
from gpt.generation import Sampling, beam_generate, generate
from gpt.model import GPT
from gpt.tokenizers.byte_level import ByteTokenizer
from gpt.tokenizers.char import CharTokenizer

TOKENIZER = CharTokenizer("\nabc", has_bos=False)
ARCHITECTURES = ["original", "gpt2", "modern"]


def model_of(architecture: str, block_size: int, vocab_size: int = 4, seed: int = 2) -> GPT:
    """A model that was not trained, with opinions and all that a cache has to keep."""
    shape = ModelConfig(
        architecture=architecture,  # type: ignore[arg-type]
        n_layer=2,
        n_head=2,
        n_embd=16,
        block_size=block_size,
        ngram_rows=70 if architecture == "modern" else 0,
        line_sums=3 if architecture == "modern" else 0,
    )
    model = GPT(shape, vocab_size, seed=seed, line_breaks=[0]).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(seed + number))
    return model


def log_probabilities(
    model: GPT, ids: list[int], continuations: list[tuple[int, ...]]
) -> list[float]:
    """Of each continuation, uncached, in the context that `generate` gives each token."""
    size, sums_n = model.config.block_size, torch.zeros(len(continuations), dtype=torch.float64)
    new_nt = torch.tensor(continuations)
    text_nt = torch.cat([torch.tensor(ids).expand(len(continuations), -1), new_nt], dim=1)
    start = max(0, len(ids) - size)
    for end in range(len(ids), text_nt.shape[1]):
        if end - start > size:
            start = end - max(1, size // 2)
        with torch.no_grad():
            logits_nv = model(text_nt[:, start:end])[:, -1]
        sums_n += logits_nv.double().log_softmax(-1).gather(1, text_nt[:, end : end + 1])[:, 0]
    return sums_n.tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("prompt", [[1], [2, 0, 3], [1, 2, 3, 1, 0, 2, 2]])
def test_with_beams_enough_the_likeliest_of_all_texts_is_found(
    architecture: str, prompt: list[int]
) -> None:
    # Four new tokens cross a block of five, whichever the prompt.
    model = model_of(architecture, 5)
    continuations = list(itertools.product(range(4), repeat=4))
    sums = log_probabilities(model, prompt, continuations)
    every = dict(zip(continuations, sums, strict=True))
    results = beam_search(model, prompt, 4, beams=4**3)
    ranked = sorted(every, key=lambda new: every[new], reverse=True)
    assert results[0].ids == ranked[0]
    assert len(results) == 4**3
    assert not any(beam.ended for beam in results)
    for beam in results:
        assert beam.log_probability == pytest.approx(every[beam.ids], abs=1e-4)
    # All beginnings were kept, so these are the most likely of all, and in that order.
    assert [beam.ids for beam in results] == ranked[: 4**3]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("block_size", [1, 2, 7])
def test_one_beam_is_greedy_also_past_the_block(architecture: str, block_size: int) -> None:
    model = model_of(architecture, block_size)
    sampling = Sampling(max_new_tokens=40, temperature=0.0)
    (greedy,) = generate(model, TOKENIZER, "abc", sampling, seed=0)
    ((results, total),) = beam_generate(model, TOKENIZER, "abc", beams=1, max_new_tokens=40)
    assert results == greedy
    new = tuple(TOKENIZER.encode(results.text[3:]).tolist())
    ids = TOKENIZER.encode("abc").tolist()
    assert [total] == pytest.approx(log_probabilities(model, ids, [new]), abs=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_beam_has_the_probability_of_its_text_past_many_blocks(architecture: str) -> None:
    model = model_of(architecture, 6)
    results = beam_search(model, [1, 2], 25, beams=5)
    assert len({beam.ids for beam in results}) == 5
    expected = log_probabilities(model, [1, 2], [beam.ids for beam in results])
    assert [beam.log_probability for beam in results] == pytest.approx(expected, abs=1e-3)
    assert results == sorted(results, key=lambda beam: -beam.log_probability)


class Chances(nn.Module):
    """Knows which id follows which, and nothing else; keeps nothing."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.config = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=4)
        self.logits = nn.Parameter(torch.tensor(rows).log())

    def forward(self, ids_bt: Tensor) -> Tensor:
        return self.logits[ids_bt]


# From a, b is likelier than c; but after c comes a nearly for sure.
TRAP = [[0.25, 0.25, 0.25, 0.25], [0.1, 0.1, 0.5, 0.3], [0.25] * 4, [0.01, 0.97, 0.01, 0.01]]


def test_what_is_second_at_first_is_found_by_two_beams_and_not_by_one() -> None:
    model = Chances(TRAP)
    ((greedy, low),) = beam_generate(model, TOKENIZER, "a", beams=1, max_new_tokens=2)  # type: ignore[arg-type]
    (best, _), _ = beam_generate(model, TOKENIZER, "a", beams=2, max_new_tokens=2)  # type: ignore[arg-type]
    assert greedy.text[:2] == "ab"
    assert math.exp(low) == pytest.approx(0.5 * 0.25)
    assert best.text == "aca"


def test_a_way_that_ended_keeps_its_place_and_its_probability() -> None:
    # Ids a, b, c, and 3 for the document's end, which b comes to with 0.9.
    rows = [[0.1, 0.5, 0.3, 0.1], [0.05, 0.03, 0.02, 0.9], [0.4, 0.3, 0.2, 0.1], [0.25] * 4]
    tokenizer = CharTokenizer("abc", has_bos=True)
    results = beam_generate(Chances(rows), tokenizer, "a", beams=2, max_new_tokens=5)  # type: ignore[arg-type]
    first, total = results[0]
    assert (first.text, first.stop_reason, first.new_tokens) == ("ab", "end of document", 2)
    assert math.exp(total) == pytest.approx(0.5 * 0.9)


class Script(nn.Module):
    """Writes the ids it was given one after the other, nearly for sure."""

    def __init__(self, ids: list[int], prompt: int) -> None:
        super().__init__()
        self.config = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=100)
        self.anchor = nn.Parameter(torch.zeros(1))
        self.ids, self.prompt, self.reads = ids, prompt, 0

    def forward(self, ids_bt: Tensor) -> Tensor:
        self.reads += 1
        logits_btv = torch.zeros(*ids_bt.shape, 256)
        logits_btv[:, -1, self.ids[ids_bt.shape[1] - self.prompt]] = 20.0
        return logits_btv


@pytest.mark.parametrize("stop", ["b", "ca", "é", "éb"])
def test_a_stop_string_ends_a_way_and_is_left_out(stop: str) -> None:
    model = Script(list("caébcaéb".encode()), 1)
    results = beam_generate(
        model, ByteTokenizer(has_bos=False), "b", beams=3, max_new_tokens=8, stop=stop
    )  # type: ignore[arg-type]
    first, _ = results[0]
    assert first.text == "b" + "caéb"[: "caéb".index(stop)]
    assert first.stop_reason == "stop"


@pytest.mark.parametrize("stop", ["b", "ca", "é", "éb"])
def test_nothing_is_read_after_the_stop_string(stop: str) -> None:
    model = Script(list("caébcaéb".encode()), 1)
    beam_generate(model, ByteTokenizer(has_bos=False), "b", beams=1, max_new_tokens=8, stop=stop)  # type: ignore[arg-type]
    assert model.reads == len(("caéb".partition(stop)[0] + stop).encode())


def test_no_new_tokens_give_the_prompt() -> None:
    ((results, total),) = beam_generate(
        model_of("gpt2", 8), TOKENIZER, "ab", beams=3, max_new_tokens=0
    )
    assert (results.text, results.new_tokens, total) == ("ab", 0, 0.0)


def test_searching_leaves_the_mode_as_it_was() -> None:
    model = model_of("gpt2", 8).train()
    beam_generate(model, TOKENIZER, "ab", beams=2, max_new_tokens=2)
    assert model.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--beams", "2", "--temperature", "0.5"], "--temperature: not used by --beams"),
        (["--beams", "2", "--top-k", "5"], "--top-k: not used by --beams"),
        (["--beams", "2", "--num-samples", "3"], "--beams 2 finds at most 2"),
    ],
)
def test_what_goes_with_no_beams_is_refused(options: list[str], said: str) -> None:
    shown = CliRunner().invoke(command, options)
    assert shown.exit_code == 2
    assert said in shown.output


@pytest.mark.slow
def test_the_command_writes_the_likeliest_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SmallTraining(tmp_path / "training")
    training.make_tokens()
    assert training.run().end() == 0
    monkeypatch.chdir(training.folder)
    options = ["--prompt", "The", "--beams", "3", "--num-samples", "2", "--max-new-tokens", "20"]
    shown = CliRunner().invoke(command, options)
    assert shown.exit_code == 0, shown.output
    beam, two = shown.stdout.split("-" * 40)
    assert (
        beam.startswith("The") and two.strip("\n").startswith("The") and beam.strip() != two.strip()
    )
    assert "20 tokens, log-probability -" in shown.stderr
