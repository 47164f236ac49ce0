"""Tokens made of bytes."""

import pytest
from every_tokenizer import as_many_tokens_as_gpt2

from gpt.tokenizers.byte_level import BYTE_TO_UNICODE, BPETokenizer, ByteTokenizer, GPT2Tokenizer

BYTES = [bytes([byte]) for byte in range(256)]


def test_byte_ids_are_the_bytes_of_utf8() -> None:
    assert ByteTokenizer(has_bos=False).encode("aé").tolist() == [97, 195, 169]


@pytest.mark.parametrize(
    "tokenizer", [ByteTokenizer(has_bos=False), BPETokenizer(BYTES, "gpt4", has_bos=False)]
)
def test_bytes_that_are_not_utf8_decode_to_the_replacement_character(
    tokenizer: ByteTokenizer | BPETokenizer,
) -> None:
    assert tokenizer.decode([97, 255, 98]) == "a\ufffdb"


def test_a_character_is_not_streamed_before_its_last_byte() -> None:
    stream = ByteTokenizer(has_bos=False).streaming_decoder()
    assert [stream.feed(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]


def test_no_token_crosses_pre_tokens() -> None:
    tokenizer = BPETokenizer([*BYTES, b"a "], "gpt2", has_bos=False)
    assert tokenizer.encode("a a").tolist() == [*b"a a"]


def test_gpt2_keeps_its_last_id_in_a_corpus_of_one_document() -> None:
    tokenizer = GPT2Tokenizer(as_many_tokens_as_gpt2(), has_bos=False)
    assert (tokenizer.bos, tokenizer.vocab_size) == (None, 50257)
    assert tokenizer.decode([50256]) == ""
    assert tokenizer.token_bytes()[50256] == 0


def test_the_characters_of_the_bytes_are_256_and_printable() -> None:
    assert len(set(BYTE_TO_UNICODE.values())) == 256
    assert BYTE_TO_UNICODE[ord(" ")] == "\u0120"  # what tokens of GPT-2 are known by
    assert all(character.isprintable() for character in BYTE_TO_UNICODE.values())
