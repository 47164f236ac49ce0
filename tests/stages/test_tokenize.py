"""The stage tokenize: what it writes and prints for each kind."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from conftest import missing

from gpt.corpus.writer import CorpusWriter
from gpt.errors import TokenizerError
from gpt.tokenizers.byte_level import GPT2Tokenizer
from gpt.tokenizers.file import KINDS, load_tokenizer
from gpt.tokenizers.gpt2_vocab import GPT2_FILE
from repro.tracking import run as tracking
from stages import params, tokenize
from stages.params import TokenizerParams

PLAY = "ROMEO:\nBut soft! What light through yonder window breaks?\n\nIt is the east. "
DOCUMENTS = {"one": PLAY * 30, "two": "été 😀 " * 50, "three": PLAY * 3}


class Run(tracking.Run):
    """Keeps what would go to MLflow."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, float] = {}

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.logged |= metrics


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("TIKTOKEN_CACHE_DIR", "GPT_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path


def run(documents: dict[str, str], chunk: int = 40, **options: Any) -> tuple[dict[str, Any], Run]:
    """metrics/tokenize.json of documents (the last one for validation) written in small chunks."""
    with CorpusWriter(params.CORPUS) as writer:
        for number, (name, text) in enumerate(documents.items(), start=1):
            split = "val" if number == len(documents) else "train"
            for start in range(0, len(text), chunk):
                writer.write(split, name, text[start : start + chunk])
        writer.finish({"corpus": "own", "documents": len(documents)})
    text = (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
    defaults = params.parse(text)
    section = defaults.tokenizer.model_copy(update=options)
    tracked = Run()
    tokenize.tokenize(defaults.model_copy(update={"tokenizer": section}), tracked)
    return json.loads(params.TOKENIZE_METRICS.read_bytes()), tracked


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_a_corpus_in_chunks_has_the_ids_of_its_documents(
    repository: Path, kind: str, pattern: str
) -> None:
    metrics, _ = run(DOCUMENTS, kind=kind, pattern=pattern, vocab_size=400)
    tokenizer = load_tokenizer(params.TOKENS / "tokenizer.json")
    assert tokenizer.bos is not None
    ids = np.load(params.TOKENS / "train.npy").tolist()
    first, second = (tokenizer.encode(DOCUMENTS[name]).tolist() for name in ("one", "two"))
    assert ids == [tokenizer.bos, *first, tokenizer.bos, *second, tokenizer.bos]
    assert metrics["train"]["tokens"] == len(ids)
    assert metrics["vocab_size"] == tokenizer.vocab_size <= 400
    assert metrics["vocab_used"] == round(len(set(ids)) / tokenizer.vocab_size, 6)


def test_byte_pairs_are_learned_from_the_training_split_alone(repository: Path) -> None:
    run(DOCUMENTS | {"three": "zyzzyva " * 100}, kind="bpe")
    tokens = load_tokenizer(params.TOKENS / "tokenizer.json").spec()["tokens"]
    assert len(tokens) > 256
    assert not [token for token in tokens[256:] if "z" in token]


def test_a_full_vocabulary_counts_the_id_between_documents(repository: Path) -> None:
    metrics, _ = run(DOCUMENTS, kind="bpe", vocab_size=300)
    assert metrics["vocab_size"] == 300


def test_a_vocabulary_that_is_too_large_is_warned_of(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run({"one": PLAY * 3, "two": PLAY}, kind="bpe")
    line = next(line for line in capsys.readouterr().out.splitlines() if "warning" in line)
    assert "the vocabulary is too large for this text" in line
    assert "tokenizer.vocab_size=512" in line
    run({"one": PLAY * 3, "two": PLAY}, kind="byte")
    assert "warning" not in capsys.readouterr().out


def test_bytes_per_token_of_gpt2_go_to_mlflow_and_into_no_result(
    repository: Path, gpt2_cache: Path, gpt2: GPT2Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, tracked = run(DOCUMENTS)
    assert tracked.logged == {}
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache))
    metrics, tracked = run(DOCUMENTS)
    assert metrics == without
    expected = len(DOCUMENTS["three"].encode()) / len(gpt2.encode(DOCUMENTS["three"]))
    assert tracked.logged == {"tokenize/val/gpt2_bytes_per_token": expected}


def test_the_file_of_gpt2_comes_from_the_mirror_and_the_model_needs_it_no_more(
    repository: Path, gpt2_cache: Path, gpt2: GPT2Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_MIRROR", str(gpt2_cache.parent))
    metrics, _ = run(DOCUMENTS, kind="gpt2")
    monkeypatch.delenv("GPT_MIRROR")
    tokenizer = load_tokenizer(params.TOKENS / "tokenizer.json")
    assert metrics["vocab_size"] == tokenizer.vocab_size == 50257
    assert tokenizer.bos == 50256
    assert tokenizer.encode(PLAY).tolist() == gpt2.encode(PLAY).tolist()


def test_without_a_network_the_line_says_what_to_set(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("no route")

    monkeypatch.setattr("socket.getaddrinfo", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(repository / "nowhere"))
    with pytest.raises(TokenizerError) as refused:
        run(DOCUMENTS, kind="gpt2")
    line = str(refused.value)
    assert line.startswith("tokenizer.kind = gpt2: ")
    assert "TIKTOKEN_CACHE_DIR" in line
    assert GPT2_FILE in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("--shard 5 --of 2", "--shard 5 --of 2: no shard has that number"),
        ("--shard -1 --of 2", "--shard -1 --of 2: no shard has that number"),
        ("--shard x --of 2", "argument --shard: invalid int value: 'x'"),
        ("--shard 1", "the following arguments are required: --of"),
        ("--shards 1 --of 2 --shard 1", "unrecognized arguments: --shards 1"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str], options: str, what: str
) -> None:
    with pytest.raises(SystemExit) as end:
        tokenize.encode_shards(options.split())
    advice = "use --shard N --of M, where N is 0 to M - 1"
    assert (end.value.code, capsys.readouterr().err) == (2, f"tokenize: {what}; {advice}\n")


def test_a_shard_that_cannot_be_written_is_one_line(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(DOCUMENTS)
    text = (Path(__file__).resolve().parents[2] / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text, encoding="utf-8")
    Path(".cache").write_text("a file where a folder should be", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        tokenize.encode_shards(["--shard", "0", "--of", "2"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tokenize: ") and "a file is where a folder should be" in line


@pytest.mark.parametrize("file", ["shakespeare.txt", "names.txt"])
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "gpt2"])
def test_the_ids_of_real_texts_decode_to_their_bytes(
    repository: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, kind: str, file: str
) -> None:
    raw = (texts / file).read_bytes()
    if kind == "gpt2":
        if not (texts / "tiktoken" / GPT2_FILE).is_file():
            missing(f"GPT_MIRROR has no tiktoken/{GPT2_FILE}")
        monkeypatch.setenv("GPT_MIRROR", str(texts))
    run({"train": raw.decode(), "val": "Romeo."}, chunk=2**18, kind=kind)
    tokenizer = load_tokenizer(params.TOKENS / "tokenizer.json")
    ids = np.load(params.TOKENS / "train.npy")
    assert tokenizer.decode(ids).encode() == raw
    assert tokenizer.token_bytes()[ids].sum() == len(raw)


def test_every_kind_of_params_yaml_is_one_that_a_tokenizer_file_may_have() -> None:
    assert set(get_args(TokenizerParams.model_fields["kind"].annotation)) == set(KINDS)
