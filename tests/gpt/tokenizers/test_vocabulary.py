"""Vocabularies: the merges of rustbpe and of plain Python, GPT-2's ids, words above the floor."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from conftest import missing
from hypothesis import example, given
from hypothesis import strategies as st

from gpt.corpus.manifest import CorpusWriter
from gpt.errors import TokenizerError
from gpt.tokenizers import bpe_reference as bpe
from gpt.tokenizers.base import PATTERNS, BPETokenizer, GPT2Tokenizer, Pattern, load_tokenizer
from gpt.tokenizers.bpe_training import (
    GPT2_FILE,
    characters,
    frequent_words,
    gpt2_tokens,
    train_bpe,
)
from repro import repository as workspace
from repro.tracking import run as tracking
from stages import params, tokenize

# Few characters, so that counts tie; and what both regular expression engines know: a code point
# that is not assigned yet may be a letter to the newer one.
TIES = st.text(alphabet="ab c\n'1é", max_size=80)
ASSIGNED = st.text(st.characters(exclude_categories=["Cs", "Cn"]), max_size=80)
CORPORA = st.lists(TIES | ASSIGNED, max_size=4)
PATTERN = st.sampled_from(["gpt2", "gpt4"])


def tokens_of(
    texts: list[str], vocab_size: int, pattern: Pattern, min_frequency: int = 1
) -> list[bytes]:
    return train_bpe(
        lambda: iter(texts), vocab_size=vocab_size, min_frequency=min_frequency, pattern=pattern
    )


# --- byte pair encoding ---------------------------------------------------------------------------


@given(texts=CORPORA, vocab_size=st.integers(256, 330), pattern=PATTERN)
@example(texts=["aaaaa aaaa aaa aa", "abab", "baba"], vocab_size=300, pattern="gpt2")
def test_the_trainer_to_read_makes_the_merges_of_rustbpe(
    texts: list[str], vocab_size: int, pattern: Pattern
) -> None:
    merges = bpe.train(bpe.count_pieces(texts, PATTERNS[pattern]), vocab_size)
    assert bpe.vocabulary(merges) == tokens_of(texts, vocab_size, pattern)


@given(texts=CORPORA, pattern=PATTERN, min_frequency=st.integers(1, 6))
@example(texts=["aaaaaa aaa"], pattern="gpt2", min_frequency=2)
def test_no_merge_is_made_fewer_times_than_the_floor(
    texts: list[str], pattern: Pattern, min_frequency: int
) -> None:
    merges = bpe.train(bpe.count_pieces(texts, PATTERNS[pattern]), 330, min_frequency)
    assert bpe.vocabulary(merges) == tokens_of(texts, 330, pattern, min_frequency)


def test_equal_counts_go_to_the_smaller_ids_whatever_comes_first() -> None:
    for order in (["dc", "ba", "ab"], ["ab", "dc", "ba"]):
        assert bpe.train(Counter({piece.encode(): 2 for piece in order}), 258) == [
            (ord("a"), ord("b")),
            (ord("b"), ord("a")),
        ]


def test_the_textbook_example() -> None:
    merges = bpe.train({b"aaabdaaabac": 1}, 259)
    assert bpe.vocabulary(merges)[256:] == [b"aa", b"ab", b"aaab"]


@given(texts=CORPORA, pattern=PATTERN)
def test_merges_can_be_read_off_the_tokens(texts: list[str], pattern: Pattern) -> None:
    merges = bpe.train(bpe.count_pieces(texts, PATTERNS[pattern]), 330)
    assert bpe.merges_of(bpe.vocabulary(merges)) == merges


def test_tokens_that_no_merges_make_have_none() -> None:
    with pytest.raises(ValueError, match="token 256 is not a merge"):
        bpe.merges_of([bytes([byte]) for byte in range(256)] + [b"abc"])


@given(texts=CORPORA, other=TIES | ASSIGNED, pattern=PATTERN)
def test_merges_in_their_order_give_the_ids_of_tiktoken(
    texts: list[str], other: str, pattern: Pattern
) -> None:
    merges = bpe.train(bpe.count_pieces(texts, PATTERNS[pattern]), 330)
    tokenizer = BPETokenizer(bpe.vocabulary(merges), pattern, has_bos=False)
    for text in [*texts, other]:
        pieces = regex.findall(PATTERNS[pattern], text)
        ids = [token for piece in pieces for token in bpe.encode(piece.encode(), merges)]
        assert tokenizer.encode(text).tolist() == ids


def test_a_text_that_names_a_control_token_trains_and_encodes_as_text() -> None:
    text = "<|endoftext|> " * 50
    tokenizer = BPETokenizer(tokens_of([text], 300, "gpt2"), "gpt2", has_bos=True)
    assert tokenizer.bos not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_merges_of_shakespeare_are_those_of_rustbpe(texts: Path, pattern: Pattern) -> None:
    text = (texts / "shakespeare.txt").read_bytes().decode()
    merges = bpe.train(bpe.count_pieces([text], PATTERNS[pattern]), 512)
    assert bpe.vocabulary(merges) == tokens_of([text], 512, pattern)


# --- characters and words -------------------------------------------------------------------------


@given(texts=st.lists(st.text()))
def test_characters_are_all_that_occur_sorted(texts: list[str]) -> None:
    assert characters(texts) == "".join(sorted(set("".join(texts))))


def words_of(text: str, **options: Any) -> list[str]:
    given = {"vocab_size": 1000, "min_frequency": 1, "pattern": "gpt2"} | options
    return frequent_words(lambda: iter([text]), **given)


def test_words_come_most_frequent_first_and_not_below_the_floor() -> None:
    text = "see sea sea see sea once"
    assert words_of(text) == [" sea", " once", " see", "see"]
    assert words_of(text, min_frequency=2) == [" sea"]


def test_words_fill_the_vocabulary_and_no_more() -> None:
    assert words_of("see sea sea see sea once", vocab_size=258) == [" sea", " once"]
    assert words_of("see sea", vocab_size=250) == []


def test_a_word_of_one_byte_keeps_the_id_of_the_byte() -> None:
    assert words_of("a a a é é") == [" a", " é"]


# --- GPT-2 ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2_cache(texts: Path) -> Path:
    folder = texts / "tiktoken"
    if not (folder / GPT2_FILE).is_file():
        missing(f"GPT_MIRROR has no tiktoken/{GPT2_FILE}")
    return folder


@pytest.fixture(scope="module")
def gpt2(gpt2_cache: Path) -> GPT2Tokenizer:
    return GPT2Tokenizer(gpt2_tokens((gpt2_cache / GPT2_FILE).read_bytes()), has_bos=False)


@pytest.fixture
def tiktokens(gpt2_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache))
    try:
        return tiktoken.get_encoding("gpt2")
    except OSError:
        missing("GPT_MIRROR/tiktoken lacks the second file, which tiktoken itself reads")


@given(text=st.text())
def test_gpt2_gives_every_text_back(gpt2: GPT2Tokenizer, text: str) -> None:
    assert gpt2.decode(gpt2.encode(text)) == text


def test_the_ids_of_gpt2_are_those_of_tiktoken(
    gpt2: GPT2Tokenizer, tiktokens: Any, texts: Path
) -> None:
    text = (texts / "shakespeare.txt").read_bytes().decode()
    for piece in ("Hello<|endoftext|> été\n\n 😀 \u3000x", text):
        assert gpt2.encode(piece).tolist() == tiktokens.encode_ordinary(piece)


def test_shakespeare_has_as_many_tokens_as_nanogpt_counts(gpt2: GPT2Tokenizer, texts: Path) -> None:
    text = (texts / "shakespeare.txt").read_bytes().decode()
    cut = int(len(text) * 0.9)
    assert [len(gpt2.encode(part)) for part in (text[:cut], text[cut:])] == [301_966, 36_059]


def test_another_file_is_not_taken_for_that_of_gpt2() -> None:
    with pytest.raises(TokenizerError, match="wrong sha256"):
        gpt2_tokens(b"#version: 0.2\n")


# --- the stage ------------------------------------------------------------------------------------


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


def run(documents: dict[str, str], part: int = 40, **options: Any) -> tuple[dict[str, Any], Run]:
    """metrics/tokenize.json of documents (the last one for validation) cut into small parts."""
    with CorpusWriter(tokenize.CORPUS) as writer:
        for number, (name, text) in enumerate(documents.items(), start=1):
            split = "val" if number == len(documents) else "train"
            for start in range(0, len(text), part):
                writer.write(split, name, text[start : start + part])
        writer.finish({"corpus": "own", "documents": len(documents)})
    text = (Path(__file__).resolve().parents[3] / "params.yaml").read_text(encoding="utf-8")
    given = params.parse(text)
    section = given.tokenizer.model_copy(update=options)
    tracked = Run()
    tokenize.tokenize(given.model_copy(update={"tokenizer": section}), tracked)
    return json.loads(Path("metrics/tokenize.json").read_bytes()), tracked


PLAY = "ROMEO:\nBut soft! What light through yonder window breaks?\n\nIt is the east. "
DOCUMENTS = {"one": PLAY * 30, "two": "été 😀 " * 50, "three": PLAY * 3}


@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "word"])
@pytest.mark.parametrize("pattern", ["gpt2", "gpt4"])
def test_a_corpus_in_parts_has_the_ids_of_its_documents(
    repository: Path, kind: str, pattern: str
) -> None:
    metrics, _ = run(DOCUMENTS, kind=kind, pattern=pattern, vocab_size=400)
    tokenizer = load_tokenizer(tokenize.TOKENS / "tokenizer.json")
    assert tokenizer.bos is not None
    written = np.load(tokenize.TOKENS / "train.npy").tolist()
    one, two = (tokenizer.encode(DOCUMENTS[name]).tolist() for name in ("one", "two"))
    assert written == [tokenizer.bos, *one, tokenizer.bos, *two, tokenizer.bos]
    assert metrics["train"]["tokens"] == len(written)
    assert metrics["vocab_size"] == tokenizer.vocab_size <= 400
    assert metrics["vocab_used"] == round(len(set(written)) / tokenizer.vocab_size, 6)


@pytest.mark.parametrize("kind", ["bpe", "word"])
def test_a_vocabulary_is_learned_from_the_training_split_alone(repository: Path, kind: str) -> None:
    run(DOCUMENTS | {"three": "zyzzyva " * 100}, kind=kind)
    for token in load_tokenizer(tokenize.TOKENS / "tokenizer.json").spec().values():
        assert not isinstance(token, list) or not [text for text in token[256:] if "z" in text]


def test_a_full_vocabulary_counts_the_id_between_documents(repository: Path) -> None:
    metrics, _ = run(DOCUMENTS, kind="bpe", vocab_size=300)
    assert metrics["vocab_size"] == 300


def test_a_vocabulary_that_is_too_large_is_told_in_words(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run({"one": PLAY * 3, "two": PLAY}, kind="bpe", min_frequency=1)
    line = next(line for line in capsys.readouterr().out.splitlines() if "warning" in line)
    assert "the vocabulary is too large for this text" in line
    assert "tokenizer.vocab_size=512" in line
    run({"one": PLAY * 3, "two": PLAY}, kind="byte")
    assert "warning" not in capsys.readouterr().out


def test_what_gpt2_would_make_of_the_text_goes_to_the_run_and_into_no_result(
    repository: Path, gpt2_cache: Path, gpt2: GPT2Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, tracked = run(DOCUMENTS)
    assert tracked.logged == {}
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache))
    assert run(DOCUMENTS)[0] == without
    _, tracked = run(DOCUMENTS)
    expected = len(DOCUMENTS["three"].encode()) / len(gpt2.encode(DOCUMENTS["three"]))
    assert tracked.logged == {"tokenize/val/gpt2_bytes_per_token": expected}


def test_the_file_of_gpt2_is_found_in_the_mirror_and_the_model_needs_it_no_more(
    repository: Path, gpt2_cache: Path, gpt2: GPT2Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_MIRROR", str(gpt2_cache.parent))
    metrics, _ = run(DOCUMENTS, kind="gpt2")
    monkeypatch.delenv("GPT_MIRROR")
    again = load_tokenizer(tokenize.TOKENS / "tokenizer.json")
    assert metrics["vocab_size"] == again.vocab_size == 50257
    assert again.bos == 50256
    assert again.encode(PLAY).tolist() == gpt2.encode(PLAY).tolist()


def test_without_a_network_the_line_says_what_to_set(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    def offline(*_: Any, **__: Any) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", offline)
    # It is set for tiktoken, and must not reach other tests.
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(repository / "nowhere"))
    with pytest.raises(TokenizerError) as refused:
        run(DOCUMENTS, kind="gpt2")
    line = str(refused.value)
    assert "TIKTOKEN_CACHE_DIR" in line
    assert GPT2_FILE in line
    assert "\n" not in line


def test_a_damaged_file_of_gpt2_is_passed_over(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = workspace.scratch() / "tiktoken"
    cache.mkdir(parents=True)
    (cache / GPT2_FILE).write_bytes(b"half a file")
    assert tokenize.gpt2_file_at_hand() is None


# --- the real texts -------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["shakespeare.txt", "names.txt"])
@pytest.mark.parametrize("kind", ["char", "byte", "bpe", "word", "gpt2"])
def test_the_real_texts_come_back_byte_for_byte(
    repository: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, kind: str, file: str
) -> None:
    raw = (texts / file).read_bytes()
    if kind == "gpt2":
        if not (texts / "tiktoken" / GPT2_FILE).is_file():
            missing(f"GPT_MIRROR has no tiktoken/{GPT2_FILE}")
        monkeypatch.setenv("GPT_MIRROR", str(texts))
    run({"train": raw.decode(), "val": "Romeo."}, part=2**18, kind=kind)
    tokenizer = load_tokenizer(tokenize.TOKENS / "tokenizer.json")
    ids = np.load(tokenize.TOKENS / "train.npy")
    assert tokenizer.decode(ids).encode() == raw
    assert tokenizer.token_bytes()[ids].sum() == len(raw)
