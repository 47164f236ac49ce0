"""GGUF files, read by llama.cpp's own package."""

from pathlib import Path

import pytest
from small_models import MODERN, QUICK, small_config, small_tokenizers, small_trained_model

from gpt.errors import CheckpointError
from gpt.interop.gguf import gguf_tensors, write_gguf
from gpt.tokenizers.byte_level import ByteTokenizer
from gpt.tokenizers.char import CharTokenizer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte", "bpe gpt2", "char"])
def test_gguf_holds_the_same_tensors_and_tokens(tmp_path: Path, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    tokenizers = {**small_tokenizers(), "char": CharTokenizer("\n abc", has_bos=True)}
    trained = small_trained_model(small_config(), tokenizers[kind])
    (file,) = write_gguf(trained, tmp_path)
    reader = gguf.GGUFReader(file)
    expected = gguf_tensors(trained.model.state_dict(), 2)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (tensors[name] == tensor.numpy()).all(), name
        assert tensors[name].shape == tuple(tensor.shape)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    assert metadata["general.architecture"] == "gpt2"
    assert metadata["gpt2.context_length"] == 16
    assert metadata["gpt2.attention.head_count"] == 2
    assert len(metadata["tokenizer.ggml.tokens"]) == trained.tokenizer.vocab_size
    assert metadata["tokenizer.ggml.eos_token_id"] == trained.tokenizer.bos


@pytest.mark.parametrize(
    "changes", [MODERN, QUICK, {"architecture": "original"}, {"ngram_rows": 8}]
)
def test_what_is_no_gpt2_is_refused_with_the_keys_to_set(tmp_path: Path, changes: dict) -> None:
    trained = small_trained_model(small_config(**changes), ByteTokenizer(has_bos=True))
    with pytest.raises(CheckpointError, match=r"--to hf, or train with -S model\.arch"):
        write_gguf(trained, tmp_path)


def test_an_alphabet_beyond_ascii_is_refused(tmp_path: Path) -> None:
    trained = small_trained_model(small_config(), CharTokenizer("aé", has_bos=True))
    with pytest.raises(CheckpointError, match="characters of several bytes"):
        write_gguf(trained, tmp_path)
