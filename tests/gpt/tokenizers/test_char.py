"""Characters as tokens: nanoGPT's ids, and errors that name the unknown character."""

import hashlib
import unicodedata
from pathlib import Path

import pytest
from every_tokenizer import char_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from gpt.errors import TokenizerError
from gpt.tokenizers.char import distinct_characters


@pytest.fixture(scope="module")
def shakespeare(texts: Path) -> str:
    return (texts / "shakespeare.txt").read_bytes().decode()


@given(known=st.text(min_size=1), character=st.characters())
def test_a_character_outside_the_vocabulary_is_never_encoded(known: str, character: str) -> None:
    tokenizer = char_tokenizer(known)
    if character in known:
        assert tokenizer.decode(tokenizer.encode(character)) == character
    else:
        with pytest.raises(TokenizerError):
            tokenizer.encode(character)


@pytest.mark.fault(22)
@pytest.mark.parametrize(
    ("unknown", "code"), [("é", "U+00E9"), ("😀", "U+1F600"), ("\0", "U+0000")]
)
def test_an_unknown_character_is_named_with_its_position(unknown: str, code: str) -> None:
    tokenizer = char_tokenizer("abc")
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["aaa", text])):
        with pytest.raises(TokenizerError) as refused:
            encode(f"ab{unknown}a")
        line = str(refused.value)
        assert f"character 2 {unknown!r} ({code}) is not among the 3 characters" in line
        assert "\n" not in line


@pytest.mark.parametrize(("known", "text"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_letters_that_are_only_composed_otherwise_are_named_as_that(known: str, text: str) -> None:
    tokenizer = char_tokenizer(unicodedata.normalize(known, "Zoë, café"))
    with pytest.raises(TokenizerError, match=f"composed.*: normalize the text to {known}"):
        tokenizer.encode(unicodedata.normalize(text, "café"))


def test_shakespeare_has_the_sixty_five_characters_of_nanogpt(shakespeare: str) -> None:
    assert char_tokenizer(shakespeare).vocab_size == 65


def test_hello_has_the_ids_of_the_workshop(shakespeare: str) -> None:
    assert char_tokenizer(shakespeare).encode("Hello").tolist() == [20, 43, 50, 50, 53]


def test_the_ids_of_shakespeare_are_those_of_nanogpt(shakespeare: str) -> None:
    tokenizer = char_tokenizer(shakespeare)
    cut = int(len(shakespeare) * 0.9)
    digests = [
        hashlib.sha256(tokenizer.encode(text).tobytes()).hexdigest()[:6]
        for text in (shakespeare[:cut], shakespeare[cut:])
    ]
    assert digests == ["6ec305", "d37d30"]


@given(texts=st.lists(st.text()))
def test_distinct_characters_are_all_that_occur_sorted(texts: list[str]) -> None:
    assert distinct_characters(texts) == "".join(sorted(set("".join(texts))))
