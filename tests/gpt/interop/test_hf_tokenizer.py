"""Our tokenizers, read by transformers."""

import os
from pathlib import Path
from typing import Any

import pytest
from small_models import TEXT, small_config, small_tokenizers, small_trained_model

from gpt.interop.hf_tokenizer import byte_pairs
from gpt.interop.huggingface import write_hugging_face
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.byte_level import GPT2Tokenizer
from gpt.tokenizers.gpt2_vocab import GPT2_FILE, gpt2_tokens

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def read_by_transformers(tokenizer: Tokenizer, folder: Path) -> Any:
    pytest.importorskip("transformers", exc_type=ImportError)
    from transformers import AutoTokenizer

    write_hugging_face(small_trained_model(small_config(), tokenizer), folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["char", "byte", "bpe gpt2", "bpe gpt4"])
def test_transformers_gives_the_ids_of_our_tokenizer(tmp_path: Path, kind: str) -> None:
    tokenizer = small_tokenizers()[kind]
    theirs = read_by_transformers(tokenizer, tmp_path)
    for text in (TEXT, TEXT[::-1], "a", " ", "\n\n ", TEXT.replace(" ", "  ")):
        ids = tokenizer.encode(text).tolist()
        assert theirs.encode(text, add_special_tokens=False) == ids, text
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == tokenizer.bos
    assert len(theirs) == tokenizer.vocab_size


def test_transformers_gives_the_ids_of_gpt2(tmp_path: Path) -> None:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        pytest.skip("TIKTOKEN_CACHE_DIR is not set: GPT-2's tokenizer files")
    content = (Path(folder) / GPT2_FILE).read_bytes()
    tokenizer = GPT2Tokenizer(gpt2_tokens(content), has_bos=True)
    theirs = read_by_transformers(tokenizer, tmp_path)
    assert theirs.encode(TEXT) == tokenizer.encode(TEXT).tolist()


def test_an_unknown_character_is_an_error_there_too(tmp_path: Path) -> None:
    theirs = read_by_transformers(small_tokenizers()["char"], tmp_path)
    assert theirs.unk_token is None
    with pytest.raises(Exception, match="Missing"):
        theirs.encode("a€b")


def test_merges_are_derived_from_the_ranks() -> None:
    tokens, merges = byte_pairs(small_tokenizers()["bpe gpt2"])
    assert len(merges) == len(tokens) - 256
    assert [left + right for left, right in merges] == tokens[256:]
    known = set(tokens[:256])
    for left, right in merges:
        assert {left, right} <= known
        known.add(left + right)
