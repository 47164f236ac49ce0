"""Writing text: which token is chosen, with which chance, where a text ends, what is shown."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from gpt.config import ModelConfig
from gpt.errors import TokenizerError
from gpt.generation import Sample, Sampling, generate, printable, sample_next
from gpt.model import GPT
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.byte_level import ByteTokenizer
from gpt.tokenizers.char import CharTokenizer

TOKENIZER = CharTokenizer("\nabcdefgh", has_bos=False)
BLOCK = 8


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model that was not trained, with weights large enough to have opinions."""
    shape = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, init_std=0.4)
    return GPT(shape, TOKENIZER.vocab_size, seed=2).eval()


class Script(nn.Module):
    """A model that writes the ids it was given, one after the other, whatever it reads."""

    def __init__(self, ids: list[int], vocab_size: int, prompt: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_size=1000, n_layer=1)
        self.anchor = nn.Parameter(torch.zeros(1))
        self.ids, self.vocab_size, self.prompt = ids, vocab_size, prompt

    def forward(self, ids_bt: Tensor) -> Tensor:
        b, t = ids_bt.shape
        logits_btv = torch.zeros(b, t, self.vocab_size)
        logits_btv[:, -1, self.ids[t - self.prompt]] = 1.0
        return logits_btv


def write(
    tokenizer: Tokenizer,
    ids: list[int],
    *,
    prompt: str = "a",
    stop: str | None = None,
) -> tuple[Sample, list[str]]:
    """The sample of a model that writes `ids`, and the chunks that were streamed."""
    before = len(tokenizer.encode(prompt)) + (tokenizer.bos is not None)
    chunks: list[str] = []
    (sample,) = generate(
        Script(ids, tokenizer.vocab_size, before),  # type: ignore[arg-type]
        tokenizer,
        prompt,
        Sampling(max_new_tokens=len(ids), temperature=0.0, stop=stop),
        seed=0,
        on_text=lambda index, text: chunks.append(text),
    )
    return sample, chunks


def ids_of(text: str) -> list[int]:
    return [int(token) for token in TOKENIZER.encode(text)]


# --- choosing -------------------------------------------------------------------------------------

LOGITS = torch.tensor([1.0, -0.5, 2.0, 0.3, -2.0, 1.4])
DRAWS = 20_000


def frequencies(logits: Tensor = LOGITS, **sampling: Any) -> Tensor:
    """How often each token is chosen, in many draws."""
    uniforms = np.random.default_rng(0).random(DRAWS)
    chosen = sample_next(logits.expand(DRAWS, -1), Sampling(max_new_tokens=1, **sampling), uniforms)
    return torch.bincount(chosen, minlength=len(logits)) / DRAWS


def assert_drawn_from(result: Tensor, shares: Tensor) -> None:
    """Within five standard deviations of a share, and never where it is 0."""
    assert (result[shares == 0] == 0).all(), result
    assert ((result - shares).abs() <= 5 * (shares * (1 - shares) / DRAWS).sqrt()).all(), result


def softmax(logits: Tensor) -> Tensor:
    return logits.exp() / logits.exp().sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_from_the_softmax_at_a_temperature(temperature: float) -> None:
    assert_drawn_from(frequencies(temperature=temperature), softmax(LOGITS / temperature))


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_top_k_leaves_the_k_likeliest_in_their_proportions(top_k: int) -> None:
    least = LOGITS.sort(descending=True).values[top_k - 1]
    shares = softmax(LOGITS) * (least <= LOGITS)
    assert_drawn_from(frequencies(top_k=top_k), shares / shares.sum())


@pytest.mark.fault(22)
@pytest.mark.parametrize("top_k", [0, 6, 7, 10**9])
def test_top_k_of_the_vocabulary_and_above_is_off(top_k: int) -> None:
    assert torch.equal(frequencies(top_k=top_k), frequencies())


@pytest.mark.parametrize(("top_p", "left"), [(0.4, 1), (0.5, 2), (0.7, 2), (0.9, 4), (0.99, 5)])
def test_top_p_leaves_the_fewest_likeliest_that_reach_p(top_p: float, left: int) -> None:
    ranked = softmax(LOGITS).sort(descending=True)
    assert float(ranked.values[:left].sum()) >= top_p > float(ranked.values[: left - 1].sum())
    shares = torch.zeros(6)
    shares[ranked.indices[:left]] = ranked.values[:left]
    assert_drawn_from(frequencies(top_p=top_p), shares / shares.sum())


def test_temperature_comes_before_top_k_and_top_k_before_top_p() -> None:
    shares = softmax(LOGITS / 2)
    shares[LOGITS.argsort()[:3]] = 0  # the three most likely are left ...
    ranked = (shares / shares.sum()).sort(descending=True)
    assert ranked.values[:2].sum() > 0.7 > softmax(LOGITS / 2).sort().values[-2:].sum()
    expected = torch.zeros(6)
    expected[ranked.indices[:2]] = ranked.values[:2]  # ... and of them the two that reach 0.7
    result = frequencies(temperature=2.0, top_k=3, top_p=0.7)
    assert_drawn_from(result, expected / expected.sum())


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.0},
        {"top_k": 1},
        {"top_p": 1e-9},
        {"temperature": 1e-3},
        {"temperature": 1e-30},
        {"temperature": 1e-40},
        {"temperature": 1e-300},
        {"temperature": 5e-324, "top_k": 2, "top_p": 0.9},
    ],
    ids=repr,
)
def test_the_narrowest_settings_are_greedy(sampling: dict[str, Any]) -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(1)) * 10
    uniforms = np.random.default_rng(0).random(50)
    chosen = sample_next(rows, Sampling(max_new_tokens=1, **sampling), uniforms)
    assert torch.equal(chosen, rows.argmax(-1))


@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=8),
    temperature=st.floats(1e-3, 1e3),
    top_k=st.integers(0, 10),
    top_p=st.floats(1e-6, 1.0),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_a_token_of_the_vocabulary_is_chosen_whatever_the_logits(
    logits: list[float], temperature: float, top_k: int, top_p: float, uniform: float
) -> None:
    sampling = Sampling(max_new_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p)
    chosen = sample_next(torch.tensor([logits]), sampling, np.array([uniform]))
    assert 0 <= int(chosen) < len(logits)


@pytest.mark.parametrize("scale", [0.0, 0.01, 1.0, 10.0])
@pytest.mark.parametrize("dials", [{}, {"top_p": 0.9}, {"top_k": 40}, {"top_k": 400}], ids=repr)
def test_of_a_large_vocabulary_the_token_is_that_of_a_full_sort(
    scale: float, dials: dict[str, Any]
) -> None:
    rng = torch.Generator().manual_seed(1)
    logits = (torch.randn(40, 3000, generator=rng) * scale).bfloat16().float()  # many are equal
    uniforms = np.random.default_rng(0).random(40)
    sampling = Sampling(max_new_tokens=1, temperature=0.8, **dials)
    tokens = sample_next(logits, sampling, uniforms)
    assert tokens.tolist() == [
        sorted_sample(logits_v, sampling, uniform)
        for logits_v, uniform in zip(logits, uniforms, strict=True)
    ]


def sorted_sample(logits_v: Tensor, sampling: Sampling, uniform: float) -> int:
    """The inverse CDF over all tokens in the order of their logits, equal ones in that of ids."""
    ranked = logits_v.double().sort(descending=True, stable=True)
    weights = ((ranked.values - ranked.values[0]) / sampling.temperature).exp()
    if sampling.top_k:
        weights[sampling.top_k :] = 0
    before = weights.cumsum(0) - weights
    weights[before >= sampling.top_p * weights.sum()] = 0
    rank = int((weights.cumsum(0) <= uniform * weights.sum()).sum())
    return int(ranked.indices[rank])


def test_choosing_leaves_the_logits_as_they_were() -> None:
    rows = LOGITS.expand(2, -1).clone()
    sample_next(rows, Sampling(max_new_tokens=1, top_k=2, top_p=0.5), np.array([0.2, 0.9]))
    assert torch.equal(rows, LOGITS.expand(2, -1))


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["a", "abc", "abcdefg", "abcdefgh", "hgfedcbaabc"])
def test_greedy_text_is_the_likeliest_token_again_and_again(model: GPT, prompt: str) -> None:
    sampling = Sampling(max_new_tokens=3 * BLOCK, temperature=0.0)
    (sample,) = generate(model, TOKENIZER, prompt, sampling, seed=0)
    text = TOKENIZER.decode(uncached(model, ids_of(prompt), 3 * BLOCK))
    assert sample == Sample(text, prompt, "length", 3 * BLOCK)


def uncached(model: GPT, ids: list[int], count: int) -> list[int]:
    """`ids` and `count` more, the most likely each, where every token reads its whole context anew.

    The context grows to a block, then begins anew with the last half of one.
    """
    block_size = model.config.block_size
    start = max(0, len(ids) - block_size)
    for _ in range(count):
        if len(ids) - start > block_size:
            start = len(ids) - max(1, block_size // 2)
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids[start:]]))[0, -1].argmax())]
    return ids


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@pytest.mark.parametrize(("block_size", "count"), [(1, 30), (2, 30), (7, 100), (64, 2000)])
def test_greedy_text_with_the_cache_is_that_without_past_many_blocks(
    architecture: str, block_size: int, count: int
) -> None:
    shape = ModelConfig(
        architecture=architecture,  # type: ignore[arg-type]
        n_layer=2,
        n_head=2,
        n_embd=32,
        block_size=block_size,
        init_std=0.3,
        ngram_rows=70 if architecture == "modern" else 0,
        line_sums=3 if architecture == "modern" else 0,
    )
    model = GPT(shape, TOKENIZER.vocab_size, seed=2, line_breaks=[0, 1]).eval()
    with torch.no_grad():  # away from zero branches and a zero head, or every logit is the same
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(parameter.numel()))
    sampling = Sampling(max_new_tokens=count, temperature=0.0)
    (sample,) = generate(model, TOKENIZER, "abc", sampling, seed=0)
    assert sample.text == TOKENIZER.decode(uncached(model, ids_of("abc"), count))
    assert len(set(sample.text)) > 2 or block_size == 1, "it is no single letter again and again"


def samples(model: GPT, indices: list[int], seed: int = 3, prompt: str = "ab") -> list[Sample]:
    sampling = Sampling(max_new_tokens=40, temperature=1.0)
    return generate(model, TOKENIZER, prompt, sampling, seed=seed, indices=indices)


def test_the_same_seed_gives_the_same_text(model: GPT) -> None:
    torch.manual_seed(1)
    first = samples(model, [0])
    torch.manual_seed(2)
    assert samples(model, [0]) == first


def test_another_seed_or_index_gives_another_text(model: GPT) -> None:
    texts = [
        samples(model, [0])[0].text,
        samples(model, [1])[0].text,
        samples(model, [0], 4)[0].text,
    ]
    assert len(set(texts)) == 3


def test_a_sample_is_the_same_alone_and_with_others(model: GPT) -> None:
    combined = samples(model, [0, 1, 2, 7])
    assert [samples(model, [index])[0] for index in (0, 1, 2, 7)] == combined


def test_writing_draws_nothing_from_the_random_generator_of_torch(model: GPT) -> None:
    before = torch.get_rng_state()
    samples(model, [0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_writing_is_in_eval_mode_and_leaves_the_mode_as_it_was(training: bool) -> None:
    shape = ModelConfig(n_layer=1, n_head=1, n_embd=16, block_size=BLOCK, init_std=0.4, dropout=0.5)
    dropping = GPT(shape, TOKENIZER.vocab_size).train(training)
    modes: list[bool] = []
    dropping.blocks[0].register_forward_pre_hook(lambda module, _: modes.append(module.training))
    samples(dropping, [0])
    assert set(modes) == {False}
    assert dropping.training == dropping.blocks[0].training == training


@pytest.mark.parametrize("training", [True, False])
def test_an_exception_leaves_the_mode_as_it_was(training: bool) -> None:
    def fail(index: int, text: str) -> None:
        raise KeyboardInterrupt

    shape = ModelConfig(n_layer=1, n_head=1, n_embd=16, block_size=BLOCK)
    model = GPT(shape, TOKENIZER.vocab_size).train(training)
    with pytest.raises(KeyboardInterrupt):
        generate(model, TOKENIZER, "a", Sampling(max_new_tokens=1), seed=0, on_text=fail)
    assert model.training == model.blocks[0].training == training


@pytest.mark.fault(22)
@pytest.mark.parametrize("prompt", ["", "a", "abcdefgh" * 3])
def test_no_new_tokens_give_the_prompt(model: GPT, prompt: str) -> None:
    (sample,) = generate(model, TOKENIZER, prompt, Sampling(max_new_tokens=0), seed=0)
    assert sample == Sample(prompt, prompt, "length", 0)


def first_read(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """What the model is given to read before the first new token."""
    read: list[list[int]] = []

    class Reader(Script):
        def forward(self, ids_bt: Tensor) -> Tensor:
            read.append(ids_bt[0].tolist())
            return torch.zeros(*ids_bt.shape, self.vocab_size)

    reader: Any = Reader([], tokenizer.vocab_size, 0)
    reader.config.block_size = BLOCK
    generate(reader, tokenizer, prompt, Sampling(max_new_tokens=1), seed=0)
    return read[0]


@pytest.mark.fault(22)
def test_an_empty_prompt_starts_a_document_or_else_a_line() -> None:
    assert first_read(CharTokenizer("ab\n", has_bos=True), "") == [3]
    assert first_read(CharTokenizer("ab\n", has_bos=False), "") == [2]
    assert first_read(CharTokenizer("ab", has_bos=False), "") == [0]


def test_a_prompt_comes_after_the_start_of_a_document() -> None:
    assert first_read(CharTokenizer("ab\n", has_bos=True), "ba") == [3, 1, 0]


@pytest.mark.fault(22)
def test_of_a_long_prompt_the_model_reads_the_last_block() -> None:
    assert first_read(TOKENIZER, "abcdefgh" * 3 + "a") == ids_of("bcdefgha")


@pytest.mark.fault(22)
def test_a_prompt_with_an_unknown_character_is_refused(model: GPT) -> None:
    with pytest.raises(TokenizerError, match="character 1 'é'"):
        generate(model, TOKENIZER, "aé", Sampling(max_new_tokens=1), seed=0)


# --- where a text ends ----------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["d", "cd", "bcd", "abcd"])
def test_a_stop_string_ends_the_text_and_is_left_out(stop: str) -> None:
    sample, _ = write(TOKENIZER, ids_of("gabcdefg"), stop=stop)
    assert sample.text == "a" + "gabcdefg"[: "gabcdefg".index(stop)]
    assert (sample.stop_reason, sample.new_tokens) == ("stop", 5)


def test_a_stop_string_in_the_prompt_does_not_end_the_text() -> None:
    sample, _ = write(TOKENIZER, ids_of("cde"), prompt="abc", stop="abc")
    assert (sample.text, sample.stop_reason) == ("abccde", "length")


@pytest.mark.parametrize("stop", [None, ""])
def test_without_a_stop_string_nothing_ends_the_text(stop: str | None) -> None:
    assert write(TOKENIZER, ids_of("abc"), stop=stop)[0].text == "aabc"


@given(text=st.text("abc\n", max_size=12), stop=st.text("abc\n", min_size=1, max_size=4))
def test_what_is_streamed_is_the_text_before_the_stop_string(text: str, stop: str) -> None:
    sample, chunks = write(TOKENIZER, ids_of(text), stop=stop)
    before, match, _ = text.partition(stop)
    assert "".join(chunks) == before
    assert sample.text == "a" + before
    assert sample.stop_reason == ("stop" if match else "length")
    assert "" not in chunks


def test_no_more_is_held_back_than_might_be_the_stop_string() -> None:
    _, chunks = write(TOKENIZER, ids_of("ababdab"), stop="abc")
    assert chunks == ["ab", "abd", "ab"]


def test_characters_of_several_tokens_are_streamed_whole() -> None:
    sample, chunks = write(ByteTokenizer(has_bos=False), list("né€😀".encode()))
    assert (chunks, sample.text) == (["n", "é", "€", "😀"], "ané€😀")


@pytest.mark.parametrize("end", [[], [256]])
def test_an_unfinished_character_at_the_end_is_what_decode_makes_of_it(end: list[int]) -> None:
    tokenizer = ByteTokenizer(has_bos=True)
    ids = [*"né".encode(), 0xE2, 0x82, *end]
    sample, chunks = write(tokenizer, ids)
    assert sample.text == "a" + "".join(chunks) == "a" + tokenizer.decode(ids) == "ané\ufffd"


def test_a_stop_string_of_several_bytes_a_character_is_found() -> None:
    sample, _ = write(ByteTokenizer(has_bos=False), list("né€😀x".encode()), stop="€😀")
    assert (sample.text, sample.stop_reason) == ("ané", "stop")


def test_the_end_of_a_document_ends_the_text() -> None:
    tokenizer = CharTokenizer("abc", has_bos=True)
    sample, chunks = write(tokenizer, [1, 2, 3, 0, 1], stop="ca")
    assert sample == Sample("abc", "a", "end of document", 3)
    assert "".join(chunks) == "bc"


def test_one_sample_continues_after_another_has_ended() -> None:
    class TwoEnds(Script):
        """Row 0 writes bos at once, row 1 only after three more tokens."""

        def forward(self, ids_bt: Tensor) -> Tensor:
            logits_btv = torch.zeros(*ids_bt.shape, 4)
            ends = [True, ids_bt.shape[1] > 4]
            for index, end in enumerate(ends):
                logits_btv[index, -1, 3 if end else 1] = 1.0
            return logits_btv

    result = generate(
        TwoEnds([], 4, 0),  # type: ignore[arg-type]
        CharTokenizer("abc", has_bos=True),
        "",
        Sampling(max_new_tokens=50, temperature=0.0),
        seed=0,
        indices=(0, 1),
    )
    assert [(sample.text, sample.new_tokens) for sample in result] == [("", 1), ("bbbb", 5)]


# --- what is printed ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\n", "\t", "é", "😀", "Hello, world", "日本語"])
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\r", "\\r"),
        ("\0\x07\x08\x7f", "\\x00\\x07\\x08\\x7f"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_a_terminal_is_made_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


@pytest.mark.fault(22)
@given(st.text(st.characters()))
def test_what_is_printed_steers_no_terminal(text: str) -> None:
    shown = printable(text)
    assert all(character in "\n\t" or character.isprintable() for character in shown)
