"""Byte pair encoding: rustbpe and tiktoken against plain Python (bpe_reference.py)."""

from collections import Counter
from pathlib import Path

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from gpt.tokenizers import bpe_reference as reference
from gpt.tokenizers.bpe_training import train_bpe
from gpt.tokenizers.byte_level import BPETokenizer
from gpt.tokenizers.chunking import PATTERNS, Pattern

# Few characters, so that counts tie; and what both regular expression engines know: a code point
# that is not assigned yet may be a letter to the newer one.
TIES = st.text(alphabet="ab c\n'1é", max_size=80)
ASSIGNED = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=80)
CORPORA = st.lists(TIES | ASSIGNED, max_size=4)
PATTERN = st.sampled_from(["gpt2", "gpt4"])


def reference_merges(texts: list[str], pattern: Pattern, vocab_size: int) -> list[reference.Pair]:
    return reference.train(reference.count_pre_tokens(texts, PATTERNS[pattern]), vocab_size)


@given(texts=CORPORA, vocab_size=st.integers(256, 330), pattern=PATTERN)
@example(texts=["aaaaa aaaa aaa aa", "abab", "baba"], vocab_size=300, pattern="gpt2")
def test_the_reference_learns_the_merges_of_rustbpe(
    texts: list[str], vocab_size: int, pattern: Pattern
) -> None:
    merges = reference_merges(texts, pattern, vocab_size)
    tokens = train_bpe(texts, vocab_size=vocab_size, pattern=pattern)
    assert reference.vocabulary(merges) == tokens


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_merges_of_shakespeare_are_those_of_rustbpe(texts: Path, pattern: Pattern) -> None:
    text = (texts / "shakespeare.txt").read_bytes().decode()
    merges = reference_merges([text], pattern, 512)
    assert reference.vocabulary(merges) == train_bpe([text], vocab_size=512, pattern=pattern)


def test_equal_counts_go_to_the_smaller_ids_whatever_the_order() -> None:
    for order in (["dc", "ba", "ab"], ["ab", "dc", "ba"]):
        counts = Counter({pre_token.encode(): 2 for pre_token in order})
        assert reference.train(counts, 258) == [(ord("a"), ord("b")), (ord("b"), ord("a"))]


def test_the_textbook_example() -> None:
    merges = reference.train({b"aaabdaaabac": 1}, 259)
    assert reference.vocabulary(merges)[256:] == [b"aa", b"ab", b"aaab"]


@given(texts=CORPORA, pattern=PATTERN)
def test_merges_can_be_recovered_from_the_tokens(texts: list[str], pattern: Pattern) -> None:
    merges = reference_merges(texts, pattern, 330)
    assert reference.merges_of(reference.vocabulary(merges)) == merges


def test_tokens_that_no_merges_make_are_refused() -> None:
    with pytest.raises(ValueError, match="token 256 is not a merge"):
        reference.merges_of([bytes([byte]) for byte in range(256)] + [b"abc"])


@given(texts=CORPORA, unseen=TIES | ASSIGNED, pattern=PATTERN)
def test_the_reference_gives_the_ids_of_tiktoken(
    texts: list[str], unseen: str, pattern: Pattern
) -> None:
    merges = reference_merges(texts, pattern, 330)
    tokenizer = BPETokenizer(reference.vocabulary(merges), pattern, has_bos=False)
    for text in [*texts, unseen]:
        pre_tokens = regex.findall(PATTERNS[pattern], text)
        ids = [
            id for pre_token in pre_tokens for id in reference.encode(pre_token.encode(), merges)
        ]
        assert tokenizer.encode(text).tolist() == ids


def test_a_text_that_names_a_control_token_trains_and_encodes_as_text() -> None:
    text = "<|endoftext|> " * 50
    tokens = train_bpe([text], vocab_size=300, pattern="gpt2")
    tokenizer = BPETokenizer(tokens, "gpt2", has_bos=True)
    assert tokenizer.bos not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
