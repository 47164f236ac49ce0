"""Feeds a reader bytes that coverage chooses, for as long as one likes (atheris, libFuzzer).

    pip install atheris
    python tests/coverage_fuzz.py tokenizer -max_total_time=1200  # config, weights, corpus, text

`tests/faults/test_fuzz.py` checks the same with hypothesis, in seconds and for every reader: a
reader returns what is right or raises an error of ours. Anything else stops here with the bytes.
"""

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

with atheris.instrument_imports(include=["gpt", "pydantic", "safetensors", "json"]):
    from gpt.checkpoint import load_model
    from gpt.corpus.manifest import read_chunks
    from gpt.corpus.sources import read_text
    from gpt.corpus.writer import CorpusWriter
    from gpt.errors import GptError
    from gpt.tokenizers.file import load_tokenizer
from saved_models import TOKENIZER, saved_model, vouch


def tokenizer(folder: Path, raw: bytes) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(raw)
    loaded = load_tokenizer(path)
    assert len(loaded.token_bytes()) == loaded.vocab_size
    assert isinstance(loaded.decode(list(range(min(loaded.vocab_size, 20)))), str)


def config(folder: Path, raw: bytes) -> None:
    (folder / "model/config.json").write_bytes(raw)
    load_model(folder / "model")


def weights(folder: Path, raw: bytes) -> None:
    (folder / "model/config.json").write_bytes((folder / "config.json").read_bytes())
    (folder / "model/model.safetensors").write_bytes(raw)
    vouch(folder / "model")
    load_model(folder / "model")


def corpus(folder: Path, raw: bytes) -> None:
    manifest = json.loads((folder / "corpus/written.json").read_bytes())
    manifest["splits"]["train"]["sha256"] = hashlib.sha256(raw).hexdigest()
    (folder / "corpus/train.jsonl").write_bytes(raw)
    (folder / "corpus/corpus.json").write_text(json.dumps(manifest), encoding="utf-8")
    for doc, text in read_chunks(folder / "corpus", "train"):
        assert isinstance(doc, str) and isinstance(text, str)


def text(folder: Path, raw: bytes) -> None:
    (folder / "a.txt").write_bytes(raw)
    read = "".join(read_text(folder / "a.txt"))
    assert read == raw.decode("utf-8-sig")


READERS: dict[str, Callable[[Path, bytes], None]] = {
    reader.__name__: reader for reader in (tokenizer, config, weights, corpus, text)
}


def main() -> None:
    reader = READERS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved_model(folder / "model")
        (folder / "config.json").write_bytes((folder / "model/config.json").read_bytes())
        (folder / "corpus").mkdir()
        with CorpusWriter(folder / "corpus") as writer:
            written = writer.finish({})
        (folder / "corpus/written.json").write_text(json.dumps(written), encoding="utf-8")
        # The seed: an undamaged file of each kind.
        seeds = folder / "seeds"
        seeds.mkdir()
        intact = {
            "tokenizer": json.dumps(TOKENIZER.spec()).encode(),
            "config": (folder / "config.json").read_bytes(),
            "weights": (folder / "model/model.safetensors").read_bytes(),
            "corpus": b'{"doc": "a", "text": "b"}\n',
            "text": "\ufeffa\r\nB 漢".encode(),
        }
        (seeds / "intact").write_bytes(intact[reader.__name__])
        # Readers written in Rust show no coverage: keys and strings are offered as words.
        words = set(re.findall(rb"[\w.]+", intact[reader.__name__][:5_000]))
        lines = [f'"{word.decode("latin-1")}"' for word in words if word.isascii()]
        (folder / "words").write_text("\n".join(lines), encoding="utf-8")

        def once(raw: bytes) -> None:
            try:
                reader(folder, raw)
            except GptError as error:
                assert "\n" not in str(error) and len(str(error)) < 1_000

        atheris.Setup([*sys.argv, f"-dict={folder}/words", str(seeds)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
