"""GPT-2's published vocabulary, the file vocab.bpe."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from gpt.corpus.downloads import Download, fetch
from gpt.errors import DataError, TokenizerError
from gpt.tokenizers.byte_level import BYTE_TO_UNICODE

_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe"
GPT2_FILE = hashlib.sha1(_URL.encode(), usedforsecurity=False).hexdigest()  # tiktoken's name for it
GPT2_VOCAB = Download(
    f"tiktoken/{GPT2_FILE}",
    _URL,
    sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
)


def find_gpt2_vocab(folders: Iterable[Path], mirror: str | None) -> bytes | None:
    """Reads vocab.bpe from tiktoken's cache `folders` or `mirror`; None if none holds it."""
    for folder in [*folders, *([Path(mirror) / "tiktoken"] if mirror else [])]:
        try:
            content = (folder / GPT2_FILE).read_bytes()
        except OSError:
            continue
        if hashlib.sha256(content).hexdigest() == GPT2_VOCAB.sha256:
            return content
    return None


def load_gpt2_vocab(folders: Iterable[Path], cache: Path, mirror: str | None) -> bytes:
    """Finds vocab.bpe or downloads it to `cache`. Raises TokenizerError if that fails."""
    if content := find_gpt2_vocab(folders, mirror):
        return content
    try:
        return fetch(GPT2_VOCAB, cache, mirror).read_bytes()
    except DataError as error:
        raise TokenizerError(
            f"tokenizer.kind = gpt2: {error}; or save it as {GPT2_FILE} in a folder, set "
            "TIKTOKEN_CACHE_DIR to that folder, or use tokenizer.kind=bpe"
        ) from None


def gpt2_tokens(vocab_bpe: bytes) -> list[bytes]:
    """Parses vocab.bpe to GPT-2's tokens, in the order of their ids.

    Raises TokenizerError if it is another file.
    """
    if hashlib.sha256(vocab_bpe).hexdigest() != GPT2_VOCAB.sha256:
        raise TokenizerError("vocab.bpe: not GPT-2's file (wrong sha256); delete it")
    byte_of = {character: byte for byte, character in BYTE_TO_UNICODE.items()}
    tokens = [bytes([byte]) for byte in BYTE_TO_UNICODE]
    for line in vocab_bpe.decode().splitlines()[1:]:
        tokens.append(bytes(byte_of[character] for character in line.replace(" ", "")))
    return tokens
