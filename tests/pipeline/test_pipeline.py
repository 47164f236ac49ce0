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
import time
from collections.abc import Callable
from pathlib import Path

import planted
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow

SMALL = {
    "data.verse_bytes": "60000",
    "train.steps": "40",
    "train.batch_size": "8",
    "train.eval_every": "20",
    "train.eval_tokens": "1024",
    "train.threads": "1",
    "model.n_layer": "1",
    "model.n_embd": "32",
    "model.block_size": "32",
    "sample.num_samples": "2",
    "sample.max_new_tokens": "60",
    "runtime.tracking": "false",
}


def set_params(folder: Path, values: dict[str, str]) -> None:
    """Edits params.yaml as a user does, line by line, comments kept."""
    path = folder / "params.yaml"
    lines = path.read_text(encoding="utf-8").split("\n")
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        inside = ""
        for index, line in enumerate(lines):
            if top := re.match(r"(\w+):", line):
                inside = top[1] if not line.split(":", 1)[1].split("#")[0].strip() else ""
            wanted = rf"  {name}:" if section else rf"{name}:"
            if line.startswith(wanted) and inside == section:
                comment = line.split("#", 1)[1] if "#" in line else ""
                lines[index] = f"{wanted} {value}  #{comment}"
                break
        else:
            raise KeyError(key)
    path.write_text("\n".join(lines), encoding="utf-8")


class Clone:
    """A fresh copy of the repository, under git, with its own cache."""

    def __init__(self, folder: Path, files: list[Path], params: dict[str, str]) -> None:
        self.folder = folder
        for file in files:
            target = folder / file.relative_to(REPOSITORY)
            if file.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        # What a fresh clone has of earlier runs would let DVC skip a stage.
        (folder / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(folder / "metrics", ignore_errors=True)
        set_params(folder, params)
        self.git("init", "-q", "-b", "main")
        self.commit("begin")

    def environment(self, **more: str) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "MLFLOW_"))}
        return kept | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1"} | more

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
            stdin=subprocess.DEVNULL,
        )
        self.code = done.returncode
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    def git(self, *words: str) -> str:
        return self.run("git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def dvc(self, *words: str, check: bool = True, **environment: str) -> str:
        return self.run("dvc", *words, check=check, **environment)

    def touch_params(self) -> None:
        """Lets git see that params.yaml has changed.

        DVC writes an override and git's index within a second; where the file kept its size, git,
        which compares whole seconds, then takes it for unchanged. A stage that fails sees to it
        itself; where DVC failed before any stage, README tells users.
        """
        os.utime(self.folder / "params.yaml", (1, 1))

    def lock(self) -> str:
        return (self.folder / "dvc.lock").read_text(encoding="utf-8")

    def outs(self) -> dict[str, str]:
        """The hash of every output."""
        stages = yaml.safe_load(self.lock())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def experiment_outs(self, name: str) -> dict[str, str]:
        """The hash of every output of a DVC experiment."""
        refs = self.git("for-each-ref", "refs/exps", "--format", "%(refname)").split()
        (ref,) = [ref for ref in refs if ref.endswith(f"/{name}")]
        stages = yaml.safe_load(self.git("show", f"{ref}:dvc.lock"))["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}

    def metrics(self, name: str) -> dict:
        return json.loads((self.folder / f"metrics/{name}.json").read_text(encoding="utf-8"))


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", output)


@pytest.fixture(scope="module")
def make_clone(
    tmp_path_factory: pytest.TempPathFactory, tracked_files: list[Path]
) -> Callable[..., Clone]:
    def make(**params: str) -> Clone:
        folder = tmp_path_factory.mktemp("clone")
        return Clone(
            folder, tracked_files, SMALL | {k.replace("__", "."): v for k, v in params.items()}
        )

    return make


@pytest.fixture(scope="module")
def _built(make_clone: Callable[..., Clone]) -> Clone:
    """A clone in which the pipeline has run and its results are committed."""
    clone = make_clone()
    clone.dvc("repro")
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


def test_two_fresh_clones_give_the_same_lock_byte_for_byte(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    other = make_clone()
    assert stages_run(other.dvc("repro")) == ["prepare", "tokenize", "train", "evaluate", "sample"]
    assert other.lock() == built.lock()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sample.temperature=0.55", ["sample"]),
        ("evaluate.batch_tokens=512", ["evaluate"]),
        ("model.n_layer=2", ["train", "evaluate", "sample"]),
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


@pytest.mark.fault(10)
def test_runtime_settings_change_no_bit(built: Clone, make_clone: Callable[..., Clone]) -> None:
    other = make_clone(
        runtime__checkpoint_every="3", runtime__sample_every="5", runtime__keep_scratch="true"
    )
    other.dvc("repro")
    assert other.outs() == built.outs()


def test_an_edited_own_text_reruns_from_prepare(make_clone: Callable[..., Clone]) -> None:
    clone = make_clone(data__corpus="own")
    poem = clone.folder / "data/own/poem.txt"
    poem.write_text("The sea is wide, the night is long.\n" * 60, encoding="utf-8")
    clone.commit("a text")
    clone.dvc("repro")
    poem.write_text("The sea was wide, the night was long.\n" * 60, encoding="utf-8")
    assert stages_run(clone.dvc("repro"))[0] == "prepare"


def test_metrics_plots_and_experiments_can_be_shown(built: Clone) -> None:
    built.dvc("exp", "run", "-S", "sample.temperature=0.6", "--name", "warm")
    shown = json.loads(built.dvc("metrics", "show", "--json"))
    assert "loss" in shown[""]["data"]["metrics/evaluate.json"]["data"]["val"]
    table = built.dvc("exp", "show", "--csv")
    assert "warm" in table
    built.dvc("plots", "diff", "HEAD", "--out", "plots")
    page = (built.folder / "plots/index.html").read_text(encoding="utf-8")
    assert "Loss while training" in page


def test_sampling_by_hand_prints_the_text_and_touches_no_file(built: Clone) -> None:
    words = ["--prompt", "The sea", "--max-new-tokens", "20", "--num-samples", "2"]
    first, second = (built.run(sys.executable, "-m", "stages.sample", *words) for _ in range(2))
    assert first.startswith("The sea") and len(first) > 40
    assert first == second
    assert built.git("status", "--porcelain") == ""


def test_sampling_by_hand_refuses_an_impossible_option_in_one_line(built: Clone) -> None:
    output = built.run(sys.executable, "-m", "stages.sample", "--temperature", "-1", check=False)
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


def test_a_temp_run_gives_the_bits_of_the_workspace_and_a_complete_row(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    clone = make_clone(runtime__tracking="true")
    output = clone.dvc("exp", "run", "--temp", "--name", "aside")
    assert len(stages_run(output)) == 5
    assert clone.experiment_outs("aside") == built.outs()
    (row,) = rows(clone)
    assert_complete(row)


def test_two_queue_workers_give_the_bits_of_the_workspace_and_complete_rows(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    clone = make_clone(runtime__tracking="true")
    clone.dvc("repro", "tokenize")  # workers do not share a stage that neither has run
    clone.commit("tokens")
    clone.dvc("exp", "run", "--queue", "-S", "seed=1,2", "-S", "model.n_layer=1,2")
    clone.dvc("queue", "start", "-j", "2")
    try:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            states = re.findall(r"Success|Failed", clone.dvc("queue", "status"))
            if len(states) == 4:
                break
            time.sleep(2)
    finally:
        clone.dvc("queue", "stop", "--kill", check=False)
    assert states == ["Success"] * 4
    trained = [row for row in rows(clone) if "evaluate/val/loss" in row["metrics"]]
    assert len(trained) == 4
    for row in trained:
        assert_complete(row)
    assert {(row["params"]["seed"], row["params"]["model.n_layer"]) for row in trained} == {
        ("1", "1"),
        ("1", "2"),
        ("2", "1"),
        ("2", "2"),
    }


def test_an_experiment_on_sampling_alone_has_a_complete_row(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(runtime__tracking="true")
    clone.dvc("repro")
    clone.commit("results")
    output = clone.dvc("exp", "run", "-S", "sample.temperature=0.55")
    assert stages_run(output) == ["sample"]
    clone.dvc("exp", "run", "-S", "model.n_layer=2", "-S", "sample.temperature=0.8")
    found = rows(clone)
    assert len(found) == 3
    for row in found:
        assert_complete(row)
    assert sorted(row["params"]["sample.temperature"] for row in found) == ["0.55", "0.7", "0.8"]


def rows(clone: Clone, store: str | None = None) -> list[dict]:
    """The rows of the clone's MLflow table, or of a server, read in a process of its own."""
    code = """
import json, mlflow
client = mlflow.MlflowClient()
rows = []
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        curve = client.get_metric_history(run.info.run_id, "train/loss")
        files = [file.path for file in client.list_artifacts(run.info.run_id)]
        data = [(one.dataset.name, one.dataset.digest) for one in run.inputs.dataset_inputs]
        rows.append({"params": run.data.params, "metrics": run.data.metrics, "files": files,
                     "curve": [point.step for point in curve], "status": run.info.status,
                     "tags": run.data.tags, "data": data, "place": run.info.artifact_uri})
print("ROWS" + json.dumps(rows))
"""
    store = store or f"sqlite:///{clone.folder}/mlflow.db"
    output = clone.run(sys.executable, "-W", "ignore", "-c", code, MLFLOW_TRACKING_URI=store)
    return json.loads(output.split("ROWS", 1)[1])


def assert_complete(row: dict, timed: bool = True, steps: int = 40) -> None:
    """Every param, every stage's metrics, the whole curve without a step twice, the samples.

    How long a stage took is known to nobody where the store could not be written to (`timed`).
    """
    assert row["status"] == "FINISHED"
    assert row["params"]["model.n_embd"] == "32"
    for metric in (
        "prepare/train/bytes",
        "tokenize/vocab_size",
        "train/best_val_loss",
        "evaluate/val/loss",
        "evaluate/val/bits_per_byte",
        "sample/characters",
        "train/val_loss",
        *(["time/train_s"] if timed else []),
    ):
        assert metric in row["metrics"], metric
    # What a kill kept from the store came later.
    assert sorted(row["curve"]) == list(range(1, steps + 1))
    assert {"params.yaml", "dvc.lock", "samples.md"} <= {Path(name).name for name in row["files"]}


@pytest.mark.fault(1)
@pytest.mark.parametrize(
    ("kill_after_step", "again"),
    [
        (5, ["repro"]),
        (15, ["exp", "run", "--name", "again"]),
        (33, ["exp", "run", "--temp", "--name", "again"]),
    ],
    ids=["repro", "exp run", "temp"],
)
def test_a_killed_training_goes_on_to_the_same_bits(
    built: Clone, make_clone: Callable[..., Clone], kill_after_step: int, again: list[str]
) -> None:
    clone = make_clone(runtime__checkpoint_every="1")
    for stage in ("prepare", "tokenize"):
        clone.dvc("repro", "--single-item", stage)
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=clone.folder,
        env=clone.environment(),
        stdout=subprocess.DEVNULL,
    )
    scratch = clone.folder / ".cache/train"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        saved = [int(path.name[5:]) for path in scratch.glob("*/step_*")]
        if saved and max(saved) >= kill_after_step:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(scratch.glob("*/step_*")), "it was killed before its end"
    output = clone.dvc(*again)
    assert "going on from step" in output
    found = clone.outs() if again == ["repro"] else clone.experiment_outs("again")
    assert found == built.outs()
    assert not list(scratch.glob("*/step_*")), "states are removed after success"


@pytest.mark.fault(3)
def test_sigterm_saves_and_exits_with_its_own_code(
    built: Clone, make_clone: Callable[..., Clone]
) -> None:
    clone = make_clone(train__steps="5000", train__eval_every="0", runtime__checkpoint_every="1")
    for stage in ("prepare", "tokenize"):
        clone.dvc("repro", "--single-item", stage)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.train"],
        cwd=clone.folder,
        env=clone.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # From then on it listens.
    wait_for(lambda: list(clone.folder.glob(".cache/train/*/step_*")))
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 75, rest
    assert "saved after step" in rest
    assert "Traceback" not in rest


# --- faults around dvc ----------------------------------------------------------------------------


def wait_for(found: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.fault(4)
@pytest.mark.fault(12)
@pytest.mark.fault(14)
def test_where_dvc_alone_is_killed_the_trainer_goes_on_and_a_second_run_waits_its_turn(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(train__steps="100000", train__eval_every="0", runtime__checkpoint_every="20")
    for stage in ("prepare", "tokenize"):
        clone.dvc("repro", "--single-item", stage)
    dvc = subprocess.Popen(
        ["dvc", "repro", "train"],
        cwd=clone.folder,
        env=clone.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    trainer = 0
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
        output = clone.dvc("repro", "train", check=False)
        assert clone.code != 0
        assert f"already running as process {trainer}; wait for it, or end it" in output
        assert "Traceback" not in output
    finally:
        dvc.kill()
        dvc.wait()
        if trainer:
            os.kill(trainer, signal.SIGKILL)
    set_params(clone.folder, {"runtime.checkpoint_every": "0"})
    # Its states are there for the next one; a second process is enough to see it.
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "stages.train"],
        cwd=clone.folder,
        env=clone.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert any("going on from step" in line for line in process.stdout)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.fault(14, planted=planted.CACHE_TRUSTED)
def test_a_flipped_bit_in_the_cache_is_caught_and_the_line_says_how_to_mend_it(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(train__steps="5", sample__max_new_tokens="5")
    clone.dvc("repro", "evaluate")
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
    output = clone.dvc("repro", "evaluate", check=False)
    assert clone.code != 0
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if "delete .dvc/cache/files" in line]
    assert "data/tokens/val.npy" in line
    shutil.rmtree(clone.folder / ".dvc/cache/files")
    shutil.rmtree(clone.folder / "data/tokens")
    set_params(clone.folder, {"train.steps": "5"})
    clone.dvc("repro", "evaluate")
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


def test_a_finished_experiment_is_built_again_from_its_branch_in_a_fresh_clone(
    built: Clone, tmp_path: Path
) -> None:
    # docs/reproduce.md, command by command.
    built.dvc("exp", "run", "-S", "model.n_layer=2", "--name", "deep")
    expected = built.experiment_outs("deep")
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


def test_an_experiment_is_applied_and_its_results_come_from_the_cache(built: Clone) -> None:
    built.dvc("exp", "run", "-S", "model.n_layer=2", "--name", "to-apply")
    expected = built.experiment_outs("to-apply")
    built.git("checkout", "-q", "-f", "main")
    built.dvc("checkout", "-q")
    assert built.outs() != expected
    built.dvc("exp", "apply", "to-apply")
    assert stages_run(built.dvc("repro")) == []
    assert built.outs() == expected


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
    "a section replaced by a word": (
        lambda clone: ["exp", "run", "-S", "train=small"],
        "preset=small",
    ),
    "the model replaced by a word": (
        lambda clone: ["exp", "run", "-S", "model=small"],
        "Could not find 'model.source'",
    ),
    "heads that do not divide the width": (
        lambda clone: ["exp", "run", "-S", "model.n_embd=33"],
        "model.n_embd 33 is not divisible by model.n_head 2",
    ),
    "a missing path": (
        lambda clone: ["exp", "run", "-S", "data.corpus=own", "-S", "data.path=no/such/folder"],
        "no/such/folder",
    ),
    "an empty file": (lambda clone: own(clone, b""), "empty"),
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
