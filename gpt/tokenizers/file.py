"""tokenizer.json: one self-contained file, of which every model carries a copy.

By `kind`, besides `format` and `has_bos`:

    char    characters   all of them, in the order of their ids
    byte
    bpe     tokens       in the order of their ids, which is that of the merges; each character of a
                         token is one of its bytes (U+0000 to U+00FF), so ASCII is readable
            pattern      gpt2 | gpt4: how text is split into pre-tokens, which no token crosses
    gpt2    tokens       as for bpe
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from gpt.config import Config, first_line
from gpt.errors import TokenizerError
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.byte_level import BPETokenizer, ByteTokenizer, GPT2Tokenizer, Pattern
from gpt.tokenizers.char import CharTokenizer

MAX_FILE_BYTES = 64 * 2**20  # larger than all of Unicode as a vocabulary; checked before reading
MAX_VOCAB_SIZE = 2**20
GPT2_TOKENS = 50256


class _AnySpec(Config):
    format: Literal[1]
    has_bos: bool


class _CharSpec(_AnySpec):
    kind: Literal["char"]
    characters: str = Field(min_length=1)


class _ByteSpec(_AnySpec):
    kind: Literal["byte"]


class _BPESpec(_AnySpec):
    kind: Literal["bpe"]
    pattern: Pattern
    tokens: list[str] = Field(min_length=256, max_length=MAX_VOCAB_SIZE)


class _GPT2Spec(_AnySpec):
    kind: Literal["gpt2"]
    tokens: list[str] = Field(min_length=GPT2_TOKENS, max_length=GPT2_TOKENS)


class _WordSpec(Config):
    """A kind of earlier versions, known to name it in the error."""

    model_config = ConfigDict(extra="ignore")
    kind: Literal["word"]


_Spec = _CharSpec | _ByteSpec | _BPESpec | _GPT2Spec
_SPEC: TypeAdapter[_Spec | _WordSpec] = TypeAdapter(
    Annotated[_Spec | _WordSpec, Field(discriminator="kind")]
)


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a tokenizer.json. Raises TokenizerError if it is missing or damaged."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TokenizerError(f"{path}: larger than {MAX_FILE_BYTES} bytes, not a tokenizer")
        spec = _SPEC.validate_json(path.read_bytes())
        if isinstance(spec, _WordSpec):
            raise TokenizerError(
                f"{path}: tokenizer.kind = word is no longer supported; "
                "train again with tokenizer.kind=bpe"
            )
        return _tokenizer_of(spec)
    except OSError as error:
        raise TokenizerError(
            f"{path}: {error.strerror}; run the stages before: dvc repro"
        ) from None
    except ValidationError as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({first_line(error)})") from None
    except ValueError as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({error})") from None


def _tokenizer_of(spec: _Spec) -> Tokenizer:
    """Raises ValueError for a spec of the right form that does not describe a tokenizer."""
    if isinstance(spec, _ByteSpec):
        return ByteTokenizer(has_bos=spec.has_bos)
    if isinstance(spec, _CharSpec):
        if len(set(spec.characters)) != len(spec.characters):
            raise ValueError("a character occurs twice")
        return CharTokenizer(spec.characters, has_bos=spec.has_bos)
    try:
        tokens = [token.encode("latin-1") for token in spec.tokens]
    except UnicodeEncodeError as error:
        raise ValueError(f"a token has a character above U+00FF: {error.object[:20]!r}") from None
    known = set(tokens)
    if len(known) != len(tokens) or b"" in known:
        raise ValueError("a token is empty or occurs twice")
    if any(bytes([byte]) not in known for byte in range(256)):
        raise ValueError("not every byte is a token, so some texts have no ids")
    if isinstance(spec, _GPT2Spec):
        return GPT2Tokenizer(tokens, has_bos=spec.has_bos)
    return BPETokenizer(tokens, spec.pattern, has_bos=spec.has_bos)
