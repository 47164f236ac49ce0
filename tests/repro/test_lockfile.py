"""Which results are valid, by dvc.lock as DVC writes it."""

from pathlib import Path

import pytest
from trial_repository import STAGES, TrialRepository

from repro.lockfile import Pipeline
from repro.repository import WorkingFolder
from stages.params import load


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    """A repository in which all stages have run."""
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    repository.set(prompt='"12:30"', stop='"yes"')
    for stage in STAGES:
        repository.results(stage)
        repository.lock(stage)
    return repository


def pipeline(**options: str) -> Pipeline:
    return Pipeline(WorkingFolder(), load().model_dump(), **options)


def test_a_lock_is_read_by_the_rules_of_yaml_1_2(trial: TrialRepository) -> None:
    # DVC quotes neither: under YAML 1.1 they would be true and 750.
    text = (trial.folder / "dvc.lock").read_text(encoding="utf-8")
    plain = text.replace("'yes'", "yes").replace("'12:30'", "12:30")
    assert plain.count("yes\n") == plain.count("12:30\n") == 1
    trial.write("dvc.lock", plain)
    assert pipeline().valid() == list(STAGES)


@pytest.mark.parametrize("damage", ["", "stages: [", "stages:\n  train: 1\n"])
def test_a_lock_that_was_cut_short_makes_nothing_valid(trial: TrialRepository, damage: str) -> None:
    trial.write("dvc.lock", damage)
    assert pipeline().valid() == []


def test_a_stage_that_runs_makes_what_follows_invalid(trial: TrialRepository) -> None:
    assert pipeline(running="train").valid() == ["prepare", "tokenize"]


def test_results_of_a_stage_that_finished_are_hashed_from_the_files(trial: TrialRepository) -> None:
    assert pipeline(finished="train").valid() == list(STAGES)
    trial.write("data/model/model.safetensors", "other weights")
    assert pipeline(finished="train").valid() == ["prepare", "tokenize", "train"]


def test_a_changed_param_or_code_file_makes_its_stage_invalid(trial: TrialRepository) -> None:
    trial.set(temperature=0.5)
    assert pipeline().valid() == ["prepare", "tokenize", "train", "evaluate"]
    trial.write("stages/evaluate.py", "# other code\n")
    assert pipeline().valid() == ["prepare", "tokenize", "train"]


def test_artifacts_are_found_by_their_type(trial: TrialRepository) -> None:
    assert pipeline().artifact("dataset")["desc"] == "verse"
    assert pipeline().maker(pipeline().artifact("samples")["path"]) == "sample"
    assert pipeline().artifact("metrics") == {}
