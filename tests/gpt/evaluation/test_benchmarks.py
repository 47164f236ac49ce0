"""Benchmarks, on small files with answers worked out by hand."""

import dataclasses
import hashlib
import json
import math
import re
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from small_training import SmallTraining
from typer.testing import CliRunner

from commands.benchmark import FILES
from commands.cli import app
from gpt.checkpoint import TrainedModel
from gpt.config import ModelConfig
from gpt.device import choose_device
from gpt.errors import DataError
from gpt.evaluation.benchmarks import (
    MEMBERS,
    Question,
    choice_scores,
    detokenize,
    read_hellaswag,
    read_lambada,
    read_text,
    score_hellaswag,
    score_lambada,
    score_text,
)
from gpt.model import GPT
from gpt.tokenizers.char import CharTokenizer

ALPHABET = " abc"
# P(next | this): a row for each of " abc".
CHANCES = torch.tensor(
    [[0.1, 0.6, 0.2, 0.1], [0.25, 0.25, 0.4, 0.1], [0.5, 0.2, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1]]
)


class BigramModel(GPT):
    """The probabilities of the table, whatever the weights."""

    def forward(self, ids_bt: torch.Tensor, cache: object = None) -> torch.Tensor:
        assert ids_bt.shape[1] <= self.config.block_size
        return CHANCES.log()[ids_bt]


@pytest.fixture
def trained() -> TrainedModel:
    shape = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=6)
    tokenizer = CharTokenizer(ALPHABET, has_bos=False)
    device = choose_device("cpu", "float32")
    return TrainedModel(BigramModel(shape, 4), tokenizer, None, device)  # type: ignore[arg-type]


def chance(text: str) -> float:
    ids = [ALPHABET.index(letter) for letter in text]
    return math.prod(float(CHANCES[a, b]) for a, b in pairwise(ids))


def test_a_choice_has_the_probability_of_its_letters(trained: TrainedModel) -> None:
    sums, most_likely = choice_scores(trained, Question("a", (" a", " b", "bb", "b"), 0))
    expected = [chance("a a"), chance("a b"), chance("abb"), chance("ab")]
    assert np.exp(sums) == pytest.approx(expected)
    # b is the most likely after a, a space after b.
    assert most_likely == [False, False, False, True]


def test_a_long_context_loses_its_beginning(trained: TrainedModel) -> None:
    sums, _ = choice_scores(trained, Question("cccccccca", ("bb",), 0))
    assert math.exp(sums[0]) == pytest.approx(chance("abb"))
    with pytest.raises(DataError, match="leaves no room for its context in a block of 6"):
        choice_scores(trained, Question("a", ("bbbbbbb",), 0))


def test_accuracy_counts_right_choices_and_the_norm_divides_by_length(
    trained: TrainedModel,
) -> None:
    # a-space-a is more likely than a-space-a-space-a, but not per letter.
    short, long = " a", " a a a"
    assert chance("a" + short) > chance("a" + long)
    questions = [Question("a", (short, long), 0), Question("a", (short, long), 1)]
    by_letter = [math.log(chance("a" + c)) / (len(c) - 1) for c in (short, long)]
    better = int(np.argmax(by_letter))
    assert better == 1
    scores = score_hellaswag(trained, questions)
    assert scores["acc"] == 0.5
    assert scores["acc_norm"] == 0.5
    assert score_hellaswag(trained, questions[1:])["acc_norm"] == 1.0
    assert score_hellaswag(trained, questions[1:])["acc"] == 0.0


def test_a_last_word_is_right_where_it_is_the_most_likely_text(trained: TrainedModel) -> None:
    questions = [Question("c", (" a",), 0), Question("c", (" b",), 0)]
    scores = score_lambada(trained, questions)
    assert scores["acc"] == 0.5
    mean = -(math.log(chance("c a")) + math.log(chance("c b"))) / 2
    assert scores["perplexity"] == pytest.approx(math.exp(mean))


def test_scores_of_texts_are_per_word_or_byte_as_published(trained: TrainedModel) -> None:
    text = "ab ca b"
    total = -math.log(chance(text))
    scores = score_text(trained, "text8", text, 100, lambda tokens: None)
    assert scores["bits_per_byte"] == pytest.approx(total / math.log(2) / 7)
    scores = score_text(trained, "ptb", text, 100, lambda tokens: None)
    assert scores["perplexity"] == pytest.approx(math.exp(total / 3))


HELLASWAG = {
    "activity_label": "Cooking",
    "ctx_a": "A man stands in a kitchen.",
    "ctx_b": "he",
    "endings": ["sings.", "[substeps] cooks  rice.", "flies.", "is a pot."],
    "label": 1,
}


def test_hellaswag_is_read_as_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "hellaswag_val.jsonl"
    path.write_text(json.dumps(HELLASWAG) + "\n", encoding="utf-8")
    (question,) = read_hellaswag(path)
    assert question.context == "Cooking: A man stands in a kitchen. He"
    assert question.choices == (" sings.", "  cooks rice.", " flies.", " is a pot.")
    assert question.answer == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "2: not a question of HellaSwag"),
        ("[]", "2: not a line of JSON|1: not a line of JSON"),
        ("{", "not a line of JSON"),
        (json.dumps(HELLASWAG | {"label": 4}), "2: not a question"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(HELLASWAG) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        list(read_hellaswag(path))


def test_lambada_is_read_as_it_is_published(tmp_path: Path) -> None:
    path = tmp_path / "lambada_test.jsonl"
    path.write_text('{"text": "she turned to greet her son"}\n', encoding="utf-8")
    assert list(read_lambada(path)) == [Question("she turned to greet her", (" son",), 0)]
    path.write_text('{"text": "son"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="1: not a passage"):
        list(read_lambada(path))


@pytest.mark.parametrize(
    ("tokenized", "original"),
    [
        ("In 1 @,@ 200 days , 3 @.@ 5 well @-@ known", "In 1,200 days, 3.5 well-known"),
        ("it is n't Bob 's ( or is it ? )", "it isn't Bob's (or is it?)"),
        ('he said " no way " , and left', 'he said "no way", and left'),
        (" = = Early life = = \n \n", "== Early life ==\n\n"),
        ("the players ' union is ' new ' .", "the players' union is 'new'."),
        (" it was n't black monday \n $ N or N %\n", "it wasn't black monday\n$N or N%\n"),
        ("they 'll go .", "they'll go."),
    ],
)
def test_detokenizing_restores_the_original(tokenized: str, original: str) -> None:
    assert detokenize(tokenized) == original


@given(
    st.lists(st.sampled_from(["a", "'s", "n't", '"', "'", ",", "(", ")", "@-@", "=", "\n", "$"]))
)
def test_detokenizing_removes_only_spaces_and_signs(words: list[str]) -> None:
    text = " ".join(words)
    assert re.sub("[ @]", "", detokenize(text)) == re.sub("[ @]", "", text)


def test_only_the_end_of_enwik8_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt.evaluation.benchmarks.TEST_BYTES", 4)
    path = tmp_path / "enwik8"
    path.write_bytes("abcé€".encode())
    assert read_text(path, "enwik8") == "€"
    assert read_text(path, "wikitext-2") == "abcé€"
    path.write_bytes(b"ab\xffcd")
    with pytest.raises(DataError, match="byte 2 is not UTF-8"):
        read_text(path, "wikitext-2")


@pytest.mark.parametrize("task", sorted(MEMBERS))
def test_an_archive_is_read_as_its_text(tmp_path: Path, task: str) -> None:
    path = tmp_path / "published.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("README", "no text")
        archive.writestr(MEMBERS[task], "a text of words")
    assert read_text(path, task) == "a text of words"
    content = bytearray(path.read_bytes())
    content[content.index(MEMBERS[task].encode()) + len(MEMBERS[task]) + 4] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{MEMBERS[task]} is missing from it or damaged"):
        read_text(path, task)


def test_an_archive_of_another_text_or_that_expands_too_far_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("text8", "ab" * 50)
    with pytest.raises(DataError, match="enwik8 is missing from it or damaged"):
        read_text(path, "enwik8")
    monkeypatch.setattr("gpt.evaluation.benchmarks.MAX_MEMBER_BYTES", 99)
    with pytest.raises(DataError, match="text8 would be 100 bytes"):
        read_text(path, "text8")


def test_every_file_that_is_downloaded_has_a_pinned_hash() -> None:
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256 or "") for file in FILES.values())


@pytest.mark.slow
def test_the_command_scores_a_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SmallTraining(tmp_path / "training", tokenizer__kind="byte")
    training.make_tokens()
    assert training.run().end() == 0
    monkeypatch.chdir(training.folder)
    file = tmp_path / "questions.jsonl"
    line = json.dumps(HELLASWAG | {"ctx_a": "A", "endings": ["b", "c", "d", "e"]})
    file.write_text(f"{line}\n{line}\n{{}}\n", encoding="utf-8")
    # The third line is no question; --limit 2 does not read it.
    shown = CliRunner().invoke(app, ["benchmark", "hellaswag", str(file), "--limit", "2"])
    assert shown.exit_code == 0, shown.output
    scores = json.loads(shown.output)
    assert scores["questions"] == 2
    assert scores["acc"] in (0.0, 1.0)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert scores["file_sha256"] == sha256
    # Without a file: the published one, here from a mirror, with the pinned hash.
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "hellaswag_val.jsonl").write_bytes(file.read_bytes())
    monkeypatch.setenv("GPT_MIRROR", str(mirror))
    pinned = dataclasses.replace(FILES["hellaswag"], url="http://127.0.0.1:9/", sha256=sha256)
    monkeypatch.setitem(FILES, "hellaswag", pinned)
    shown = CliRunner().invoke(app, ["benchmark", "hellaswag", "--limit", "2"])
    assert json.loads(shown.output) == scores
    shown = CliRunner().invoke(app, ["benchmark", "ptb"])
    assert shown.output == (
        "gpt: ptb is not free to download; name its file: gpt benchmark ptb FILE\n"
    )
    weights = load_file("data/model/model.safetensors")
    assert weights["token_embedding.weight"].shape[0] in (256, 257)
    shown = CliRunner().invoke(app, ["benchmark", "lambada", str(file)])
    assert shown.exit_code == 2
    assert "not a passage of LAMBADA" in shown.output
