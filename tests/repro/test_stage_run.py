"""A run is complete, is joined or begun as it should be, and once resumed has no step twice."""

import json
import platform
from pathlib import Path

import pytest
from tracked_runs import artifacts_of, curve_of, open_store, runs, states_of
from trial_repository import CURVE, EVALUATIONS, STAGES, TrialRepository

from gpt.errors import TrainingError
from repro.errors import Interrupted
from repro.repository import WorkingFolder
from repro.tracking import run as tracking
from repro.tracking import stage_run, store
from repro.tracking.contents import params_of_run
from stages.params import load

# What MLflow and SQLAlchemy tell each other is not ours; in a stage nobody sees it either.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


# --- what a run holds -----------------------------------------------------------------------------


def test_a_run_of_the_pipeline_is_one_run_with_all_params_and_metrics(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    (run,) = runs()
    assert run.data.params == params_of_run(load())
    assert run.data.params["model.n_layer"] == "3"
    metrics = run.data.metrics
    assert metrics["prepare/train/bytes"] == 6
    assert metrics["train/best_val_loss"] == 3.7
    assert metrics["evaluate/val/bits_per_byte"] == 5.3
    assert {f"time/{stage}_s" for stage in STAGES} < set(metrics)
    assert metrics["time/tokens_per_second"] == 1234.0
    assert states_of(run) == dict.fromkeys(STAGES, "done")
    assert run.info.status == "FINISHED"


def test_a_run_holds_the_samples_the_pictures_and_what_defines_it(trial: TrialRepository) -> None:
    trial.run_all()
    (run,) = runs()
    expected = {"samples.md", "samples.json", "pictures", "params.yaml", "dvc.yaml", "dvc.lock"}
    assert expected <= artifacts_of(run)
    table = open_store().client.load_table(open_store().experiment, "samples.json")
    assert list(table["text"]) == ["Thou art."]
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.name == "verse"
    assert dataset.dataset.digest == WorkingFolder().md5("data/corpus")


def test_a_curve_filled_in_from_the_file_is_the_curve_that_was_sent(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    trial.set(num_samples=2)
    trial.run("sample")
    newest, first = runs()
    for name in ("train/loss", "train/learning_rate", "train/grad_norm", "train/val_loss"):
        assert curve_of(newest, name) == curve_of(first, name), name
    assert curve_of(newest, "train/loss") == [(step, loss) for step, loss, _, _ in CURVE]
    assert curve_of(newest, "train/val_loss") == [(0, 4.2), *EVALUATIONS.items()]


def test_a_change_of_sample_alone_makes_a_complete_run(trial: TrialRepository) -> None:
    trial.run_all()
    trial.set(num_samples=2)
    trial.run("sample")
    newest, first = runs()
    assert states_of(newest) == dict.fromkeys(STAGES, "reused") | {"sample": "done"}
    assert newest.data.params["sample.num_samples"] == "2"
    times = {"time/prepare_s", "time/tokenize_s", "time/train_s", "time/tokens_per_second"}
    for name, value in first.data.metrics.items():
        if name in times or not name.startswith("time/"):
            assert newest.data.metrics[name] == value, name
    assert artifacts_of(newest) == artifacts_of(first)


def test_a_stage_that_comes_out_as_before_completes_the_run_with_what_dvc_skips(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    with Path("stages/tokenize.py").open("a", encoding="utf-8") as code:
        code.write("# a comment\n")
    trial.run("tokenize")
    newest, _ = runs()
    assert states_of(newest) == dict.fromkeys(STAGES, "reused") | {"tokenize": "done"}
    assert "evaluate/val/loss" in newest.data.metrics
    assert newest.info.status == "FINISHED"


def test_a_stage_that_comes_out_otherwise_leaves_what_follows_to_run(
    trial: TrialRepository,
) -> None:
    trial.run_all()
    trial.set(seed=2, steps=9)
    trial.model = "other weights"
    trial.run("train")
    newest, _ = runs()
    assert states_of(newest)["evaluate"] is None
    assert "evaluate/val/loss" not in newest.data.metrics
    trial.run("evaluate")
    assert "evaluate/val/loss" in runs()[0].data.metrics
    assert len(runs()) == 2


def test_stale_results_are_never_filled_in(trial: TrialRepository) -> None:
    trial.run_all()
    trial.write("metrics/evaluate.json", json.dumps({"val": {"loss": 0.0}}))
    trial.set(num_samples=2)
    trial.run("sample")
    assert states_of(runs()[0])["evaluate"] is None


def test_own_text_that_changed_makes_what_stands_on_it_invalid(trial: TrialRepository) -> None:
    trial.run_all()
    trial.write("data/own/text.txt", "Another text.\n")
    trial.set(num_samples=2)
    trial.run("sample")
    assert set(states_of(runs()[0]).values()) == {None, "done"}


def test_a_run_whose_params_could_not_be_logged_gets_them_from_the_next_stage(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    def fails(*arguments: object, **more: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_batch", fails)
        trial.run("prepare")
    assert "the disk is full" in capsys.readouterr().err
    for stage in STAGES[1:]:
        trial.run(stage)
    (run,) = runs()
    assert run.data.params == params_of_run(load())
    assert {"params.yaml", "dvc.yaml"} <= artifacts_of(run)
    assert states_of(run) == dict.fromkeys(STAGES, "done") | {"prepare": "reused"}
    assert run.info.status == "FINISHED"


# --- which run ------------------------------------------------------------------------------------


def test_running_a_done_stage_again_makes_a_new_run(trial: TrialRepository) -> None:
    trial.run_all()
    trial.run("train")
    assert len(runs()) == 2


def test_forced_stages_of_one_execution_share_a_run(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    monkeypatch.setattr(stage_run, "execution_id", lambda: "another dvc")
    trial.run_all()
    newest, _ = runs()
    assert states_of(newest) == dict.fromkeys(STAGES, "done")


def test_experiments_have_runs_of_their_own(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial.run_all()
    monkeypatch.setenv("DVC_EXP_NAME", "brave-owl")
    trial.run("sample")
    newest, _ = runs()
    assert newest.info.run_name == "brave-owl"
    assert newest.data.tags["dvc.exp_name"] == "brave-owl"


def test_clones_that_run_the_same_at_the_same_time_have_runs_of_their_own(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trial.folder}/mlflow.db")
    clone = TrialRepository(tmp_path / "other clone")
    for stage in STAGES:
        trial.run(stage)
        monkeypatch.chdir(clone.folder)
        clone.run(stage)
        monkeypatch.chdir(trial.folder)
    assert [states_of(run) for run in runs()] == [dict.fromkeys(STAGES, "done")] * 2


def test_a_run_is_kept_in_the_main_repository_from_a_temporary_copy(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = TrialRepository(trial.folder / ".dvc/tmp/exps/copy")
    monkeypatch.setenv("DVC_ROOT", str(trial.folder))
    monkeypatch.chdir(copy.folder)
    copy.run("prepare")
    (run,) = runs()
    assert run.info.artifact_uri.startswith((trial.folder / "mlartifacts").as_uri())
    assert not (copy.folder / "mlflow.db").exists()


def test_a_relative_database_is_meant_from_the_root(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    monkeypatch.chdir("data")
    assert store.store_uri() == f"sqlite:///{trial.folder}/other.db"


def test_a_folder_that_is_missing_is_made(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///not/yet/here/mlflow.db")
    trial.run("prepare")
    assert (trial.folder / "not/yet/here/mlflow.db").is_file()
    assert len(runs()) == 1


# --- stopped and resumed --------------------------------------------------------------------------


def test_a_resumed_training_continues_its_run_without_doubled_steps(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(run: tracking.Run) -> None:
        trial.send_curve(run, 1, 25)
        raise Interrupted("stopped by SIGTERM")

    def resumed(run: tracking.Run) -> None:
        trial.send_curve(run, 21, 40)  # the last saved state was at step 20

    with pytest.raises(Interrupted):
        trial.run("train", stopped)
    (run,) = runs()
    assert (run.info.status, states_of(run)["train"]) == ("KILLED", "interrupted")
    monkeypatch.setattr(stage_run, "execution_id", lambda: "another dvc")
    monkeypatch.setattr(platform, "node", lambda: "another host")
    trial.run("train", resumed)
    (run,) = runs()
    assert (run.data.tags["execution"], run.data.tags["host"]) == ("another dvc", "another host")
    assert curve_of(run, "train/loss") == [(step, loss) for step, loss, _, _ in CURVE]
    assert (run.info.status, states_of(run)["train"]) == ("FINISHED", "done")


def test_a_stopped_training_under_other_code_starts_a_new_run(trial: TrialRepository) -> None:
    def stopped(run: tracking.Run) -> None:
        raise Interrupted("stopped by SIGTERM")

    with pytest.raises(Interrupted):
        trial.run("train", stopped)
    trial.write("gpt/trainer.py", "# other code\n")
    trial.run("train")
    assert len(runs()) == 2


@pytest.mark.parametrize(
    ("error", "state", "status"),
    [
        (TrainingError("loss is not finite"), "failed", "FAILED"),
        (KeyError("a fault of ours"), "failed", "FAILED"),
        (KeyboardInterrupt(), "interrupted", "KILLED"),
    ],
)
def test_what_a_stage_raises_passes_through_and_the_run_says_so(
    trial: TrialRepository, error: BaseException, state: str, status: str
) -> None:
    def fails(run: tracking.Run) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        trial.run("train", fails)
    assert caught.value is error
    (run,) = runs()
    assert (states_of(run)["train"], run.info.status) == (state, status)
