"""Training states on disk: complete or refused, one training at a time, and resumed from."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import planted
import pytest
import torch
from torch import Tensor

from gpt.errors import CheckpointError
from gpt.files import write_json
from gpt.training_state import CheckpointStore, Stopped

REPOSITORY = Path(__file__).resolve().parents[2]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensors(value: float = 0.0) -> dict[str, Tensor]:
    return {
        "model.a": torch.full((500,), value),
        "best.a": torch.arange(5.0),
        "step": torch.tensor(1),
    }


def warned(store: CheckpointStore) -> list[str]:
    lines: list[str] = []
    store._warn = lines.append
    return lines


def names(store: CheckpointStore) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    with CheckpointStore(tmp_path / "scratch" / "run") as store:
        yield store


def test_a_state_comes_back_as_it_was_saved(store: CheckpointStore) -> None:
    assert store.latest() is None
    store.save(3, tensors(1 / 3), {"step": 3, "loss": 0.1, "best": None})
    stored, metadata = store.latest() or pytest.fail("nothing was saved")
    assert metadata == {"step": 3, "loss": 0.1, "best": None}
    assert {name: tensor.tolist() for name, tensor in stored.items()} == {
        name: tensor.tolist() for name, tensor in tensors(1 / 3).items()
    }


def test_the_newest_state_is_used_and_the_two_newest_are_kept(store: CheckpointStore) -> None:
    for step in (1, 9, 10, 100):
        store.save(step, tensors(), {"step": step})
    assert names(store) == ["step_00000010", "step_00000100"]
    assert (store.latest() or pytest.fail())[1] == {"step": 100}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists what is mapped")
def test_a_state_that_was_read_can_be_deleted_on_windows(store: CheckpointStore) -> None:
    store.save(1, tensors(), {"step": 1})
    state = store.latest()
    assert state and str(store.folder) not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_two_saves_of_a_state_are_the_same_bytes(store: CheckpointStore) -> None:
    files = ("state.safetensors", "state.json", "manifest.json")
    hashes = []
    for _ in range(2):
        store.save(1, tensors(), {"b": 1, "a": 2})
        hashes.append([sha256(store.folder / "step_00000001" / name) for name in files])
    assert hashes[0] == hashes[1]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights flipped": lambda path: flip(path / "state.safetensors", -1),
    "weights truncated": lambda path: os.truncate(path / "state.safetensors", 100),
    "weights empty": lambda path: os.truncate(path / "state.safetensors", 0),
    "weights missing": lambda path: (path / "state.safetensors").unlink(),
    "metadata flipped": lambda path: flip(path / "state.json", 5),
    "manifest empty": lambda path: os.truncate(path / "manifest.json", 0),
    "manifest missing": lambda path: (path / "manifest.json").unlink(),
    "manifest without hashes": lambda path: write_json(
        path / "manifest.json", {"format": 1, "sha256": {}}
    ),
    "manifest of a list": lambda path: write_json(
        path / "manifest.json", {"format": 1, "sha256": []}
    ),
    "another format": lambda path: write_json(path / "manifest.json", {"format": 2, "sha256": {}}),
}


def flip(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


@pytest.mark.fault(6, planted=planted.STATE_HASH_UNCHECKED)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_skipped_with_a_warning_and_the_one_before_used(
    store: CheckpointStore, damage: str
) -> None:
    lines = warned(store)
    for step in (1, 2):
        store.save(step, tensors(), {"step": step})
    DAMAGE[damage](store.folder / "step_00000002")
    assert (store.latest() or pytest.fail("none left"))[1] == {"step": 1}
    assert len(lines) == 1
    assert "step_00000002: not used, " in lines[0]


@pytest.mark.fault(6, planted=planted.STATE_HASH_UNCHECKED)
def test_where_every_state_is_damaged_there_is_none_and_both_are_named(
    store: CheckpointStore,
) -> None:
    lines = warned(store)
    for step in (1, 2):
        store.save(step, tensors(), {"step": step})
        flip(store.folder / f"step_{step:08d}" / "state.safetensors", -1)
    assert store.latest() is None
    assert len(lines) == 2


@pytest.mark.fault(6, planted=planted.FORMAT_IGNORED)
def test_every_flipped_bit_of_the_manifest_is_caught(store: CheckpointStore) -> None:
    lines = warned(store)
    store.save(1, tensors(), {"step": 1})
    manifest = store.folder / "step_00000001" / "manifest.json"
    raw = manifest.read_bytes()
    for at in range(len(raw)):
        damaged = bytearray(raw)
        damaged[at] ^= 1 << (at % 8)
        manifest.write_bytes(damaged)
        assert store.latest() is None, (at, bytes(damaged))
    assert len(lines) == len(raw)


@pytest.mark.fault(2, planted=planted.LEFTOVERS_STAY)
def test_what_a_killed_save_left_is_removed_and_never_used(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "run") as store:
        store.save(1, tensors(), {"step": 1})
        (tmp_path / "run" / ".writing-999").mkdir()
        (tmp_path / "run" / ".writing-999" / "state.json").write_text("{", encoding="utf-8")
        assert (store.latest() or pytest.fail())[1] == {"step": 1}
    with CheckpointStore(tmp_path / "run") as store:
        assert names(store) == ["step_00000001"]


def test_removed_states_are_gone_and_the_folder_can_be_used_again(tmp_path: Path) -> None:
    with CheckpointStore(tmp_path / "run") as store:
        store.save(1, tensors(), {"step": 1})
        store.remove()
    assert not (tmp_path / "run").exists()
    with CheckpointStore(tmp_path / "run") as store:
        assert store.latest() is None


# --- writing fails --------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")  # Windows has none
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault(5, planted=planted.SAVE_FAULT_ESCAPES)
@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_full_disk_leaves_the_state_before(store: CheckpointStore, size: int) -> None:
    store.save(1, tensors(), {"step": 1})
    with largest_file(size), pytest.raises(CheckpointError) as error:
        store.save(2, tensors(), {"step": 2})
    assert "step_00000002: could not be written" in str(error.value)
    assert names(store) == ["step_00000001"]
    assert (store.latest() or pytest.fail())[1] == {"step": 1}


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder of one's own as a user that is not root, from whom nothing can be shut."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            for path in (*Path(name).rglob("*"), Path(name)):
                if path.is_dir() and path.stat().st_uid == os.geteuid():
                    path.chmod(0o700)
            if root:
                os.seteuid(0)


@pytest.mark.fault(5, planted=planted.SAVE_FAULT_ESCAPES)
def test_a_folder_that_became_read_only_leaves_the_state_before(nobody: Path) -> None:
    with CheckpointStore(nobody / "scratch" / "run") as store:
        store.save(1, tensors(), {"step": 1})
        store.folder.chmod(0o500)
        with pytest.raises(CheckpointError, match="could not be written"):
            store.save(2, tensors(), {"step": 2})
        assert (store.latest() or pytest.fail())[1] == {"step": 1}
        store.folder.chmod(0o700)


@pytest.mark.fault(5)
@pytest.mark.parametrize("shut", [".", "scratch"])
def test_a_folder_where_nothing_can_be_written_is_refused_by_name(nobody: Path, shut: str) -> None:
    if shut != ".":
        (nobody / shut).mkdir()
        (nobody / shut).chmod(0o500)
    else:
        (nobody / "scratch").write_text("a file where a folder should be", encoding="utf-8")
    with (
        pytest.raises(CheckpointError, match="scratch"),
        CheckpointStore(nobody / "scratch" / "run"),
    ):
        pass


# --- two at a time --------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from gpt.training_state import CheckpointStore, Stopped
with CheckpointStore(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(code: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs `code` and has printed that it holds the states in `folder`."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


@pytest.fixture(scope="module")
def other_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A folder of states that another process holds, and its pid."""
    folder = tmp_path_factory.mktemp("held") / "run"
    with holding(HOLD, folder) as process:
        yield folder, process.pid
        process.kill()


@pytest.mark.fault(4, planted=planted.NO_LOCK)
@pytest.mark.fault(12)
@pytest.mark.fault(14)
def test_a_second_training_on_a_folder_is_refused_with_the_pid_of_the_first_until_that_is_killed(
    other_process: tuple[Path, int],
) -> None:
    folder, pid = other_process
    with (
        pytest.raises(CheckpointError, match=rf"already running as process {pid};"),
        CheckpointStore(folder),
    ):
        pass
    with (
        pytest.raises(Stopped, match="stopped by SIGTERM while waiting"),
        CheckpointStore(folder, stop=["stopped by SIGTERM"]),
    ):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with CheckpointStore(folder) as store:
        assert store.latest() is None


LEAVE = """
import sys
from pathlib import Path
import torch
from gpt.training_state import CheckpointStore, Stopped
with CheckpointStore(Path(sys.argv[1])) as store:
    store.save(3, {"w": torch.ones(2)}, {})
    print("held", flush=True)
    sys.stdin.readline()
    store.remove()
"""


@pytest.mark.fault(12)
def test_a_second_training_that_waits_gets_the_states_of_the_first_and_removes_them(
    tmp_path: Path,
) -> None:
    folder, warned = tmp_path / "run", list[str]()
    with holding(LEAVE, folder) as process:
        assert process.stdin is not None
        end = process.stdin

        def warn(line: str) -> None:
            warned.append(line)
            folder.with_suffix(".waiting").touch()  # as it does itself a moment later
            end.write(b"now you\n")
            end.flush()

        with CheckpointStore(folder, warn, stop=[]) as store:
            assert store.latest() is not None
            store.remove()
    assert warned == [
        f"{folder}: the same training is already running as process {process.pid}; "
        "waiting until it ends"
    ]
    assert [file.suffix for file in tmp_path.iterdir()] == [".lock"]


def test_a_training_that_ended_lets_the_next_one_in(tmp_path: Path) -> None:
    for _ in range(2):
        with CheckpointStore(tmp_path / "run"):
            pass
    with pytest.raises(ZeroDivisionError), CheckpointStore(tmp_path / "run"):
        raise ZeroDivisionError
    with CheckpointStore(tmp_path / "run"):
        pass
