"""tokenizer.json: read back as it was written, refused in one line if it is damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
from every_tokenizer import every_tokenizer

from gpt.errors import TokenizerError
from gpt.tokenizers.file import load_tokenizer

CHAR = {"format": 1, "kind": "char", "characters": "abc", "has_bos": False}
BYTES = [chr(byte) for byte in range(256)]
BPE = {"format": 1, "kind": "bpe", "pattern": "gpt2", "tokens": [*BYTES, "th"], "has_bos": False}


def save(folder: Path, spec: dict[str, Any] | str | bytes) -> Path:
    path = folder / "tokenizer.json"
    raw = spec if isinstance(spec, str | bytes) else json.dumps(spec)
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return path


@pytest.mark.parametrize("has_bos", [False, True])
def test_a_tokenizer_is_restored_from_its_file(tmp_path: Path, has_bos: bool) -> None:
    for tokenizer in every_tokenizer("héllo 😀\n\0\u2028", has_bos=has_bos):
        restored = load_tokenizer(save(tmp_path, tokenizer.spec()))
        assert type(restored) is type(tokenizer)
        assert restored.spec() == tokenizer.spec()
        assert restored.token_bytes().tolist() == tokenizer.token_bytes().tolist()
        assert (restored.vocab_size, restored.bos) == (tokenizer.vocab_size, tokenizer.bos)
        assert restored.encode("hé").tolist() == tokenizer.encode("hé").tolist()


def test_the_smallest_files_are_read(tmp_path: Path) -> None:
    for spec in (CHAR, BPE):
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
        CHAR | {"format": 2},
        CHAR | {"kind": "bpe"},
        CHAR | {"kind": "byte"},
        CHAR | {"kind": "words"},
        CHAR | {"characters": ""},
        CHAR | {"characters": "aba"},
        CHAR | {"characters": ["a"]},
        CHAR | {"characters": "\ud800"},
        CHAR | {"has_bos": 1},
        CHAR | {"more": 1},
        {key: value for key, value in CHAR.items() if key != "has_bos"},
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
    ],
    ids=lambda spec: repr(spec)[:60],
)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: No such file"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_the_kind_word_of_earlier_versions_is_refused_with_what_to_use_instead(
    tmp_path: Path,
) -> None:
    word = {"format": 1, "kind": "word", "pattern": "gpt2", "words": ["the"], "has_bos": False}
    with pytest.raises(
        TokenizerError, match=r"tokenizer\.kind = word is no longer supported; .*=bpe"
    ):
        load_tokenizer(save(tmp_path, word))


@pytest.mark.fault(24)
def test_an_absurdly_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: it takes no room on disk, but would in memory
    with pytest.raises(TokenizerError, match="larger than"):
        load_tokenizer(path)
