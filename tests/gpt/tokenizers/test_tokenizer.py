"""Text to ids and back: exact, over all of Unicode, and the ids that peers get."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st

from gpt.errors import TokenizerError
from gpt.tokenizers.base import (
    CHUNK,
    GPT2_TOKENS,
    PATTERNS,
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Pattern,
    Tokenizer,
    WordTokenizer,
    line_breaks,
    load_tokenizer,
    recut,
)
from gpt.tokenizers.bpe_reference import count_pieces, train, vocabulary
from stages.tokenize import write_ids

SURROGATES = st.characters(categories=["Cs"])
SAMPLE = "the hat that the cat sat on; the été of 1999 isn't the 😀 😀 one\n\n" * 3
KINDS = ["char", "byte", "bpe-gpt2", "bpe-gpt4", "gpt2", "word-gpt2", "word-gpt4"]
# What patterns care for, so that it comes often.
TRICKY = st.text(alphabet="ab 's\n\r\t19!é\u3000😀<|endoftext|>\x1c\u0301\u017f")


def char_tokenizer(text: str, *, has_bos: bool = False) -> CharTokenizer:
    return CharTokenizer("".join(sorted(set(text))), has_bos=has_bos)


@cache
def fixed(has_bos: bool) -> list[Tokenizer]:
    """Tokenizers that know every text; of GPT-2 only the number of tokens is true."""
    found: list[Tokenizer] = [ByteTokenizer(has_bos=has_bos)]
    patterns: list[Pattern] = ["gpt2", "gpt4"]
    for pattern in patterns:
        tokens = vocabulary(train(count_pieces([SAMPLE], PATTERNS[pattern]), 300))
        found.append(BPETokenizer(tokens, pattern, has_bos=has_bos))
    found.append(GPT2Tokenizer(many_tokens(), has_bos=has_bos))
    for pattern in patterns:
        found.append(WordTokenizer([" the", "the", "été", " 😀", "\n"], pattern, has_bos=has_bos))
    return found


def many_tokens() -> list[bytes]:
    """As many tokens as GPT-2's, the bytes backwards and not all of them in front."""
    pairs = [bytes([left, right]) for left in range(256) for right in range(256)]
    single = [bytes([byte]) for byte in reversed(range(256))]
    return [*single[:200], *pairs[: GPT2_TOKENS - 256], *single[200:]]


def every(text: str, *, has_bos: bool) -> list[Tokenizer]:
    """One of each kind, in the order of KINDS."""
    return [char_tokenizer(text, has_bos=has_bos), *fixed(has_bos)]


# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_bos", [False, True])
@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_a_line_begins_after_each_token_with_a_break_in_it_and_after_bos(
    kind: int, has_bos: bool
) -> None:
    tokenizer = every(SAMPLE, has_bos=has_bos)[kind]
    found = line_breaks(tokenizer)
    assert set(tokenizer.encode("\n").tolist()) <= set(found)
    assert (tokenizer.bos in found) == has_bos
    others = sorted(set(range(tokenizer.vocab_size)) - set(found))
    assert "\n" not in tokenizer.decode(others)
    assert all("\n" in tokenizer.decode([token]) for token in found if token != tokenizer.bos)


# --- round trip -----------------------------------------------------------------------------------


@given(text=st.text() | TRICKY, has_bos=st.booleans())
def test_every_text_comes_back_as_it_was(text: str, has_bos: bool) -> None:
    for tokenizer in every(text, has_bos=has_bos):
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=st.text(), has_bos=st.booleans())
def test_ids_are_below_the_vocabulary_size_and_never_bos(text: str, has_bos: bool) -> None:
    for tokenizer in every(text, has_bos=has_bos):
        ids = tokenizer.encode(text)
        assert ids.dtype == tokenizer.dtype
        assert all(0 <= token < tokenizer.vocab_size and token != tokenizer.bos for token in ids)


@given(text=st.text() | TRICKY)
def test_decoding_one_id_at_a_time_gives_the_same_text(text: str) -> None:
    for tokenizer in every(text, has_bos=True):
        stream = tokenizer.streaming_decoder()
        assert "".join(stream.feed(int(token)) for token in tokenizer.encode(text)) == text


def test_a_character_is_not_shown_before_its_last_byte() -> None:
    stream = ByteTokenizer(has_bos=False).streaming_decoder()
    assert [stream.feed(byte) for byte in "é€".encode()] == ["", "é", "", "", "€"]


@given(texts=st.lists(st.text() | TRICKY), threads=st.sampled_from([1, 2]))
def test_many_texts_at_once_have_the_ids_of_one_at_a_time(texts: list[str], threads: int) -> None:
    for tokenizer in every("".join(texts), has_bos=True):
        one_by_one = [tokenizer.encode(text).tolist() for text in texts]
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts, threads)] == one_by_one


@given(text=st.text() | TRICKY)
def test_the_bytes_of_the_tokens_add_up_to_the_bytes_of_the_text(text: str) -> None:
    for tokenizer in every(text, has_bos=True):
        assert tokenizer.token_bytes()[tokenizer.encode(text)].sum() == len(text.encode())


@pytest.mark.fault(16)
@given(before=st.text(), wrong=SURROGATES)
def test_a_lone_surrogate_is_refused_with_its_place(before: str, wrong: str) -> None:
    for tokenizer in every(before, has_bos=False):
        with pytest.raises(TokenizerError, match=f"character {len(before)} is a lone surrogate"):
            tokenizer.encode(before + wrong)


@given(known=st.text(min_size=1), other=st.characters())
def test_a_character_that_is_not_in_the_vocabulary_is_never_encoded(known: str, other: str) -> None:
    tokenizer = char_tokenizer(known)
    if other in known:
        assert tokenizer.decode(tokenizer.encode(other)) == other
    else:
        with pytest.raises(TokenizerError):
            tokenizer.encode(other)


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("unknown", "code"), [("é", "U+00E9"), ("😀", "U+1F600"), ("\0", "U+0000")]
)
def test_an_unknown_character_is_named_with_its_place(unknown: str, code: str) -> None:
    with pytest.raises(TokenizerError) as refused:
        char_tokenizer("abc").encode(f"ab{unknown}a")
    assert f"character 2 {unknown!r} ({code}) is not among the 3 characters" in str(refused.value)
    assert "\n" not in str(refused.value)


# --- the ids of peers -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shakespeare(texts: Path) -> str:
    return (texts / "shakespeare.txt").read_bytes().decode()


def test_shakespeare_has_the_sixty_five_characters_of_nanogpt(shakespeare: str) -> None:
    assert char_tokenizer(shakespeare).vocab_size == 65


def test_hello_has_the_ids_of_the_workshop(shakespeare: str) -> None:
    assert char_tokenizer(shakespeare).encode("Hello").tolist() == [20, 43, 50, 50, 53]


def test_the_ids_of_shakespeare_are_those_of_nanogpt(shakespeare: str) -> None:
    tokenizer = char_tokenizer(shakespeare)
    cut = int(len(shakespeare) * 0.9)
    digests = [
        hashlib.sha256(tokenizer.encode(part).tobytes()).hexdigest()[:6]
        for part in (shakespeare[:cut], shakespeare[cut:])
    ]
    assert digests == ["6ec305", "d37d30"]


def test_byte_ids_are_the_bytes_of_utf8() -> None:
    assert ByteTokenizer(has_bos=False).encode("aé").tolist() == [97, 195, 169]


# --- bos ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", every("abc", has_bos=True), ids=KINDS)
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
    for tokenizer in every(text, has_bos=True):
        assert tokenizer.bos not in tokenizer.encode(text)


def test_the_last_id_of_gpt2_is_there_without_several_documents_and_decodes_to_nothing() -> None:
    tokenizer = GPT2Tokenizer(many_tokens(), has_bos=False)
    assert (tokenizer.bos, tokenizer.vocab_size) == (None, 50257)
    assert tokenizer.decode([50256]) == ""
    assert tokenizer.token_bytes()[50256] == 0


@pytest.mark.parametrize("tokenizer", every("abc", has_bos=False), ids=KINDS)
def test_without_bos_there_is_no_further_id(tokenizer: Tokenizer) -> None:
    assert tokenizer.bos is None
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        tokenizer.decode([tokenizer.vocab_size])


@pytest.mark.parametrize("wrong", [-1, 50257, 2**40])
def test_an_id_outside_the_vocabulary_is_refused_by_its_number(wrong: int) -> None:
    for tokenizer in every("abc", has_bos=True):
        with pytest.raises(TokenizerError, match=f"token id {wrong} is outside"):
            tokenizer.decode([0, wrong, 1])


def test_bytes_that_are_not_utf8_decode_to_the_replacement_character() -> None:
    assert ByteTokenizer(has_bos=False).decode([97, 255, 98]) == "a\ufffdb"


# --- dtype ----------------------------------------------------------------------------------------


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
    # From U+10000 on there are no surrogates in the way.
    text = "".join(chr(0x10000 + n) for n in range(characters))
    tokenizer = CharTokenizer(text, has_bos=has_bos)
    assert tokenizer.dtype == np.dtype(dtype)
    ids = tokenizer.encode(text[-2:])
    assert ids.tolist() == [characters - 2, characters - 1]


# --- tokenizer.json -------------------------------------------------------------------------------


def save(folder: Path, spec: dict[str, Any] | str | bytes) -> Path:
    path = folder / "tokenizer.json"
    raw = spec if isinstance(spec, str | bytes) else json.dumps(spec)
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return path


@pytest.mark.parametrize("has_bos", [False, True])
def test_a_tokenizer_comes_back_from_its_file(tmp_path: Path, has_bos: bool) -> None:
    for tokenizer in every("héllo 😀\n\0\u2028", has_bos=has_bos):
        again = load_tokenizer(save(tmp_path, tokenizer.spec()))
        assert type(again) is type(tokenizer)
        assert again.spec() == tokenizer.spec()
        assert again.token_bytes().tolist() == tokenizer.token_bytes().tolist()
        assert (again.vocab_size, again.bos) == (tokenizer.vocab_size, tokenizer.bos)
        assert again.encode("hé").tolist() == tokenizer.encode("hé").tolist()


GOOD = {"format": 1, "kind": "char", "characters": "abc", "has_bos": False}
BYTES = [chr(byte) for byte in range(256)]
BPE = {"format": 1, "kind": "bpe", "pattern": "gpt2", "tokens": [*BYTES, "th"], "has_bos": False}
WORD = {"format": 1, "kind": "word", "pattern": "gpt2", "words": ["the"], "has_bos": False}


def test_the_smallest_files_of_each_kind_are_read(tmp_path: Path) -> None:
    for spec in (GOOD, BPE, WORD):
        assert load_tokenizer(save(tmp_path, spec)).spec() == spec


@pytest.mark.fault(24)
@pytest.mark.parametrize(
    "spec",
    [
        "",
        "{",
        "null",
        "[1]",
        "{}",
        b"\x80\x04\x95pickle",
        b"\xff",
        GOOD | {"format": 2},
        GOOD | {"kind": "bpe"},
        GOOD | {"kind": "byte"},
        GOOD | {"characters": ""},
        GOOD | {"characters": "aba"},
        GOOD | {"characters": ["a"]},
        GOOD | {"characters": "\ud800"},
        GOOD | {"has_bos": 1},
        GOOD | {"more": 1},
        {key: value for key, value in GOOD.items() if key != "has_bos"},
        BPE | {"pattern": "(a+)+$"},
        BPE | {"pattern": None},
        BPE | {"tokens": BYTES[:-1]},
        BPE | {"tokens": [*BYTES[:-1], "th"]},
        BPE | {"tokens": [*BYTES, "th", "th"]},
        BPE | {"tokens": [*BYTES, ""]},
        BPE | {"tokens": [*BYTES, "\u0100"]},
        BPE | {"tokens": [*BYTES, 257]},
        BPE | {"tokens": dict.fromkeys(BYTES, 1)},
        BPE | {"tokens": [*BYTES, *map(str, range(10, 2**20))]},
        BPE | {"kind": "gpt2"},
        {"format": 1, "kind": "gpt2", "tokens": BYTES, "has_bos": False},
        WORD | {"words": ["the", "the"]},
        WORD | {"words": [""]},
        WORD | {"words": ["\ud800"]},
        WORD | {"words": "the"},
        WORD | {"pattern": "gpt5"},
    ],
    ids=lambda spec: repr(spec)[:60],
)
def test_a_damaged_tokenizer_file_is_refused_in_one_line_that_names_it(
    tmp_path: Path, spec: dict[str, Any] | str | bytes
) -> None:
    path = save(tmp_path, spec)
    with pytest.raises(TokenizerError) as refused:
        load_tokenizer(path)
    assert str(refused.value).startswith(f"{path}: not a tokenizer file")
    assert "\n" not in str(refused.value)


def test_the_line_on_a_damaged_file_does_not_repeat_the_file(tmp_path: Path) -> None:
    path = save(tmp_path, "x" * 100_000)
    with pytest.raises(TokenizerError) as refused:
        load_tokenizer(path)
    assert len(str(refused.value)) < len(str(path)) + 500


def test_a_tokenizer_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: No such file"):
        load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.fault(24)
def test_an_absurdly_large_tokenizer_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room on disk, but would in memory
    with pytest.raises(TokenizerError, match="larger than"):
        load_tokenizer(path)


# --- pieces ---------------------------------------------------------------------------------------


def test_a_word_has_one_id_and_a_rare_one_its_bytes() -> None:
    tokenizer = WordTokenizer([" the", "cat"], "gpt2", has_bos=False)
    assert tokenizer.encode("cat the cats").tolist() == [257, 256, 32, *b"cats"]


def test_no_token_reaches_across_pieces() -> None:
    tokenizer = BPETokenizer([bytes([b]) for b in range(256)] + [b"a "], "gpt2", has_bos=False)
    assert tokenizer.encode("a a").tolist() == [*b"a a"]


@given(
    text=TRICKY | st.text(alphabet="a! \n"),
    cuts=st.lists(st.integers(0, 30)),
    pattern=st.sampled_from(sorted(PATTERNS)),
)
@example(text="a! \n!\n\na 'sb\r\n  ", cuts=[1] * 30, pattern="gpt4")
def test_the_pieces_of_the_parts_are_the_pieces_of_the_document(
    text: str, cuts: list[int], pattern: str
) -> None:
    parts, rest = [], text
    for cut in cuts:
        parts.append(("doc", rest[:cut]))
        rest = rest[cut:]
    again = list(recut([("before", "x "), *parts, ("doc", rest), ("after", " y")]))
    assert (again[0], again[-1]) == (("before", "x "), ("after", " y"))
    pieces = regex.compile(PATTERNS[pattern]).findall
    assert [piece for _, part in again[1:-1] for piece in pieces(part)] == pieces(text)


def test_a_document_is_cut_into_parts_that_fit_into_memory() -> None:
    parts = [("doc", "abc " * (CHUNK // 4))] * 20 + [("doc", " " * CHUNK)] * 20
    sizes = [len(text) for _, text in recut(parts)]
    assert sum(sizes) == 40 * CHUNK
    assert max(sizes) <= 3 * CHUNK
    assert len(sizes) > 12


@pytest.mark.parametrize("unit", [" ", "\n", " \t", "a", "!", "é"])
def test_very_long_runs_come_back(unit: str) -> None:
    text = unit * (1_100_000 // len(unit)) + "a"
    for tokenizer in fixed(False):
        assert tokenizer.decode(tokenizer.encode(text)) == text


# --- token files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("pieces", [[], [0], [5], [1, 0, 2], [100_000, 1]], ids=repr)
def test_ids_written_in_pieces_are_an_array_that_numpy_reads(
    tmp_path: Path, dtype: str, pieces: list[int]
) -> None:
    arrays = [np.arange(size).astype(np.uint16) for size in pieces]
    count, sha256 = write_ids(tmp_path / "a.npy", iter(arrays), np.dtype(dtype))
    read = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert (read.dtype, read.shape, count) == (np.dtype(dtype), (sum(pieces),), sum(pieces))
    assert np.array_equal(read, np.concatenate([np.empty(0, np.uint16), *arrays]))
    assert sha256 == hashlib.sha256((tmp_path / "a.npy").read_bytes()).hexdigest()
