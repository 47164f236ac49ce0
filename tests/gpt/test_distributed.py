"""Several processes that train one model: PyTorch's launcher, DDP and FSDP2, on this machine."""

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from small_training import REPOSITORY, SmallTraining, largest_difference
from waiting import wait_for

from gpt.distributed import ProcessGroup, full_tensor, is_sharded, shard_like, wrap_model
from gpt.errors import ParamsError
from repro.processes import PEER_LOST, _first_to_end, process_group

# Weights are of the size of 0.02 to 1; an update at the peak rate moves them by 0.001.
TOLERANCE = 2e-5


@pytest.mark.parametrize(
    ("micro_steps", "sequences", "size", "expected"),
    [
        (4, 8, 2, [(range(2), slice(None)), (range(2, 4), slice(None))]),
        (3, 8, 2, [(range(3), slice(0, 4)), (range(3), slice(4, 8))]),
        (1, 2, 2, [(range(1), slice(0, 1)), (range(1), slice(1, 2))]),
    ],
)
def test_every_sequence_of_an_update_is_computed_by_one_process(
    micro_steps: int, sequences: int, size: int, expected: list[tuple[range, slice]]
) -> None:
    divided = [ProcessGroup(rank, size).divide(micro_steps, sequences) for rank in range(size)]
    assert divided == expected
    computed = [
        (micro_step, sequence)
        for own_steps, own_sequences in divided
        for micro_step in own_steps
        for sequence in range(sequences)[own_sequences]
    ]
    assert sorted(computed) == [(m, s) for m in range(micro_steps) for s in range(sequences)]


def test_an_update_that_cannot_be_divided_says_what_to_change() -> None:
    with pytest.raises(ParamsError, match=r"3 processes cannot evenly divide .* = 2 or .*size = 8"):
        ProcessGroup(0, 3).divide(2, 8)


def test_a_tensor_that_is_not_sharded_is_its_own_full_tensor() -> None:
    tensor = torch.arange(3.0)
    assert not is_sharded(tensor)
    assert full_tensor(tensor) is tensor
    assert shard_like(tensor, tensor) is tensor


def test_fsdp_of_a_model_without_blocks_is_refused_with_what_is_missing() -> None:
    model = torch.nn.Linear(2, 2)
    model.config = SimpleNamespace(source="mine.py")
    with pytest.raises(ParamsError, match=r"model\.source = mine\.py: .*fsdp needs GPT\.blocks"):
        wrap_model(model, "fsdp", 2)


def test_a_result_is_computed_by_one_process_and_sent_to_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = [torch.full((2,), float(number)) for number in range(5)]
    computed: dict[int, list[float]] = {}
    sent: list[int] = []
    monkeypatch.setattr("torch.distributed.broadcast", lambda tensor, src: sent.append(src))
    for rank in range(3):
        mine = computed.setdefault(rank, [])

        def times_ten(x: torch.Tensor, mine: list[float] = mine) -> torch.Tensor:
            mine.append(float(x[0]))
            return x * 10

        results = ProcessGroup(rank, 3).broadcast_results(times_ten, inputs)
        assert [float(results[int(number)][0]) for number in mine] == [10 * x for x in mine]
    assert sorted(x for mine in computed.values() for x in mine) == [0, 1, 2, 3, 4]
    # Each process was told to take a result from the one that computed it.
    by = [next(rank for rank in computed if number in computed[rank]) for number in range(5)]
    assert sent == 3 * by


# --- whole trainings ------------------------------------------------------------------------------

SMALL = {
    "model__dropout": 0.0,
    "train__steps": 12,
    "train__eval_every": 5,
    "train__gradient_accumulation": 2,
    "runtime__checkpoint_every": 0,
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallTraining]:
    training = SmallTraining(tmp_path_factory.mktemp("distributed") / "original")
    training.set(**SMALL)
    training.make_tokens()
    yield training


def trained(original: SmallTraining, folder: Path, **params: object) -> SmallTraining:
    training = original.clone(folder)
    training.set(**params)
    done = training.plain("train")
    assert done.returncode == 0, done.stdout
    processes = params.get("train__processes", 1)
    assert f", {processes} processes" in done.stdout or processes == 1
    return training


def bits(training: SmallTraining) -> tuple[str, str]:
    """What is to be equal where processes change; config.json tells of their number."""
    hashes = training.hashes()
    return hashes["model.safetensors"], hashes["train.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_two_processes_give_the_bits_of_one_where_each_computes_one_micro_step(
    original: SmallTraining, tmp_path: Path, dropout: float
) -> None:
    single = trained(original, tmp_path / "1", model__dropout=dropout)
    two = trained(original, tmp_path / "2", model__dropout=dropout, train__processes=2)
    assert bits(single) == bits(two)
    config = (two.folder / "data/model/config.json").read_text(encoding="utf-8")
    assert '"processes": 2' in config


MUON = {
    "train__optimizer": "muon",
    "model__architecture": "modern",
    "model__line_sums": 2,
    "model__ngram_rows": 64,
}


@pytest.mark.slow
def test_two_processes_that_divide_muons_matrices_give_the_bits_of_one(
    original: SmallTraining, tmp_path: Path
) -> None:
    single = trained(original, tmp_path / "1", **MUON)
    two = trained(original, tmp_path / "2", **MUON, train__processes=2)
    assert bits(single) == bits(two)


@pytest.mark.slow
def test_processes_that_divide_sequences_or_weights_differ_in_the_last_digits(
    original: SmallTraining, tmp_path: Path
) -> None:
    single = trained(original, tmp_path / "1", **MUON)
    for name, params in {
        "micro-steps and sequences": {"train__processes": 4},
        "shards of each weight": {
            "train__processes": 2,
            "train__sharding": "fsdp",
            "train__recompute": True,
            "runtime__sample_tokens": 5,
        },
    }.items():
        several = trained(original, tmp_path / name, **MUON, **params)
        assert largest_difference(single, several) < TOLERANCE, name


@pytest.mark.slow
def test_the_job_for_slurm_trains_as_it_stands_in_the_docs(
    original: SmallTraining, tmp_path: Path
) -> None:
    # Slurm's two commands are what is not real here: one names the hosts, one starts on each.
    for name, script in {"scontrol": "echo localhost", "srun": 'exec "$@"'}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(0o755)
    page = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8")
    job = re.search(r"^    #!/bin/bash\n(?:    .*\n)+", page, re.M)
    assert job is not None
    lines = textwrap.dedent(job[0]).replace("--nproc-per-node 8", "--nproc-per-node 2")
    single = trained(original, tmp_path / "single")
    training = original.clone(tmp_path / "job")
    slurm = {"SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7"}
    folders = (tmp_path / "bin", Path(sys.executable).parent, os.environ["PATH"])
    path = os.pathsep.join(map(str, folders))
    environment = {**os.environ, **slurm, "PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", lines],
        cwd=training.folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert "2 processes" in done.stdout and "warning" not in done.stdout
    assert bits(training) == bits(single)


@pytest.mark.parametrize(
    ("store", "restarts", "warned"),
    [("True", "3", True), ("False", "3", False), ("True", "0", False)],
)
def test_a_torchrun_whose_restarts_share_a_store_is_warned_of(
    store: str,
    restarts: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", store)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(torch.distributed, name, lambda *_, **__: None)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with process_group("cpu", timeout_seconds=30) as (rank, size):
        assert (rank, size) == (0, 2)
    assert ("TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in capsys.readouterr().out) == warned


@pytest.mark.slow
def test_blocks_computed_again_give_the_same_bits(original: SmallTraining, tmp_path: Path) -> None:
    kept = trained(original, tmp_path / "kept", model__dropout=0.1)
    again = trained(original, tmp_path / "again", model__dropout=0.1, train__recompute=True)
    assert bits(kept) == bits(again)


# --- what can happen on the way -------------------------------------------------------------------


def started(training: SmallTraining) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=training.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        env=dict(os.environ),
    )


def wait_for_step(training: SmallTraining, process: "subprocess.Popen[str]", step: int) -> None:
    wait_for(
        lambda: training.newest() >= step,
        running=lambda: process.poll() is None,
        told=lambda: process.communicate()[0],
    )


def workers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "stages.train" in " ".join(child.cmdline())]


LONG = {"train__steps": 400, "train__eval_every": 0, "runtime__checkpoint_every": 20}


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ({0: PEER_LOST, 1: -9}, (1, "signal 9")),
        ({0: -9, 1: PEER_LOST}, (0, "signal 9")),
        ({2: 1, 0: PEER_LOST, 1: PEER_LOST}, (2, "code 1")),
        ({1: PEER_LOST}, (1, f"code {PEER_LOST}")),
    ],
)
def test_the_process_that_ended_first_is_named_and_not_one_it_left(
    codes: dict[int, int], told: tuple[int, str]
) -> None:
    assert _first_to_end(codes) == told


@pytest.mark.slow
def test_a_process_that_is_killed_costs_only_time(original: SmallTraining, tmp_path: Path) -> None:
    two_processes = {**LONG, "train__processes": 2}
    undisturbed = trained(original, tmp_path / "undisturbed", **two_processes)
    training = original.clone(tmp_path / "killed")
    training.set(**two_processes)
    with started(training) as process:
        wait_for_step(training, process, 40)
        workers(process)[1].kill()
        output = process.communicate()[0]
    assert process.returncode == 0, output
    again = "ended by signal 9; all restart from the last saved state"
    assert again in output
    assert int(re.findall(r"resuming from step (\d+)", output)[-1]) >= 40
    assert training.hashes() == undisturbed.hashes()


@pytest.mark.slow
def test_a_signal_saves_and_another_number_of_processes_resumes(
    original: SmallTraining, tmp_path: Path
) -> None:
    single = trained(original, tmp_path / "single", **LONG)
    training = original.clone(tmp_path / "moved")
    training.set(**LONG, train__processes=2, train__sharding="fsdp")
    with started(training) as process:
        wait_for_step(training, process, 40)
        process.send_signal(signal.SIGTERM)
        output = process.communicate()[0]
    assert process.returncode == 75, output
    saved = training.newest()
    training.set(train__processes=1)
    done = training.plain("train")
    assert done.returncode == 0
    assert f"resuming from step {saved}\n" in done.stdout
    assert largest_difference(single, training) < 10 * TOLERANCE


@pytest.mark.slow
def test_a_fault_of_the_user_is_told_once_and_not_tried_again(
    original: SmallTraining, tmp_path: Path
) -> None:
    training = original.clone(tmp_path / "odd")
    training.set(train__processes=2, train__batch_size=3, train__gradient_accumulation=1)
    done = training.plain("train")
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("2 processes cannot evenly divide") == 1
    assert "Traceback" not in done.stdout
    assert "again" not in done.stdout
