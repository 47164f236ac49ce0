"""gpt plan: the counts of the model that would be built, and changes as DVC reads them."""

from pathlib import Path
from typing import Any

import pytest
from trial_repository import TrialRepository
from typer.testing import CliRunner

from commands.cli import app
from commands.plan import model_to_count, plan, with_changes
from gpt.config import ModelConfig
from gpt.evaluation.flops import tokens_per_step
from gpt.model import GPT
from gpt.model_source import count_parameters
from gpt.presets import PRESETS, resolve

SHAPES: list[dict[str, Any]] = [
    {"architecture": architecture, "bias": bias, "ngram_rows": rows}
    for architecture in ("original", "gpt2", "modern")
    for bias in (False, True)
    for rows in (0, 50)
] + [{"architecture": "modern", "line_sums": 5}]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    return repository


@pytest.mark.parametrize("changes", SHAPES)
def test_parameters_are_those_of_the_model(changes: dict[str, Any]) -> None:
    shape = ModelConfig(n_layer=3, n_head=2, n_embd=48, block_size=40, **changes)
    without_weights = model_to_count(shape, 70)
    assert count_parameters(without_weights) == count_parameters(GPT(shape, 70, seed=0))
    assert next(without_weights.parameters()).device.type == "meta"


def test_every_preset_can_be_planned() -> None:
    for preset in PRESETS:
        shape, config, _ = resolve(preset, {}, {})
        assert count_parameters(model_to_count(shape, 65)) > 0 < tokens_per_step(shape, config)


@pytest.mark.parametrize(
    "budget", ["20", "tokens", "-1 tokens", "1e-3 flops", "3 x", "1e999 tokens", "0 flops"]
)
def test_an_invalid_budget_is_an_error_of_one_line(trial: TrialRepository, budget: str) -> None:
    shown = CliRunner().invoke(app, ["plan", "-S", f"train.budget={budget}", "--seconds", "0"])
    assert shown.exit_code == 2
    assert len(shown.output.splitlines()) == 1
    assert "train.budget" in shown.output


def test_a_plan_knows_a_budget(trial: TrialRepository) -> None:
    params = with_changes(["preset=nanogpt-cpu", "train.budget=76800 tokens"])
    assert plan(params, seconds=0).tokens == 76_800


def test_a_plan_reads_changes_as_dvc_does(trial: TrialRepository) -> None:
    params = with_changes(["model.n_layer=5", "train.learning_rate=3e-4", "preset=nanogpt-cpu"])
    shape, config, _ = params.resolved()
    assert (shape.n_layer, config.learning_rate, config.batch_size) == (5, 3e-4, 12)
    planned = plan(params, seconds=0)
    assert planned.parameters == count_parameters(model_to_count(shape, 65))
    assert planned.tokens == 2000 * tokens_per_step(shape, config) == 2000 * 12 * 64
    assert planned.seconds == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ROMEO:", "ROMEO:"),
        ("a: b", "a: b"),
        ("*", "*"),
        ("& so", "& so"),
        ("> 1", "> 1"),
        ("'*.txt'", "*.txt"),
        ("no", "no"),
        ('"change 0"', "change 0"),
    ],
)
def test_text_of_a_change_stays_text(trial: TrialRepository, text: str, value: str) -> None:
    assert with_changes(["seed=5", f"sample.prompt={text}"]).sample.prompt == value


def test_a_blank_change_leaves_a_key_to_the_preset(trial: TrialRepository) -> None:
    assert with_changes(["sample.stop="]).sample.stop is None
    assert with_changes(["data.weights=[1, 2.5]", "data.corpus=verse+names"]).data.weights == [
        1,
        2.5,
    ]


def test_a_learners_model_is_planned_from_its_file(trial: TrialRepository) -> None:
    trial.write(
        "own.py",
        "from torch import nn\n\n\nclass GPT(nn.Module):\n"
        "    def __init__(self, config, vocab_size):\n        super().__init__()\n"
        "        self.table = nn.Embedding(vocab_size, vocab_size)\n"
        "        assert self.table.weight.std().item() > 0\n",
    )
    assert plan(with_changes(["model.source=own.py"]), seconds=0).parameters == 65**2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.n_layers=5", "did you mean model.n_layer"),
        ("model.n_layer", "write -S KEY=VALUE"),
        ("model.n_layer=few", "model.n_layer"),
    ],
)
def test_an_impossible_change_is_an_error_of_one_line(
    trial: TrialRepository, change: str, message: str
) -> None:
    shown = CliRunner().invoke(app, ["plan", "-S", change, "--seconds", "0"])
    assert shown.exit_code == 2
    assert message in shown.output
    assert len(shown.output.splitlines()) == 1


def test_a_trial_measures_time_memory_and_cost(trial: TrialRepository) -> None:
    changes = ["model.n_layer=1", "model.n_embd=16", "model.ngram_rows=0", "train.steps=20"]
    words = [word for change in changes for word in ("-S", change)]
    shown = CliRunner().invoke(app, ["plan", *words, "--seconds", "0.1", "--price", "3600000"])
    assert shown.exit_code == 0, shown.output
    for name in ("parameters", "tokens", "compute", "memory", "time", "cost"):
        assert f"\n{name}" in f"\n{shown.output}"
