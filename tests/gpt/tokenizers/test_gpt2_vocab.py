"""GPT-2's vocabulary: the ids of tiktoken, from a file that is checked."""

from pathlib import Path
from typing import Any

import pytest
from conftest import missing
from hypothesis import given
from hypothesis import strategies as st

from gpt.errors import TokenizerError
from gpt.tokenizers.byte_level import GPT2Tokenizer
from gpt.tokenizers.gpt2_vocab import GPT2_FILE, find_gpt2_vocab, gpt2_tokens


@pytest.fixture
def tiktokens(gpt2_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache))
    try:
        return tiktoken.get_encoding("gpt2")
    except OSError:
        missing("GPT_MIRROR/tiktoken lacks the second file, which tiktoken itself reads")


@given(text=st.text())
def test_gpt2_decodes_to_the_text(gpt2: GPT2Tokenizer, text: str) -> None:
    assert gpt2.decode(gpt2.encode(text)) == text


def test_the_ids_of_gpt2_are_those_of_tiktoken(
    gpt2: GPT2Tokenizer, tiktokens: Any, texts: Path
) -> None:
    shakespeare = (texts / "shakespeare.txt").read_bytes().decode()
    for text in ("Hello<|endoftext|> été\n\n 😀 \u3000x", shakespeare):
        assert gpt2.encode(text).tolist() == tiktokens.encode_ordinary(text)


def test_shakespeare_has_as_many_tokens_as_nanogpt_counts(gpt2: GPT2Tokenizer, texts: Path) -> None:
    text = (texts / "shakespeare.txt").read_bytes().decode()
    cut = int(len(text) * 0.9)
    assert [len(gpt2.encode(split)) for split in (text[:cut], text[cut:])] == [301_966, 36_059]


def test_another_file_is_refused() -> None:
    with pytest.raises(TokenizerError, match="wrong sha256"):
        gpt2_tokens(b"#version: 0.2\n")


def test_a_damaged_file_is_skipped(tmp_path: Path, gpt2_cache: Path) -> None:
    (tmp_path / GPT2_FILE).write_bytes(b"half a file")
    assert find_gpt2_vocab([tmp_path], None) is None
    intact = (gpt2_cache / GPT2_FILE).read_bytes()
    assert find_gpt2_vocab([tmp_path], str(gpt2_cache.parent)) == intact
