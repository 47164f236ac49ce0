"""Whatever the bytes, a reader returns what is right or refuses in one line; it never crashes.

Each example is the output of one of our writers with a few changes, or arbitrary bytes.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from saved_models import TOKENIZER, saved_model, vouch

from gpt.batches import open_tokens
from gpt.checkpoint import load_model
from gpt.corpus.manifest import read_chunks
from gpt.corpus.text_files import SIGNATURES, read_text
from gpt.corpus.writer import CorpusWriter
from gpt.errors import DataError, GptError
from gpt.tokenizers.file import load_tokenizer
from gpt.training_state import CheckpointStore

fuzzed = settings(max_examples=150)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
# Nested so deep that a recursive reader overflows the stack.
DEEP = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b'{"doc": ' + b"[" * 100_000])


@st.composite
def damaged(draw: st.DrawFn, intact: bytes) -> bytes:
    """`intact` with bytes changed, removed or inserted; or arbitrary bytes."""
    raw = bytearray(intact)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(raw)))
        end = start + draw(st.integers(0, 4))
        raw[start:end] = draw(st.binary(max_size=4))
    return draw(st.just(bytes(raw)) | st.binary(max_size=64) | DEEP)


@st.composite
def changed(draw: st.DrawFn, value: dict[str, Any]) -> bytes:
    """A JSON object with some values, anywhere in it, replaced by others."""
    value = json.loads(json.dumps(value))
    inner = [value, *(section for section in value.values() if isinstance(section, dict))]
    for _ in range(draw(st.integers(1, 3))):
        section = draw(st.sampled_from(inner))
        if section:
            section[draw(st.sampled_from(sorted(section)))] = draw(JSON)
    return json.dumps(value).encode()


@contextmanager
def refusals() -> Iterator[None]:
    """A refusal is one line, and not a long one."""
    try:
        yield
    except GptError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    saved_model(folder)
    return folder


def with_bytes(path: Path, raw: bytes, read: Callable[[], object]) -> None:
    """Reads with other bytes in `path`, which gets its own back."""
    before = path.read_bytes()
    path.write_bytes(raw)
    try:
        with refusals():
            read()
    finally:
        path.write_bytes(before)


@pytest.mark.fault(24)
@fuzzed
@given(data=st.data())
def test_any_tokenizer_file_is_read_or_refused(model: Path, data: st.DataObject) -> None:
    intact = json.dumps(TOKENIZER.spec()).encode()
    raw = data.draw(damaged(intact) | changed(TOKENIZER.spec()))
    path = model / "tokenizer.json"

    def read() -> None:
        tokenizer = load_tokenizer(path)
        # What was read is a tokenizer.
        ids = list(range(min(tokenizer.vocab_size, 20)))
        assert len(tokenizer.token_bytes()) == tokenizer.vocab_size
        assert isinstance(tokenizer.decode(ids), str)

    with_bytes(path, raw, read)


@pytest.mark.fault(24)
@fuzzed
@given(data=st.data())
def test_any_config_is_read_or_refused(model: Path, data: st.DataObject) -> None:
    path = model / "config.json"
    intact = path.read_bytes()
    raw = data.draw(damaged(intact) | changed(json.loads(intact)))
    with_bytes(path, raw, lambda: load_model(model))


@pytest.mark.fault(24)
@fuzzed
@given(data=st.data())
def test_any_weights_are_read_or_refused_also_where_the_hash_is_theirs(
    model: Path, data: st.DataObject
) -> None:
    path = model / "model.safetensors"
    intact = path.read_bytes()
    size = int.from_bytes(intact[:8], "little")
    header = data.draw(damaged(intact[8 : 8 + size]) | changed(json.loads(intact[8 : 8 + size])))
    length = data.draw(st.just(len(header)) | st.integers(0, 2**64 - 1))
    config = (model / "config.json").read_bytes()

    def read() -> None:
        vouch(model)
        load_model(model)

    try:
        with_bytes(path, length.to_bytes(8, "little") + header + intact[8 + size :], read)
    finally:
        (model / "config.json").write_bytes(config)


@pytest.mark.fault(6)
@fuzzed
@given(data=st.data())
def test_any_state_is_gone_on_from_or_named_and_passed_by(data: st.DataObject) -> None:
    state_json = json.dumps({"step": 1}).encode()
    files = {"state.safetensors": save({}), "state.json": state_json}
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in files.items()}
    manifest = {"format": 1, "sha256": hashes}
    raw = data.draw(damaged(json.dumps(manifest).encode()) | changed(manifest))
    with TemporaryDirectory() as name:
        warned: list[str] = []
        with CheckpointStore(Path(name) / "run", warn=warned.append) as states:
            state = states.folder / "step_00000001"
            state.mkdir()
            for file, content in (*files.items(), ("manifest.json", raw)):
                (state / file).write_bytes(content)
            latest = states.latest()
    assert (latest is None) == (len(warned) == 1)
    assert latest is None or latest[1] == {"step": 1}


@pytest.mark.fault(16)
@fuzzed
@given(
    raw=st.binary() | st.builds(str.encode, st.text(), st.sampled_from(["utf-8", "utf-16-le"])),
    encoding=st.sampled_from(["utf-8", "utf-16-le", "cp1252"]),
)
def test_any_bytes_are_the_text_they_are_or_refused(raw: bytes, encoding: str) -> None:
    try:
        expected = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeError:
        expected = "\0"
    with TemporaryDirectory() as name:
        path = Path(name) / "a.txt"
        path.write_bytes(raw)
        try:
            text = "".join(read_text(path, encoding))
        except DataError as error:
            assert "\0" in expected or raw.startswith(tuple(SIGNATURES))
            assert re.search(r"a.txt: (byte \d+ is |not text but )", str(error))
        else:
            assert text == expected


@pytest.mark.fault(24)
@fuzzed
@given(data=st.data())
def test_any_line_of_a_corpus_is_a_document_or_refused(data: st.DataObject) -> None:
    line = {"doc": "a", "text": "b"}
    raw = data.draw(damaged(json.dumps(line).encode()) | changed(line))
    with TemporaryDirectory() as name:
        folder = Path(name)
        with CorpusWriter(folder) as writer:
            manifest = writer.finish({})
        (folder / "train.jsonl").write_bytes(raw)
        manifest["splits"]["train"]["sha256"] = hashlib.sha256(raw).hexdigest()
        (folder / "corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
        with refusals():
            for doc, text in read_chunks(folder, "train"):
                assert isinstance(doc, str) and isinstance(text, str)


@pytest.mark.fault(19)
@fuzzed
@given(data=st.data())
def test_any_token_file_is_read_or_refused_also_where_the_hash_is_its_own(
    data: st.DataObject,
) -> None:
    description = b"{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }\n"
    deep = st.sampled_from([b"(" * 90, b"(" * 5_000, b"-" * 5_000])
    header = data.draw(damaged(description) | deep)[:60_000]
    raw = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)
    tokens = data.draw(st.just(4) | JSON)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.npy").write_bytes(raw)
        split_info = {"tokens": tokens, "sha256": hashlib.sha256(raw).hexdigest()}
        (folder / "tokens.json").write_text(
            json.dumps({"splits": {"train": split_info}}), encoding="utf-8"
        )
        with refusals():
            assert len(open_tokens(folder, "train", 65)) == 4
