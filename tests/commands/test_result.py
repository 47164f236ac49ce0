"""The end of `make run`: what the score means, and whether the committed results came out again."""

import json
import re
from pathlib import Path

import pytest
from run_make import copy_makefile, run_make
from trial_repository import STAGES, TrialRepository, commit_all
from typer.testing import CliRunner

from commands.cli import app
from gpt.files import sha256_of
from stages import params

BASELINES = {"ngram_1": 4.7, "gzip": 2.8}


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    write_results(repository)
    return repository


def write_results(trial: TrialRepository, bits: float = 1.0832, **val: float) -> None:
    for stage in STAGES:
        trial.results(stage)
    text = {"bytes": 300, "characters": 200}
    trial.write("metrics/prepare.json", json.dumps({"val": text}))
    metrics = {"val": {"bits_per_byte": bits, **val}, params.BASELINES: BASELINES}
    trial.write("metrics/evaluate.json", json.dumps(metrics))
    trial.write("metrics/samples.md", "# Samples\n\n## 0 (length)\n\n````\na ```\nb\n````\n")
    for stage in STAGES:
        trial.lock(stage)


def result() -> str:
    """What is printed, without its line breaks."""
    done = CliRunner().invoke(app, ["result"])
    assert done.exit_code == 0, done.output
    return re.sub(r"\s+", " ", done.output)


def test_the_score_is_in_bits_per_character_beside_what_needs_no_network(
    trial: TrialRepository,
) -> None:
    write_results(trial, 1.0832, floor_bits_per_byte=0.846)
    assert (
        "On text it has never seen, the model needs 1.62 bits per character; predicting each "
        "character by its frequency alone needs 7.05, gzip 4.20, and no model can need less than "
        "1.27. " in result()
    )


def test_text_whose_information_is_unknown_has_no_floor(trial: TrialRepository) -> None:
    trial.set(kind="byte")
    write_results(trial)
    assert "each token by its frequency alone needs 7.05, gzip 4.20. " in result()


def test_the_sample_is_printed_with_the_fences_that_it_holds(trial: TrialRepository) -> None:
    assert "--- a ``` b ---" in result()


def test_the_committed_results_came_out_again(trial: TrialRepository) -> None:
    commit_all()
    assert "Every result came out as committed, bit for bit." in result()


def test_other_bits_of_the_model_are_explained_with_both_scores(trial: TrialRepository) -> None:
    commit_all()
    trial.model = "weights of another processor"
    write_results(trial, 1.0911)
    text = result()
    assert "(1.0832 bits per byte there, 1.0911 here)" in text
    assert 'commit them (git commit -am "Results of my machine"), or leave them so.' in text
    # That is what git says, too, and what the command does.
    commit_all("Results of mine")
    assert "Every result came out as committed, bit for bit." in result()


def test_another_corpus_is_reported_as_a_fault(trial: TrialRepository) -> None:
    commit_all()
    trial.write("data/corpus/train.jsonl", '{"doc": 0, "text": "Not to be."}\n')
    for stage in STAGES:
        trial.lock(stage)
    assert "data/corpus differs from the committed one" in result()


@pytest.mark.parametrize("change", ["params", "code"])
def test_of_other_params_or_code_no_bits_are_compared(trial: TrialRepository, change: str) -> None:
    commit_all()
    trial.model = "other weights"
    if change == "params":
        trial.set(n_layer=2)
    else:
        trial.write("gpt/model.py", "# edited")
    write_results(trial)
    text = result()
    assert "processor" not in text
    assert "as committed" not in text


@pytest.mark.parametrize("init_from", ["other", "other/model.safetensors"])
def test_weights_that_were_replaced_after_the_training_are_named(
    trial: TrialRepository, init_from: str
) -> None:
    weights = trial.folder / "other/model.safetensors"
    said = f"{weights} was replaced after the training (train.init_from): dvc repro -f train"
    trial.write("other/model.safetensors", "weights")
    config = {"train": {"init_from": init_from}, "pretrained_sha256": sha256_of(weights)}
    trial.write("data/model/config.json", json.dumps(config))
    assert "was replaced" not in result()
    trial.write("other/model.safetensors", "others")
    # Without the line breaks that a long path gets.
    assert said.replace(" ", "") in result().replace(" ", "")
    weights.unlink()
    assert "was replaced" not in result()


def test_without_git_there_is_no_comparison_and_no_experiment(trial: TrialRepository) -> None:
    text = result()
    assert "as committed" not in text
    assert "dvc exp run" not in text
    assert "dvc repro # after an edit of params.yaml" in text


def test_next_steps_name_commands_that_exist(trial: TrialRepository) -> None:
    commit_all()
    text = result()
    assert "dvc exp run -S model.n_layer=1 # a smaller model; then: gpt compare" in text
    for name in re.findall(r"\bgpt (\w+)", text[text.index("Next:") :]):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name


def test_without_results_a_line_says_what_to_run(trial: TrialRepository) -> None:
    Path("metrics/evaluate.json").unlink()
    done = CliRunner().invoke(app, ["result"])
    message = "gpt: metrics/evaluate.json: not found; run the stages before: dvc repro\n"
    assert (done.exit_code, done.output) == (2, message)


def test_committed_results_without_scores_are_compared_with_nothing(trial: TrialRepository) -> None:
    scores = Path("metrics/evaluate.json").read_text(encoding="utf-8")
    Path("metrics/evaluate.json").unlink()
    commit_all()
    trial.write("metrics/evaluate.json", scores)
    assert "bit for bit" not in result()


def test_make_run_ends_with_the_result(tmp_path: Path) -> None:
    copy_makefile(tmp_path)
    (tmp_path / ".git").touch()
    done = run_make(tmp_path, "--dry-run", "--old-file", ".venv/ready", "run")
    commands = [line.split("/")[-1] for line in done.stdout.splitlines()]
    assert commands[-3:] == ["dvc repro", "gpt report", "gpt result"]
