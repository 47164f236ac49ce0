"""The pipeline as a user runs it: dvc and git in fresh clones, settings small enough to wait for.

Every clone lies in a temporary folder; results are compared by the hashes in dvc.lock.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import planted
import pytest
from experiment_queue import Queue
from pipeline_clone import (
    Clone,
    assert_complete,
    saved_step,
    set_params,
    stages_run,
    tracked_runs,
    train_until,
)
from waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def _built(make_clone: Callable[..., Clone]) -> Clone:
    """A clone in which the pipeline has run and its results are committed."""
    clone = make_clone(tokens=True)
    assert stages_run(clone.dvc("repro")) == ["train", "evaluate", "sample"]
    clone.commit("results")
    return clone


@pytest.fixture
def built(_built: Clone) -> Clone:
    """The same, brought back to its committed state; what other tests ran is not to be skipped."""
    shutil.rmtree(_built.folder / ".dvc/cache/runs", ignore_errors=True)
    _built.touch_params()
    _built.git("checkout", "-q", "-f", "main")
    _built.git("clean", "-fdq", "-e", ".dvc")
    _built.dvc("checkout", "-q")
    return _built


# --- what runs ------------------------------------------------------------------------------------


@pytest.mark.fault(8)
def test_a_second_repro_does_nothing(built: Clone) -> None:
    before = built.lock()
    assert stages_run(built.dvc("repro")) == []
    assert built.lock() == before


@pytest.mark.fault(10)
def test_a_fresh_clone_gives_the_same_lock_byte_for_byte_whatever_its_runtime_settings(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    fresh = make_clone(
        runtime__checkpoint_every="3", runtime__sample_every="5", runtime__keep_scratch="true"
    )
    assert stages_run(fresh.dvc("repro")) == ["prepare", "tokenize", "train", "evaluate", "sample"]
    assert fresh.lock() == built.lock()


@pytest.fixture(scope="module")
def _deep(_built: Clone) -> str:
    """What DVC printed for the experiment `deep`, which changes the model."""
    return _built.dvc("exp", "run", "-S", "model.n_layer=2", "--name", "deep")


@pytest.fixture
def deep(_deep: str, built: Clone) -> str:
    """The same; the workspace is at its committed state again."""
    return _deep


def test_an_override_of_the_model_trains_scores_and_samples(deep: str) -> None:
    assert stages_run(deep) == ["train", "evaluate", "sample"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sample.temperature=0.55", ["sample"]),
        ("evaluate.batch_tokens=512", ["evaluate"]),
        ("tokenizer.kind=byte", ["tokenize", "train", "evaluate", "sample"]),
    ],
)
def test_an_override_runs_what_depends_on_it_and_nothing_else(
    built: Clone, override: str, expected: list[str]
) -> None:
    assert stages_run(built.dvc("exp", "run", "-S", override)) == expected


def test_runtime_settings_run_nothing(built: Clone) -> None:
    set_params(built.folder, {"runtime.checkpoint_seconds": "7", "runtime.sample_tokens": "3"})
    assert stages_run(built.dvc("repro")) == []


def test_an_edited_own_text_reruns_from_prepare(make_clone: Callable[..., Clone]) -> None:
    clone = make_clone(data__corpus="own")
    poem = clone.folder / "data/own/poem.txt"
    poem.write_text("The sea is wide, the night is long.\n" * 60, encoding="utf-8")
    clone.commit("a text")
    clone.dvc("repro", "tokenize")
    poem.write_text("The sea was wide, the night was long.\n" * 60, encoding="utf-8")
    assert stages_run(clone.dvc("repro", "tokenize")) == ["prepare", "tokenize"]


def test_metrics_plots_and_experiments_can_be_shown(built: Clone) -> None:
    built.dvc("exp", "run", "-S", "sample.temperature=0.6", "--name", "warm")
    shown = json.loads(built.dvc("metrics", "show", "--json"))
    assert "loss" in shown[""]["data"]["metrics/evaluate.json"]["data"]["val"]
    table = built.dvc("exp", "show", "--csv")
    assert "warm" in table
    built.dvc("plots", "diff", "HEAD", "--out", "plots")
    page = (built.folder / "plots/index.html").read_text(encoding="utf-8")
    assert "Loss while training" in page


def test_gpt_sample_prints_the_text_and_touches_no_file(built: Clone) -> None:
    words = ["--prompt", "The sea", "--max-new-tokens", "20", "--num-samples", "2"]
    command = (sys.executable, "-m", "commands.cli", "sample", *words)
    first, second = (built.run(*command) for _ in range(2))
    assert first.startswith("The sea") and len(first) > 40
    assert first == second
    assert built.git("status", "--porcelain") == ""


def test_gpt_sample_refuses_an_impossible_option_in_one_line(built: Clone) -> None:
    output = built.run(
        sys.executable, "-m", "commands.cli", "sample", "--temperature", "-1", check=False
    )
    assert built.code == 2
    assert output.count("\n") == 1 and "sample.temperature" in output


def test_shakespeare_comes_from_a_relative_mirror_in_every_kind_of_run(
    make_clone: Callable[..., Clone], texts: Path
) -> None:
    clone = make_clone(data__corpus="shakespeare")
    mirror = os.path.relpath(texts, clone.folder)
    output = clone.dvc("exp", "run", "--temp", "--name", "bard", GPT_MIRROR=mirror)
    assert "65" in output
    assert len(stages_run(output)) == 5


# --- the same bits from every kind of run ---------------------------------------------------------


def test_a_temp_run_gives_the_bits_of_the_workspace_and_later_experiments_complete_runs(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    clone = make_clone(tokens=True, runtime__tracking="true")
    output = clone.dvc("exp", "run", "--temp", "--name", "aside")
    assert stages_run(output) == ["train", "evaluate", "sample"]
    assert clone.experiment_outs("aside") == built.outs()
    clone.dvc("exp", "apply", "aside")
    output = clone.dvc("exp", "run", "-S", "sample.temperature=0.55")
    assert stages_run(output) == ["sample"]
    clone.dvc("exp", "run", "-S", "model.n_layer=2", "-S", "sample.temperature=0.8")
    runs = tracked_runs(clone)
    for run in runs:
        assert_complete(run)
    assert sorted(run["params"]["sample.temperature"] for run in runs) == ["0.55", "0.7", "0.8"]


def test_two_queue_workers_give_the_bits_of_the_workspace_and_complete_runs(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    clone = make_clone(tokens=True, runtime__tracking="true")
    queue = Queue(clone)
    queue.add("-S", "seed=1,2")
    queue.start()
    try:
        queue.run_to_its_end(2)
    finally:
        queue.stop()
    outs = {seed: clone.experiment_outs(name) for name, (seed, _) in queue.experiments().items()}
    assert outs[1] == built.outs() != outs[2]
    trained = [run for run in tracked_runs(clone) if "evaluate/val/loss" in run["metrics"]]
    for run in trained:
        assert_complete(run)
    assert sorted(run["params"]["seed"] for run in trained) == ["1", "2"]


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    ("kill_at_step", "again"),
    [
        (5, ["repro"]),
        (33, ["exp", "run", "--temp", "--name", "again"]),
    ],
    ids=["repro", "temp"],
)
def test_a_killed_training_resumes_to_the_same_bits(
    built: Clone, make_clone: Callable[..., Clone], kill_at_step: int, again: list[str]
) -> None:
    clone = make_clone(tokens=True, runtime__checkpoint_every="1")
    output = train_until(clone, kill_at_step, signal.SIGKILL)
    assert clone.code == -signal.SIGKILL, output
    scratch = clone.folder / ".cache/train"
    assert saved_step(*scratch.glob("*/")) == kill_at_step - 1
    output = clone.dvc(*again)
    assert f"resuming from step {kill_at_step - 1}\n" in output
    outs = clone.outs() if again == ["repro"] else clone.experiment_outs("again")
    assert outs == built.outs()
    assert not list(scratch.glob("*/step_*")), "states are removed after success"


@pytest.mark.fault(3)
def test_sigterm_saves_and_exits_with_its_own_code(make_clone: Callable[..., Clone]) -> None:
    clone = make_clone(
        tokens=True, train__steps="5000", train__eval_every="0", runtime__checkpoint_every="1"
    )
    output = train_until(clone, 20, signal.SIGTERM)
    assert clone.code == 75, output
    assert re.search(r"after step 2[01], state saved;", output)
    assert "Traceback" not in output


# --- faults around dvc ----------------------------------------------------------------------------


@pytest.mark.fault(4)
@pytest.mark.fault(12)
@pytest.mark.fault(14)
def test_where_dvc_alone_is_killed_the_trainer_continues_and_a_second_run_waits_its_turn(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(
        tokens=True, train__steps="100000", train__eval_every="0", runtime__checkpoint_every="20"
    )
    dvc = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=clone.folder,
        env=clone.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    trainer, second = 0, None
    try:
        wait_for(lambda: list(clone.folder.glob(".cache/train/*/step_*")))
        trainer = int(next(clone.folder.glob(".cache/train/*.pid")).read_text(encoding="utf-8"))
        busy = clone.dvc("repro", "train", check=False)
        assert clone.code != 0
        assert "Traceback" not in busy
        assert re.search("lock|busy", busy), busy
        dvc.kill()
        dvc.wait()
        os.kill(trainer, 0)  # it lives on
        # The lock of the dead dvc is no hindrance, but the trainer has the states.
        second = subprocess.Popen(
            ["dvc", "repro", "train"],
            cwd=clone.folder,
            env=clone.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert second.stdout is not None
        waiting = f"already running as process {trainer}; waiting until it ends"
        assert any(waiting in line for line in second.stdout)
        os.kill(trainer, signal.SIGKILL)
        trainer = 0
        assert any("resuming from step" in line for line in second.stdout)
        trainer = int(next(clone.folder.glob(".cache/train/*.pid")).read_text(encoding="utf-8"))
    finally:
        started = [dvc, *([second] if second else [])]
        for process in started:
            process.kill()
        if trainer:
            os.kill(trainer, signal.SIGKILL)
        for process in started:
            process.communicate()


@pytest.mark.fault(14, planted=planted.CACHE_TRUSTED)
def test_a_flipped_bit_in_the_cache_is_caught_and_the_line_says_how_to_repair_it(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(tokens=True, train__steps="5")
    clone.dvc("repro", "train")
    before = clone.outs()
    ids = clone.folder / "data/tokens/val.npy"
    digest = hashlib.md5(ids.read_bytes(), usedforsecurity=False).hexdigest()
    kept = clone.folder / f".dvc/cache/files/md5/{digest[:2]}/{digest[2:]}"
    raw = bytearray(kept.read_bytes())
    raw[130] ^= 1  # after header and bos: an id that stays within the vocabulary
    kept.chmod(0o644)
    kept.write_bytes(raw)
    kept.chmod(0o444)  # as dvc has them, and then does not hash them again
    shutil.rmtree(clone.folder / "data/tokens")
    clone.dvc("checkout", "data/tokens", check=False)
    set_params(clone.folder, {"train.steps": "6"})
    output = clone.dvc("repro", "train", check=False)
    assert clone.code != 0
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if "delete .dvc/cache/files" in line]
    assert "data/tokens/val.npy" in line
    shutil.rmtree(clone.folder / ".dvc/cache/files")
    shutil.rmtree(clone.folder / "data/tokens")
    set_params(clone.folder, {"train.steps": "5"})
    clone.dvc("repro", "train")
    assert clone.outs() == before


@pytest.mark.fault(14)
def test_a_truncated_lock_file_is_named_and_git_brings_it_back(built: Clone) -> None:
    before = built.lock()
    (built.folder / "dvc.lock").write_text(before[: len(before) // 2] + "\n  {", encoding="utf-8")
    output = built.dvc("repro", check=False)
    assert built.code != 0
    assert "dvc.lock" in output
    assert "Traceback" not in output
    built.git("checkout", "HEAD", "dvc.lock")
    assert stages_run(built.dvc("repro")) == []
    assert built.lock() == before


# --- built again ----------------------------------------------------------------------------------


def test_a_finished_experiment_is_applied_from_the_cache_and_built_again_in_a_fresh_clone(
    built: Clone, deep: str, tmp_path: Path
) -> None:
    # docs/reproduce.md, command by command.
    expected = built.experiment_outs("deep")
    assert built.outs() != expected
    built.dvc("exp", "apply", "deep")
    assert stages_run(built.dvc("repro")) == []
    assert built.outs() == expected
    built.dvc("exp", "branch", "deep", "deeper")
    commit = built.git("rev-parse", "deeper").strip()

    again = Clone.__new__(Clone)
    again.folder = tmp_path / "again"
    built.run("git", "clone", "--quiet", "--branch", "deeper", ".", str(again.folder))
    assert again.git("rev-parse", "HEAD").strip() == commit
    assert again.outs() == expected
    # Nothing but the commit came along: no cache, and no stage that DVC could skip.
    assert not (again.folder / ".dvc/cache").exists()
    ran = stages_run(again.dvc("repro", "--force"))
    assert ran == ["prepare", "tokenize", "train", "evaluate", "sample"]
    assert again.git("status", "--porcelain") == ""
    assert again.outs() == expected


# --- what a user gets wrong -----------------------------------------------------------------------


def spoil_params(clone: Clone) -> list[str]:
    path = clone.folder / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("  n_layer:", "  n_layers:"), encoding="utf-8")
    return ["repro"]


def own(clone: Clone, content: bytes) -> list[str]:
    path = clone.folder / "mine.txt"
    path.write_bytes(content)
    return ["exp", "run", "-S", "data.corpus=own", "-S", f"data.path={path.name}"]


FAULTS: dict[str, tuple[Callable[[Clone], list[str]], str]] = {
    "a typo in a params key": (spoil_params, "did you mean model.n_layer?"),
    "the model replaced by a word": (
        lambda clone: ["exp", "run", "-S", "model=small"],
        "Could not find 'model.source'",
    ),
    "a missing path": (
        lambda clone: ["exp", "run", "-S", "data.corpus=own", "-S", "data.path=no/such/folder"],
        "no/such/folder",
    ),
    "a file that is not UTF-8": (
        lambda clone: own(clone, b"fine so far \xff\xfe" * 9),
        "byte 12 is not UTF-8",
    ),
    "a corpus shorter than a block": (lambda clone: own(clone, b"short text"), "needs 33"),
    "no network": (
        lambda clone: ["exp", "run", "-S", "data.corpus=shakespeare"],
        "set GPT_MIRROR",
    ),
    "an unknown character in a prompt": (
        lambda clone: ["exp", "run", "-S", "sample.prompt='caf\u00e9'"],
        "U+00E9",
    ),
}


# dvc.yaml names data.path and model.source, so that DVC stops before any stage of ours could speak.
FOUND_BY_DVC = ("a missing path", "the model replaced by a word")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_the_way_back_brings_everything_back(
    built: Clone, fault: str
) -> None:
    before = built.outs()
    make, words = FAULTS[fault]
    command = make(built)
    # An address nobody answers stands for a machine without a network.
    offline = {"GPT_MIRROR": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    output = built.dvc(*command, check=False, **offline)
    assert built.code != 0
    assert "Traceback" not in output
    assert [line for line in output.splitlines() if words in line], output
    way_back = "git checkout HEAD params.yaml && dvc repro"
    if fault not in FOUND_BY_DVC:
        (line,) = [line for line in output.splitlines() if way_back in line]
        assert words in line
    else:
        built.touch_params()
    built.run("sh", "-c", way_back)
    assert built.outs() == before
    assert built.dvc("status", "-q", check=False) == "" and built.code == 0
