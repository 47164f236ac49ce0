"""The faults of docs/reliability.md, met by a real training: signals, full disks, damaged files.

Most faults are injected where the part they hit is tested (`pytest -m fault` runs them all); here
are those that need a whole stage, run by a process of its own (tests/small_training.py).
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import planted
import pytest
import torch
import yaml
from pytest_socket import SocketBlockedError
from small_training import MEMORY, REPOSITORY, STEPS, Run, SmallTraining, resumed_from
from waiting import wait_for

from gpt.corpus.manifest import read_chunks
from gpt.corpus.readers import Document
from gpt.corpus.sources import Source
from gpt.corpus.splitting import split_corpus
from gpt.corpus.writer import CorpusWriter
from gpt.training_state import CheckpointStore

resource = pytest.importorskip("resource", reason="signals and limits are POSIX")


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    with TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def undisturbed(memory: Path) -> SmallTraining:
    """A training that nothing happened to, and its corpus and tokens."""
    training = SmallTraining(memory / "undisturbed")
    training.make_tokens()
    run = training.run()
    assert run.end() == 0, run.output()
    return training


@pytest.fixture
def training(undisturbed: SmallTraining, tmp_path: Path, memory: Path) -> SmallTraining:
    """A training that has not begun, with the same corpus and tokens."""
    return undisturbed.clone(memory / tmp_path.name)


def ends_alike(training: SmallTraining, undisturbed: SmallTraining, step: int) -> str:
    """Runs it to its end: it resumes from `step` and gives the bits of the undisturbed one."""
    run = training.run()
    assert run.end() == 0, run.output()
    assert resumed_from(run.output()) == step
    assert training.hashes() == undisturbed.hashes()
    assert training.states() == []
    return run.output()


def refused(run: Run, code: int, *words: str) -> str:
    """The one line on which a stage ends with `code`."""
    assert run.end() == code, run.output()
    assert "Traceback" not in run.output()
    for word in words:
        assert word in run.last_line()
    return run.last_line()


# --- what a test does in the process of a stage, ahead of it --------------------------------------


def at_update(number: int, signal_number: int) -> None:
    """Sends this process a signal after its update of that number, before anything else is done."""
    from gpt.trainer import Trainer

    train_step, done = Trainer.train_step, [0]

    def counted(self: Trainer, step: int) -> Any:
        stats = train_step(self, step)
        done[0] += 1
        if done[0] == number:
            os.kill(os.getpid(), signal_number)
        return stats

    Trainer.train_step = counted  # type: ignore[method-assign]


WRITING = {
    "open",
    "write",
    "close",
    "fsync",
    "mkdir",
    "rename",
    "unlink",
    "rmdir",
    "serialize_file",
}


def at_call_of_a_save(number: int) -> None:
    """Kills this process after its `number`-th call that touches the disk within its first save.

    Number 0 kills nothing and prints how many there are.
    """
    from gpt.training_state import CheckpointStore

    save = CheckpointStore.save

    def watched(self: CheckpointStore, *arguments: Any) -> None:
        calls = 0

        def count(frame: FrameType, event: str, called: Any) -> None:
            nonlocal calls
            if event == "c_return" and called.__name__ in WRITING:
                calls += 1
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        save(self, *arguments)
        sys.setprofile(None)
        if number == 0:
            print(f"calls of a save: {calls}")

    CheckpointStore.save = watched  # type: ignore[method-assign]


def with_limit(kind: int, size: int) -> None:
    resource.setrlimit(kind, (size, resource.getrlimit(kind)[1]))


def with_more_memory(size: int) -> None:
    """No more than `size` bytes beyond what this process has by now."""
    import stages.train  # noqa: F401

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    with_limit(resource.RLIMIT_AS, pages * resource.getpagesize() + size)


def slow_update() -> None:
    """An update never ends; it says that it has begun, and when it resumes after a signal."""
    from gpt.trainer import Trainer

    def train_step(self: Trainer, step: int) -> None:
        print("in an update", flush=True)
        while True:
            signal.pause()
            print("still in an update", flush=True)

    Trainer.train_step = train_step  # type: ignore[method-assign]


def with_clock_going_backwards() -> None:
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    time.time = earlier


def until(run: Run, words: str) -> None:
    wait_for(lambda: words in run.output(), running=run.running, told=run.output)


# --- killed and out of room -----------------------------------------------------------------------


@pytest.mark.fault(1, planted=planted.MOMENTS_FORGOTTEN)
def test_a_training_killed_in_every_step_gives_the_bits_of_one_that_was_not(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.set(train__steps=10)
    short = undisturbed.clone(training.folder / "short")
    short.set(train__steps=10)
    assert short.run().end() == 0
    for step in range(1, 10):
        # In its second update: the first one's state was saved.
        run = training.start(before=partial(at_update, 2, signal.SIGKILL))
        assert run.end() == -signal.SIGKILL, run.output()
        assert training.newest() == step
        assert resumed_from(run.output()) == step - 1
    ends_alike(training, short, 9)


@pytest.mark.slow
@pytest.mark.fault(1, planted=planted.MOMENTS_FORGOTTEN)
def test_make_verify_kills_compares_and_finds_no_difference() -> None:
    command = [sys.executable, "tests/verify.py", "--kills", "4"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.match(r"4 kills in 1 trainings .*: no differences \(model", done.stdout)


@pytest.mark.slow
@pytest.mark.fault(1, planted=planted.SAVED_IN_PLACE)
@pytest.mark.fault(2, planted=planted.LEFTOVERS_STAY)
def test_a_training_killed_after_each_call_of_a_save_loses_no_state(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.set(train__steps=3)
    output = training.run(before=partial(at_call_of_a_save, 0)).output()
    # In the third save the oldest state is deleted as well: it has the most calls.
    calls = int(re.findall(r"calls of a save: (\d+)", output)[-1])
    assert calls > 15
    training.set(train__steps=STEPS)
    saved = 0
    for number in range(1, calls + 1):
        run = training.start(before=partial(at_call_of_a_save, number))
        assert run.end() == -signal.SIGKILL, run.output()
        assert resumed_from(run.output()) == saved
        assert "not used" not in run.output()
        assert training.newest() in (saved, saved + 1)
        saved = training.newest()
        leftovers = list(training.folder.glob(".cache/train/*/.writing-*"))
        assert len(leftovers) <= 1
    assert 0 < saved < STEPS
    ends_alike(training, undisturbed, saved)


@pytest.mark.fault(3, planted=planted.NOT_SAVED_AT_A_SIGNAL)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_saves_and_leaves_a_code_of_its_own(
    training: SmallTraining, undisturbed: SmallTraining, number: signal.Signals
) -> None:
    training.set(runtime__checkpoint_every=0)
    run = training.start(before=partial(at_update, 7, number))
    refused(run, 75, f"stopped by {number.name} after step 7, state saved; run the same command")
    training.set(runtime__checkpoint_every=1)
    ends_alike(training, undisturbed, 7)


@pytest.mark.fault(3, planted=planted.SECOND_SIGNAL_WAITS)
def test_a_second_sigint_stops_at_once(training: SmallTraining) -> None:
    run = training.start(before=slow_update)
    try:
        until(run, "in an update")
        os.kill(run.pid, signal.SIGINT)
        until(run, "still in an update")
        os.kill(run.pid, signal.SIGINT)
        refused(run, 130, "interrupted")
    finally:
        run.kill()


@pytest.mark.fault(4, planted=planted.NO_LOCK)
@pytest.mark.fault(12, planted=planted.NO_LOCK)
@pytest.mark.fault(14)
def test_a_second_training_waits_until_the_first_is_killed(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    first = training.start(before=slow_update)
    try:
        until(first, "in an update")
        second = training.start()
        until(second, f"already running as process {first.pid}; waiting until it ends")
    finally:
        first.kill()
    assert second.end() == 0, second.output()
    assert training.hashes() == undisturbed.hashes()


@pytest.mark.fault(5, planted=planted.SAVE_FAULT_ESCAPES)
def test_a_disk_that_is_full_while_a_state_is_saved_leaves_the_states_before(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.start(before=partial(at_update, 6, signal.SIGKILL)).end()
    before = training.states()
    run = training.run(before=partial(with_limit, resource.RLIMIT_FSIZE, 20_000))
    refused(run, 2, "step_00000006: could not be written", "the state before it is kept")
    assert training.states() == before
    ends_alike(training, undisturbed, 5)


@pytest.mark.fault(5, planted=planted.MODEL_FAULT_ESCAPES)
def test_a_disk_that_is_full_while_the_model_is_written_leaves_the_states(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.start(before=partial(at_update, STEPS, signal.SIGKILL)).end()
    training.set(runtime__checkpoint_every=0)
    run = training.run(before=partial(with_limit, resource.RLIMIT_FSIZE, 10_000))
    refused(run, 2, "data/model: could not be written", "free disk space")
    assert not (training.folder / "data/model/config.json").exists(), "so no model stands there"
    training.set(runtime__checkpoint_every=1)
    ends_alike(training, undisturbed, STEPS - 1)


@pytest.mark.fault(5, planted=planted.DISK_FAULT_ESCAPES)
@pytest.mark.parametrize("stage", ["prepare", "tokenize"])
def test_a_disk_that_is_full_ends_any_stage_in_one_line(
    training: SmallTraining, stage: str
) -> None:
    run = training.run(stage, before=partial(with_limit, resource.RLIMIT_FSIZE, 10_000))
    refused(run, 2, "file too large; raise the limit", "to restore the last result: git checkout")


def damage(path: Path, kind: str) -> None:
    if kind == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "empty":
        os.truncate(path, 0)
    else:
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 3] ^= 4
        path.write_bytes(raw)


@pytest.mark.fault(6, planted=planted.STATE_HASH_UNCHECKED)
@pytest.mark.parametrize("kind", ["truncated", "a flipped bit", "empty"])
def test_a_damaged_state_is_named_and_the_one_before_it_gone_on_from(
    training: SmallTraining, undisturbed: SmallTraining, kind: str
) -> None:
    training.start(before=partial(at_update, 9, signal.SIGKILL)).end()
    damage(training.states()[-1] / "state.safetensors", kind)
    output = ends_alike(training, undisturbed, 7)
    assert "step_00000008: not used, state.safetensors is not as it was written" in output


@pytest.mark.fault(6, planted=planted.DAMAGED_CROWD_OUT)
def test_damaged_states_are_both_named_and_crowd_out_no_good_ones(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.start(before=partial(at_update, 20, signal.SIGKILL)).end()
    for state in training.states():
        damage(state / "state.json", "a flipped bit")
    run = training.start(before=partial(at_update, 5, signal.SIGKILL))
    assert run.end() == -signal.SIGKILL
    assert all(f"step_000000{step}: not used" in run.output() for step in (18, 19))
    ends_alike(training, undisturbed, 4)


@pytest.mark.fault(6, planted=planted.STATE_HASH_UNCHECKED)
@pytest.mark.parametrize("name", ["state.safetensors", "state.json", "manifest.json"])
def test_a_state_truncated_anywhere_or_with_any_bit_flipped_is_refused(
    tmp_path: Path, name: str
) -> None:
    warned: list[str] = []
    with CheckpointStore(tmp_path / "run", warn=warned.append) as states:
        for step in (1, 2):
            states.save(step, {"a": torch.arange(200.0)}, {"step": step})
        path = states.folder / "step_00000002" / name
        content = path.read_bytes()
        # The last byte of the manifest is a line break, which nobody would miss.
        positions = range(0, len(content) - 1, max(1, len(content) // 100))
        for at in positions:
            flipped = bytearray(content)
            flipped[at] ^= 1 << at % 8
            for damaged in (content[:at], bytes(flipped)):
                path.write_bytes(damaged)
                assert (states.latest() or pytest.fail("none"))[1] == {"step": 1}, (name, at)
    assert len(warned) == 2 * len(positions)


@pytest.mark.fault(7, planted=planted.CONFIGURATION_IGNORED)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"train__learning_rate": 0.002}, "train.learning_rate is 0.002, and was 0.001"),
        ({"model__n_embd": 8}, "model.n_embd is 8, and was 16"),
        ({"tokenizer__kind": "byte"}, "data.train is"),
        ({"train__threads": 2}, "device.threads is 2, and was 1 (and 1 more)"),
    ],
    ids=["train", "model", "vocabulary", "threads"],
)
def test_states_of_another_training_are_left_alone_and_it_says_why(
    training: SmallTraining, change: dict[str, Any], named: str
) -> None:
    training.start(before=partial(at_update, 4, signal.SIGKILL)).end()
    before = training.states()
    training.set(**change)
    if "tokenizer__kind" in change:
        training.make_tokens()
    run = training.run()
    assert run.end() == 0, run.output()
    assert resumed_from(run.output()) == 0
    (line,) = [line for line in run.output().splitlines() if line.startswith("a new training: ")]
    assert named in line, line
    assert str(before[0].parent) in line
    assert training.states() == before


@pytest.mark.fault(7)
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="this processor has only one"
)
def test_states_of_another_cpu_capability_are_left_alone_and_it_says_so(
    training: SmallTraining,
) -> None:
    training.start(before=partial(at_update, 4, signal.SIGKILL)).end()
    before = training.states()
    done = training.plain("train", ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stdout
    assert re.search(r"device\.cpu_capability is DEFAULT, and was \w+ in", done.stdout)
    assert training.states() == before


@pytest.mark.fault(7, planted=planted.FORMAT_IGNORED)
def test_a_state_of_another_format_is_not_resumed_from(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.start(before=partial(at_update, 4, signal.SIGKILL)).end()
    for state in training.states():
        manifest = json.loads((state / "manifest.json").read_bytes())
        (state / "manifest.json").write_text(json.dumps(manifest | {"format": 2}), encoding="utf-8")
    output = ends_alike(training, undisturbed, 0)
    assert output.count("not used, is of another format") == 2


@pytest.mark.fault(8, planted=planted.NEWEST_BY_TIME)
def test_a_clock_that_goes_backwards_changes_nothing(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.start(before=partial(at_update, 9, signal.SIGKILL)).end()
    older, newest = training.states()
    os.utime(newest, (1, 1))
    assert older.stat().st_mtime > newest.stat().st_mtime
    run = training.run(before=with_clock_going_backwards)
    assert run.end() == 0, run.output()
    assert resumed_from(run.output()) == 8
    assert training.hashes() == undisturbed.hashes()


# --- training -------------------------------------------------------------------------------------


@pytest.mark.fault(9, planted=planted.NOT_FINITE_CONTINUES)
def test_a_loss_that_is_not_finite_ends_the_stage_and_keeps_the_last_good_state(
    training: SmallTraining,
) -> None:
    training.set(train__learning_rate=1e30, train__min_learning_rate=0.0)
    line = refused(training.run(), 2, "not finite, so nothing was updated", "train.learning_rate")
    with CheckpointStore(training.states()[-1].parent, warn=pytest.fail) as states:
        tensors, metadata = states.latest() or pytest.fail("no state is left")
    assert f"step {metadata['progress']['step']}:" in line
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    assert not (training.folder / "metrics/train.json").exists()


@pytest.mark.fault(10)
def test_samples_at_every_step_change_no_bit(
    training: SmallTraining, undisturbed: SmallTraining
) -> None:
    training.set(runtime__sample_every=1, runtime__sample_tokens=3)
    ends_alike(training, undisturbed, 0)


@pytest.mark.fault(11, planted=planted.OUT_OF_MEMORY_ESCAPES)
@pytest.mark.parametrize(
    "change", [{"model__n_embd": 20_000}, {"train__batch_size": 400_000}], ids=["model", "batch"]
)
@pytest.mark.skipif(sys.platform != "linux", reason="how much memory is taken is read from /proc")
def test_running_out_of_memory_says_what_to_lower(
    training: SmallTraining, change: dict[str, int]
) -> None:
    training.set(**change)
    run = training.run(before=partial(with_more_memory, 300 * 2**20))
    line = refused(run, 2, "out of memory with train.batch_size = ", "model.n_embd (now ")
    assert f" {next(iter(change.values()))}" in line


# --- data -----------------------------------------------------------------------------------------


@pytest.mark.fault(16, planted=planted.LOCALE_OBEYED)
def test_text_and_params_in_any_script_pass_under_the_c_locale(
    training: SmallTraining,
) -> None:
    text = "Ünder the C löcale: 漢字 😀\n" * 40
    (training.folder / "text.txt").write_text(text, encoding="utf-8")
    training.set(data__corpus="own", data__path="text.txt", sample__prompt="漢")
    # Without these two Python would quietly change to UTF-8.
    plain_c = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for stage in ("prepare", "tokenize"):
        done = training.plain(stage, **plain_c)
        assert done.returncode == 0, done.stdout
    corpus = training.folder / "data/corpus"
    parts = [text for split in ("train", "val") for _, text in read_chunks(corpus, split)]
    assert "".join(parts) == text


@pytest.mark.fault(18, planted=planted.OUTPUT_NAMED_BY_PARAMS)
def test_no_output_is_named_by_the_params_or_leaves_the_repository() -> None:
    pipeline = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in pipeline["stages"].values():
        for kind in ("outs", "metrics", "plots"):
            for entry in stage.get(kind, []):
                path = entry if isinstance(entry, str) else next(iter(entry))
                assert "$" not in path
                assert not Path(path).is_absolute() and ".." not in Path(path).parts
        assert "$" not in stage["cmd"]


def documents(*texts: str) -> Source:
    def each() -> Iterator[Document]:
        for number, text in enumerate(texts):
            yield Document(str(number), lambda text=text: iter([text]))

    return Source(len(texts), each)


@pytest.mark.fault(20, planted=planted.DUPLICATES_HIDDEN)
@pytest.mark.parametrize(
    ("text_of", "also"),
    [
        (lambda n: f"text {n}", (0, 0)),
        (lambda n: "the same", (4, 8)),
        (lambda n: f"{n // 20}", None),
    ],
    ids=["all different", "all the same", "two kinds"],
)
def test_documents_that_stand_in_train_too_are_counted(
    tmp_path: Path, text_of: Callable[[int], str], also: tuple[int, int] | None
) -> None:
    with CorpusWriter(tmp_path) as writer:
        source = documents(*(text_of(number) for number in range(40)))
        split_corpus(source, writer, seed=0, val_fraction=0.1, test_fraction=0.2)
        counted = writer.finish({})["splits"]
    # Each document is one part.
    texts = {split: [text for _, text in read_chunks(tmp_path, split)] for split in counted}
    train = set(texts["train"])
    expected = tuple(sum(text in train for text in texts[split]) for split in ("val", "test"))
    assert also in (expected, None)
    assert expected == tuple(counted[split]["documents_also_in_train"] for split in ("val", "test"))
    assert "documents_also_in_train" not in counted["train"]


@pytest.mark.fault(20, planted=planted.DUPLICATES_HIDDEN)
def test_documents_that_stand_in_train_too_are_told_and_in_the_metrics(
    training: SmallTraining,
) -> None:
    own = training.folder / "own"
    own.mkdir()
    for number in range(20):
        (own / f"{number}.txt").write_text(f"Poem {number % 2}.\n", encoding="utf-8")
    training.set(data__corpus="own", data__path="own")
    run = training.run("prepare")
    assert run.end() == 0, run.output()
    assert "val: 2 of 2 documents are also in train" in run.last_line()
    metrics = json.loads((training.folder / "metrics/prepare.json").read_bytes())
    assert metrics["val"]["documents_also_in_train"] == 2


# --- security -------------------------------------------------------------------------------------


@pytest.mark.fault(25, planted=planted.SERVED_TO_ALL)
def test_the_pages_are_served_on_loopback_without_telemetry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from commands import runs

    called: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(runs.os, "execve", lambda _, words, around: called.append((words, around)))
    runs._serve("sqlite:///x.db", 5000, {})
    ((words, around),) = called
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert around["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.fault(25, planted=planted.TELEMETRY_ON)
def test_telemetry_of_mlflow_and_dvc_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from repro.tracking import store

    monkeypatch.setattr(store.os, "environ", {})
    store.quiet_mlflow()
    assert store.os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    config = (REPOSITORY / ".dvc/config").read_text(encoding="utf-8")
    assert "analytics = false" in config
    assert "check_update = false" in config


@pytest.mark.fault(26, planted=planted.SOCKETS_OPEN)
@pytest.mark.filterwarnings("ignore:A test tried to use socket")
def test_no_test_reaches_beyond_this_machine() -> None:
    # An address that no machine has (RFC 5737).
    with pytest.raises(SocketBlockedError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
