"""What every tokenizer promises: lossless encoding, ids within the vocabulary, `bos`."""

import numpy as np
import pytest
from every_tokenizer import KINDS, SAMPLE, TRICKY, every_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from gpt.errors import TokenizerError
from gpt.tokenizers.base import Tokenizer, line_breaks
from gpt.tokenizers.char import CharTokenizer

SURROGATES = st.characters(categories=["Cs"])


@given(text=st.text() | TRICKY, has_bos=st.booleans())
def test_decoding_the_ids_of_a_text_gives_the_text(text: str, has_bos: bool) -> None:
    for tokenizer in every_tokenizer(text, has_bos=has_bos):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(), has_bos=st.booleans())
def test_ids_are_below_the_vocabulary_size_and_never_bos(text: str, has_bos: bool) -> None:
    for tokenizer in every_tokenizer(text, has_bos=has_bos):
        ids = tokenizer.encode(text)
        assert ids.dtype == tokenizer.dtype
        assert all(0 <= token < tokenizer.vocab_size and token != tokenizer.bos for token in ids)


@given(text=st.text() | TRICKY)
def test_decoding_one_id_at_a_time_gives_the_same_text(text: str) -> None:
    for tokenizer in every_tokenizer(text, has_bos=True):
        stream = tokenizer.streaming_decoder()
        assert "".join(stream.feed(int(token)) for token in tokenizer.encode(text)) == text


@given(texts=st.lists(st.text() | TRICKY), threads=st.sampled_from([1, 2]))
def test_a_batch_has_the_ids_of_its_texts_one_at_a_time(texts: list[str], threads: int) -> None:
    for tokenizer in every_tokenizer("".join(texts), has_bos=True):
        one_at_a_time = [tokenizer.encode(text).tolist() for text in texts]
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts, threads)] == one_at_a_time


@given(text=st.text() | TRICKY)
def test_the_bytes_of_the_tokens_add_up_to_the_bytes_of_the_text(text: str) -> None:
    for tokenizer in every_tokenizer(text, has_bos=True):
        assert tokenizer.token_bytes()[tokenizer.encode(text)].sum() == len(text.encode())


@pytest.mark.fault(16)
@given(before=st.text(), surrogate=SURROGATES)
def test_a_lone_surrogate_is_refused_by_its_position(before: str, surrogate: str) -> None:
    for tokenizer in every_tokenizer(before, has_bos=False):
        with pytest.raises(TokenizerError, match=f"character {len(before)} is a lone surrogate"):
            tokenizer.encode(before + surrogate)


@pytest.mark.parametrize("unit", [" ", "\n", " \t", "a", "!", "é"])
def test_a_million_equal_characters_decode_to_the_same_text(unit: str) -> None:
    text = unit * (1_100_000 // len(unit)) + "a"
    for tokenizer in every_tokenizer(text, has_bos=False):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("has_bos", [False, True])
@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_line_breaks_are_the_tokens_with_a_line_break_in_them_and_bos(
    kind: int, has_bos: bool
) -> None:
    tokenizer = every_tokenizer(SAMPLE, has_bos=has_bos)[kind]
    breaks = line_breaks(tokenizer)
    assert set(tokenizer.encode("\n").tolist()) <= set(breaks)
    assert (tokenizer.bos in breaks) == has_bos
    without = sorted(set(range(tokenizer.vocab_size)) - set(breaks))
    assert "\n" not in tokenizer.decode(without)
    assert all("\n" in tokenizer.decode([token]) for token in breaks if token != tokenizer.bos)


# --- bos ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", every_tokenizer("abc", has_bos=True), ids=KINDS)
def test_bos_is_the_last_id_and_decodes_to_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.bos == tokenizer.vocab_size - 1
    assert tokenizer.bos is not None
    a = int(tokenizer.encode("a")[0])
    assert tokenizer.decode([tokenizer.bos, a, tokenizer.bos]) == "a"
    assert tokenizer.streaming_decoder().feed(tokenizer.bos) == ""
    assert tokenizer.token_bytes()[tokenizer.bos] == 0


@pytest.mark.fault(17)
@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|endoftext|>b", "<bos>", "\0", "\u0100"])
def test_no_text_encodes_to_bos(text: str) -> None:
    for tokenizer in every_tokenizer(text, has_bos=True):
        assert tokenizer.bos not in tokenizer.encode(text)


@pytest.mark.parametrize("tokenizer", every_tokenizer("abc", has_bos=False), ids=KINDS)
def test_without_bos_there_is_no_further_id(tokenizer: Tokenizer) -> None:
    assert tokenizer.bos is None
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])


@pytest.mark.parametrize("outside", [-1, 50257, 2**40])
def test_an_id_outside_the_vocabulary_is_refused_by_its_number(outside: int) -> None:
    for tokenizer in every_tokenizer("abc", has_bos=True):
        with pytest.raises(TokenizerError, match=f"token id {outside} is outside"):
            tokenizer.decode([0, outside, 1])


@pytest.mark.fault(19)
@pytest.mark.parametrize(
    ("characters", "has_bos", "dtype"),
    [
        (65535, True, "uint16"),
        (65536, False, "uint16"),
        (65536, True, "uint32"),
        (65537, False, "uint32"),
    ],
)
def test_ids_take_two_bytes_as_long_as_every_id_fits(
    characters: int, has_bos: bool, dtype: str
) -> None:
    # From U+10000 on there are no surrogates.
    text = "".join(chr(0x10000 + n) for n in range(characters))
    tokenizer = CharTokenizer(text, has_bos=has_bos)
    assert tokenizer.dtype == np.dtype(dtype)
    ids = tokenizer.encode(text[-2:])
    assert ids.tolist() == [characters - 2, characters - 1]
