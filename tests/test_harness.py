"""The adapter for lm-evaluation-harness: its figures beside ours, on tasks written here."""

import json
import math
import os
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from small_training import SmallTraining
from typer.testing import CliRunner

from gpt.checkpoint import TrainedModel
from gpt.config import ModelConfig
from gpt.device import choose_device
from gpt.errors import DataError, TokenizerError
from gpt.model import GPT
from gpt.tokenizer import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Tokenizer,
    WordTokenizer,
)
from gpt.vocabulary import train_bpe
from gpt.zeroshot import Question, answers, choice_scores
from stages.benchmark import text_figures
from stages.cli import app

if not os.environ.get("CI"):
    pytest.importorskip("lm_eval")
import stages.harness
from stages.harness import Harness, run

ALPHABET = " abc"
# P(next | this): a row for each of " abc". Greedy writing goes " ab ab ...".
CHANCES = torch.tensor(
    [[0.1, 0.6, 0.2, 0.1], [0.25, 0.25, 0.4, 0.1], [0.5, 0.2, 0.2, 0.1], [0.7, 0.1, 0.1, 0.1]]
)
BLOCK = 6


class Counting(GPT):
    """Knows which letter follows which, and nothing else."""

    def forward(self, ids_bt: torch.Tensor, cache: object = None) -> torch.Tensor:
        assert ids_bt.shape[1] <= self.config.block_size
        return CHANCES.log()[ids_bt]


def of(model: GPT, tokenizer: Tokenizer) -> TrainedModel:
    return TrainedModel(model.eval(), tokenizer, None, choose_device("cpu", "float32"))  # type: ignore[arg-type]


@pytest.fixture
def counting() -> TrainedModel:
    shape = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=16)
    return of(Counting(shape, 4), CharTokenizer(ALPHABET, has_bos=False))


def with_positions(tokenizer: Tokenizer, block_size: int = BLOCK) -> TrainedModel:
    """A model, not trained, to which it matters what stands where."""
    shape = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=block_size, init_std=0.4)
    return of(GPT(shape, tokenizer.vocab_size, seed=2), tokenizer)


def ask(*args: Any) -> Any:
    """A request as the harness makes them, of which the adapter reads the arguments alone."""
    return SimpleNamespace(args=args)


def chance(text: str) -> float:
    ids = [ALPHABET.index(letter) for letter in text]
    return math.prod(float(CHANCES[a, b]) for a, b in pairwise(ids))


def by_hand(trained: TrainedModel, windows: list[tuple[list[int], int]]) -> tuple[float, bool]:
    """The sum over windows of ids, of the last so many in each; and whether all were likeliest."""
    total, greedy = 0.0, True
    for ids, own in windows:
        with torch.no_grad():
            shares_tv = trained.model(torch.tensor([ids[:-1]]))[0].double().log_softmax(-1)
        for place in range(len(ids) - own, len(ids)):
            total += float(shares_tv[place - 1, ids[place]])
            greedy &= int(shares_tv[place - 1].argmax()) == ids[place]
    return total, greedy


# --- one question at a time -----------------------------------------------------------------------


TEXT = "the rose and the thorn, the rose. " * 3


def tokenizers() -> dict[str, Tokenizer]:
    letters = "".join(sorted(set(TEXT)))
    tokens = train_bpe(lambda: iter([TEXT]), vocab_size=270, min_frequency=2, pattern="gpt2")
    return {
        "char": CharTokenizer(letters, has_bos=False),
        "char with documents": CharTokenizer(letters, has_bos=True),
        "byte": ByteTokenizer(has_bos=True),
        "bpe": BPETokenizer(tokens, "gpt2", has_bos=True),
        "gpt2": GPT2Tokenizer(tokens, has_bos=False),
        "word": WordTokenizer(["the", " rose", " the"], "gpt2", has_bos=False),
    }


@pytest.mark.parametrize("kind", tokenizers())
def test_a_continuation_has_the_probability_that_zeroshot_gives_it(kind: str) -> None:
    trained = with_positions(tokenizers()[kind], 64)
    pairs = [("the rose and", " the thorn"), ("the", " rose"), ("and the rose.", " and the thorn")]
    found = Harness(trained, 10_000).loglikelihood([ask(*pair) for pair in pairs])
    for (context, continuation), (total, greedy) in zip(pairs, found, strict=True):
        sums, likeliest = choice_scores(trained, Question(context, (continuation,), 0))
        assert total == pytest.approx(sums[0], abs=1e-5)
        assert greedy == likeliest[0]


def test_what_is_likeliest_is_said_to_be(counting: TrainedModel) -> None:
    found = Harness(counting, 100).loglikelihood([ask("a", "b a"), ask("a", "b b")])
    assert [greedy for _, greedy in found] == [True, False]
    assert math.exp(found[0][0]) == pytest.approx(chance("ab a"))


@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_the_size_of_a_batch_changes_nothing(batch_tokens: int) -> None:
    trained = with_positions(tokenizers()["byte"])
    pairs = [ask("x" * n, "y" * (1 + n % 9)) for n in range(1, 20, 3)]
    found = Harness(trained, batch_tokens).loglikelihood(pairs)
    for one, (total, greedy) in zip(pairs, found, strict=True):
        (alone,) = Harness(trained, 10_000).loglikelihood([one])
        assert total == pytest.approx(alone[0], abs=1e-4)
        assert greedy == alone[1]


def test_blanks_at_the_end_of_a_context_belong_to_what_follows() -> None:
    trained = with_positions(tokenizers()["bpe"], 64)
    one, other = Harness(trained, 100).loglikelihood([ask("the ", "rose"), ask("the", " rose")])
    assert one == other


def test_a_long_context_loses_its_beginning() -> None:
    trained = with_positions(tokenizers()["byte"])
    (found,) = Harness(trained, 100).loglikelihood([ask("abcdefghij", "kl")])
    assert found == pytest.approx(by_hand(trained, [(list(b"fghijkl"), 2)]), abs=1e-5)


def test_a_continuation_longer_than_a_block_is_read_by_half_blocks() -> None:
    trained = with_positions(tokenizers()["byte"])
    (found,) = Harness(trained, 100).loglikelihood([ask("abcdefgh", "ijklmnop")])
    windows = [(b"efghijk", 3), (b"hijklmn", 3), (b"jklmnop", 2)]
    expected = by_hand(trained, [(list(ids), own) for ids, own in windows])
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["char", "char with documents"])
def test_without_context_a_text_follows_the_start_of_a_document_or_a_line(kind: str) -> None:
    letters = "\nabc"
    tokenizer = CharTokenizer(letters, has_bos=kind != "char")
    trained = with_positions(tokenizer)
    start = 0 if kind == "char" else 4
    (found,) = Harness(trained, 100).loglikelihood([ask("", "abc")])
    assert found == pytest.approx(by_hand(trained, [([start, 1, 2, 3], 3)]), abs=1e-5)


def test_what_cannot_be_scored_is_refused() -> None:
    bpe = with_positions(
        BPETokenizer([bytes([b]) for b in range(256)] + [b"ab"], "gpt2", has_bos=True)
    )
    with pytest.raises(DataError, match="'b' after 'a' is no token of its own"):
        Harness(bpe, 100).loglikelihood([ask("a", "b")])
    char = with_positions(CharTokenizer("ab", has_bos=False))
    with pytest.raises(TokenizerError, match="'é'"):
        Harness(char, 100).loglikelihood([ask("a", "é")])


# --- whole texts ----------------------------------------------------------------------------------


def test_a_text_is_read_in_blocks_side_by_side_and_the_last_is_whole() -> None:
    trained = with_positions(tokenizers()["byte"])
    found = Harness(trained, 100).loglikelihood_rolling([ask("abcdefghijklmn"), ask(""), ask("ab")])
    bos = [256]
    windows = [(bos + list(b"abcdef"), 6), (list(b"fghijkl"), 6), (list(b"hijklmn"), 2)]
    assert found[0] == pytest.approx(by_hand(trained, windows)[0], abs=1e-5)
    assert found[1] == 0.0
    assert found[2] == pytest.approx(by_hand(trained, [([256, 97, 98], 2)])[0], abs=1e-5)


# --- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"until": ["b"], "max_gen_toks": 9}, " a"),
        ({"until": "b", "max_gen_toks": 9}, " a"),
        ({"until": ["b ", "a"], "max_gen_toks": 9}, " "),
        ({"until": ["cc", "b a"], "max_gen_toks": 9}, " a"),
        ({"until": [], "max_gen_toks": 9}, " ab ab ab"),
        ({"max_gen_toks": 4, "do_sample": False, "temperature": 9.0}, " ab "),
    ],
    ids=repr,
)
def test_writing_is_greedy_up_to_the_first_stop(
    counting: TrainedModel, settings: dict[str, Any], text: str
) -> None:
    assert Harness(counting, 100).generate_until([ask("aaaaaaaac", settings)]) == [text]


def test_a_task_that_asks_for_drawing_gets_it(counting: TrainedModel) -> None:
    settings = {"max_gen_toks": 60, "do_sample": True, "temperature": 1.0}
    one, two = Harness(counting, 100).generate_until([ask("a", settings)] * 2)
    assert one != two


# --- tasks ----------------------------------------------------------------------------------------

QUESTIONS = [
    # a-blank-a is likelier than a-blank-a-blank-a, though less so a letter.
    {"context": "a", "choices": ["a", "a a a"], "answer": 0},
    {"context": "a", "choices": ["a", "a a a"], "answer": 1},
    {"context": "ccccccccccc", "choices": ["cc", "ab ab ab ab", "b"], "answer": 1},
    {"context": "b", "choices": ["c", "b", "a", "cc"], "answer": 0},
]
TEXTS = ["ab ca b", "ab ab abcab ccba b a", "c"]
TASKS: dict[str, dict[str, Any]] = {
    "our_choices": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_target": "answer",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "our_texts": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
    },
    "our_writing": {
        "output_type": "generate_until",
        "doc_to_text": "{{context}}",
        "doc_to_target": "{{target}}",
        "generation_kwargs": {"until": ["b"], "max_gen_toks": 8, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "our_choices": QUESTIONS,
    "our_texts": [{"text": text} for text in TEXTS],
    "our_writing": [
        {"context": "c", "target": " a"},
        {"context": "a", "target": ""},
        {"context": "b", "target": "c"},
        {"context": "cab ", "target": "a"},
    ],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tasks as YAML with their questions beside them; the harness's own are left out."""
    for name, task in TASKS.items():
        data = tmp_path / "tasks" / f"{name}.jsonl"
        data.parent.mkdir(exist_ok=True)
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]), encoding="utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            **task,
        }
        data.with_suffix(".yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # To list the harness's 15,000 tasks and to describe this machine takes a quarter of a minute.
    monkeypatch.setattr(
        stages.harness, "TaskManager", partial(stages.harness.TaskManager, include_defaults=False)
    )
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    return tmp_path / "tasks"


@pytest.mark.slow
def test_the_figures_are_those_of_our_own_benchmarks(
    folder: Path, counting: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.harness, "load_model", lambda *_: counting)
    found = run(list(TASKS), Path("not read"), include_path=folder)

    # The harness puts the blank between a context and a choice.
    questions = [
        Question(row["context"], tuple(f" {one}" for one in row["choices"]), row["answer"])
        for row in QUESTIONS
    ]
    ours = answers(counting, iter(questions))
    for name in ("acc", "acc_norm", "acc_stderr"):
        assert found["our_choices"][name] == pytest.approx(ours[name], abs=1e-6)
    assert 0 < ours["acc"] < ours["acc_norm"] < 1

    # What a text follows is a blank, for want of a document or a line break.
    totals = [
        text_figures(counting, "text8", f" {text}", 100, lambda done: None)["bits_per_byte"]
        * (len(text) + 1)
        for text in TEXTS
    ]
    expected = sum(totals) / sum(len(text) for text in TEXTS)
    assert found["our_texts"]["bits_per_byte"] == pytest.approx(expected, abs=1e-5)
    words = sum(len(text.split()) for text in TEXTS)
    assert found["our_texts"]["word_perplexity"] == pytest.approx(
        2 ** (sum(totals) / words), rel=1e-5
    )

    assert found["our_writing"]["exact_match"] == 0.75


@pytest.mark.slow
def test_the_command_asks_a_model_on_disk(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SmallTraining(tmp_path / "training", tokenizer__kind="byte")
    training.make_tokens()
    assert training.run().end() == 0
    monkeypatch.chdir(training.folder)
    options = ["--include-path", str(folder), "--limit", "2"]
    shown = CliRunner().invoke(app, ["harness", "our_choices", "our_texts", *options])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert set(found) == {"our_choices", "our_texts"}
    assert found["our_choices"]["acc"] in (0.0, 0.5, 1.0)
    assert found["our_texts"]["bits_per_byte"] > 1
    shown = CliRunner().invoke(app, ["harness", "our_chioces", *options])
    assert shown.exit_code == 2
    assert shown.stderr.splitlines()[-1].startswith("gpt: our_chioces: cannot be loaded (")
