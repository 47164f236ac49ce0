"""The kinds of tokenizers, and tokenizer.json, of which every model carries a copy.

Its keys by `kind`, besides `kind`, `format` and `has_bos`:

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
from gpt.tokenizers.byte_level import (
    BPESpec,
    BPETokenizer,
    ByteSpec,
    ByteTokenizer,
    GPT2Spec,
    GPT2Tokenizer,
)
from gpt.tokenizers.char import CharSpec, CharTokenizer

MAX_FILE_BYTES = 64 * 2**20  # larger than all of Unicode as a vocabulary; checked before reading

KINDS: dict[str, type[Tokenizer]] = {
    "char": CharTokenizer,
    "byte": ByteTokenizer,
    "bpe": BPETokenizer,
    "gpt2": GPT2Tokenizer,
}


class _WordSpec(Config):
    """A kind of earlier versions, known to name it in the error."""

    model_config = ConfigDict(extra="ignore")
    kind: Literal["word"]


_Spec = CharSpec | ByteSpec | BPESpec | GPT2Spec | _WordSpec
_SPEC: TypeAdapter[_Spec] = TypeAdapter(Annotated[_Spec, Field(discriminator="kind")])


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
        return spec.tokenizer()
    except OSError as error:
        raise TokenizerError(
            f"{path}: {error.strerror}; run the stages before: dvc repro"
        ) from None
    except ValidationError as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({first_line(error)})") from None
    except ValueError as error:
        raise TokenizerError(f"{path}: not a tokenizer file ({error})") from None
