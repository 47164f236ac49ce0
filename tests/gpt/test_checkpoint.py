"""Models and training states on disk: complete or refused, and never a pickle that runs."""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import planted
import pytest
import torch
from safetensors.torch import save_file
from saved_models import TOKENIZER, change_config, saved_model, sha256, vouch
from torch import Tensor

from gpt.checkpoint import TrainingStates, load_model
from gpt.errors import CheckpointError, GptError, TokenizerError
from gpt.files import write_json
from gpt.tokenizers.char import CharTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]


# A loaded model computes with the threads it was trained with.
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved_model(tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, names: str, kind: type[GptError] = CheckpointError) -> str:
    """The one line with which the model in `folder` is refused; it names the file."""
    with pytest.raises(kind) as error:
        load_model(folder)
    assert names in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000
    return str(error.value)


# --- models ---------------------------------------------------------------------------------------


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model = saved_model(tmp_path / "model").eval()
    loaded = load_model(tmp_path / "model")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    ids_bt = torch.arange(8)[None]
    assert torch.equal(loaded.model(ids_bt), model(ids_bt))
    assert loaded.tokenizer.spec() == TOKENIZER.spec()
    assert not loaded.model.training


def test_loading_a_model_loads_no_compiler(tmp_path: Path) -> None:
    saved_model(tmp_path / "model")
    code = (
        "import sys; from pathlib import Path; from gpt.checkpoint import load_model; "
        f"load_model(Path({str(tmp_path / 'model')!r})); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_a_loaded_model_can_be_trained_on(folder: Path) -> None:
    model = load_model(folder).model
    model(torch.arange(8)[None]).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_loaded_model_computes_on_the_device_it_was_trained_on(folder: Path) -> None:
    device = load_model(folder).device
    assert (device.name, device.dtype, device.threads) == ("cpu", "float32", 1)


def test_a_device_that_is_not_here_is_replaced(folder: Path) -> None:
    change_config(folder, "device", name="cuda:63")
    assert load_model(folder).device.name == ("cuda" if torch.cuda.is_available() else "cpu")


def test_two_saves_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved_model(tmp_path / name)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sha256(tmp_path / "one" / name) == sha256(tmp_path / "two" / name), name


def test_a_fingerprint_names_the_training_and_not_its_result(tmp_path: Path) -> None:
    records = []
    for seed in (0, 1):
        saved_model(tmp_path / str(seed), seed)
        records.append(load_model(tmp_path / str(seed)).record)
    unsaved = records[0].model_copy(update={"weights_sha256": ""})
    assert unsaved.fingerprint() == records[0].fingerprint() != records[1].fingerprint()


@pytest.mark.fault(6, planted=planted.MODEL_HASH_UNCHECKED)
@pytest.mark.parametrize("at", [0, 3, 100, 1000, -1])
def test_one_flipped_bit_in_the_weights_is_caught(folder: Path, at: int) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[at] ^= 1
    (folder / "model.safetensors").write_bytes(raw)
    refused(folder, "model.safetensors")


@pytest.mark.fault(6)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 5000, -1])
def test_truncated_weights_are_refused_also_where_the_hash_is_theirs(
    folder: Path, size: int, known: bool
) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(raw[:size])
    if not known:
        vouch(folder)
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.fault(23, planted=planted.MODEL_HASH_UNCHECKED)
def test_a_tokenizer_of_another_model_is_refused(folder: Path) -> None:
    write_json(folder / "tokenizer.json", CharTokenizer("\n abcdxyz", has_bos=True).spec())
    refused(folder, "tokenizer.json")


@pytest.mark.fault(23, planted=planted.VOCABULARY_UNCHECKED)
def test_a_tokenizer_of_another_size_is_refused_also_where_the_hash_is_its_own(
    folder: Path,
) -> None:
    write_json(folder / "tokenizer.json", CharTokenizer("\n abc", has_bos=True).spec())
    vouch(folder)
    assert "vocabularies" in refused(folder, str(folder))


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    "claim",
    [
        {"n_layer": 10**9},
        {"n_layer": 10**30},
        {"n_embd": 2**40},
        {"block_size": 2**40},
        {"block_size": 2**62},
        {"block_size": 10**30},
        {"n_layer": 3},
        {"n_layer": 1},
        {"n_embd": 8},
        {"block_size": 9},
        {"bias": False},
        {"n_layer": 0},
        {"n_head": 3},
    ],
    ids=repr,
)
def test_a_config_that_describes_another_model_is_refused(
    folder: Path, claim: dict[str, Any]
) -> None:
    change_config(folder, "model", **claim)
    refused(folder, str(folder))


@pytest.mark.fault(24)
def test_a_config_that_claims_countless_small_layers_is_refused_before_they_are_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 48 bytes of the file admit a layer of width 1, which takes a hundred kilobytes to build.
    weights = dict(load_model(folder).model.state_dict())
    save_file(weights | {"more": torch.zeros(12 * 1_000)}, folder / "model.safetensors")
    vouch(folder)
    change_config(folder, "model", n_layer=1_000, n_embd=1, n_head=1)
    built: list[int] = []
    monkeypatch.setattr(
        "gpt.model.MLP.__init__", lambda *_: built.append(1) or pytest.fail("built")
    )
    refused(folder, "model.safetensors")
    assert built == []


@pytest.mark.fault(7, planted=planted.SHAPES_UNCHECKED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_weights_of_another_precision_are_refused(folder: Path, dtype: torch.dtype) -> None:
    weights = load_model(folder).model.state_dict()
    save_file(
        {name: tensor.to(dtype) for name, tensor in weights.items()}, folder / "model.safetensors"
    )
    vouch(folder)
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("change", ["extra", "missing", "renamed"])
def test_weights_under_other_names_are_refused(folder: Path, change: str) -> None:
    weights = dict(load_model(folder).model.state_dict())
    if change != "extra":
        moved = weights.pop("norm.weight")
    if change != "missing":
        weights["other.weight"] = moved if change == "renamed" else torch.zeros(1)
    save_file(weights, folder / "model.safetensors")
    vouch(folder)
    refused(folder, "model.safetensors")


@pytest.mark.fault(24)
@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 2**40, 100_000_001])
def test_a_safetensors_header_of_absurd_length_is_refused(folder: Path, length: int) -> None:
    raw = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + raw[8:])
    vouch(folder)
    refused(folder, "model.safetensors")


@pytest.mark.fault(24)
def test_a_safetensors_header_of_absurd_shapes_is_refused(folder: Path) -> None:
    header = json.dumps(
        {"norm.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    ).encode()
    raw = len(header).to_bytes(8, "little") + header + bytes(100_000)
    (folder / "model.safetensors").write_bytes(raw)
    vouch(folder)
    refused(folder, "model.safetensors")


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.fault(24, planted=planted.WEIGHTS_UNPICKLED)
@pytest.mark.parametrize("how", ["pickle", "torch.save"])
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pickle_is_refused_and_not_run(folder: Path, tmp_path: Path, name: str, how: str) -> None:
    mark = tmp_path / "ran"
    wanted = tmp_path / "payload"
    if how == "pickle":
        wanted.write_bytes(pickle.dumps(Payload(mark)) + bytes(50_000))
        pickle.loads(wanted.read_bytes())  # noqa: S301
    else:
        torch.save((Payload(mark), torch.zeros(10_000)), wanted)
        torch.load(wanted, weights_only=False)
    assert mark.exists(), "the payload works where pickles are loaded"
    mark.unlink()
    (folder / name).write_bytes(wanted.read_bytes())
    if name != "config.json":
        vouch(folder)
    refused(folder, name, TokenizerError if name == "tokenizer.json" else CheckpointError)
    assert not mark.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "\0" * 100, "x" * 100_000])
def test_a_damaged_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="utf-8")
    refused(folder, "config.json")


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("", {"format": 2}),
        ("", {"more": 1}),
        ("model", {"architecture": "gpt9"}),
        ("device", {"name": "abacus"}),
        ("device", {"dtype": "int4"}),
        ("device", {"threads": 0}),
        ("device", {"threads": 2**40}),
        ("train", {"steps": -1}),
    ],
    ids=repr,
)
def test_a_config_of_another_format_or_with_an_impossible_value_is_refused(
    folder: Path, section: str, change: dict[str, Any]
) -> None:
    change_config(folder, section, **change)
    refused(folder, "config.json")


@pytest.mark.fault(22, planted=planted.FILES_STEER_TERMINALS)
@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_what_a_refusal_quotes_of_a_file_steers_no_terminal_and_is_not_long(
    folder: Path, name: str
) -> None:
    words = "\x1b[2J\n\u202e" + "x" * 5_000
    if name == "tokenizer.json":
        write_json(folder / name, TOKENIZER.spec() | {"kind": words})
        vouch(folder)
    elif name == "config.json":
        change_config(folder, **{words: 1})
    else:
        weights = dict(load_model(folder).model.state_dict())
        save_file(weights | {words: torch.zeros(1)}, folder / name)
        vouch(folder)
    line = refused(folder, name, TokenizerError if name == "tokenizer.json" else CheckpointError)
    assert line.isprintable()


@pytest.mark.fault(24)
def test_an_absurdly_large_config_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("ab") as file:
        file.truncate(2**40)  # sparse: it takes no room on disk, but would in memory
    refused(folder, "config.json: larger than")


# --- training states ------------------------------------------------------------------------------


def tensors(value: float = 0.0) -> dict[str, Tensor]:
    return {
        "model.a": torch.full((500,), value),
        "best.a": torch.arange(5.0),
        "step": torch.tensor(1),
    }


def warned(states: TrainingStates) -> list[str]:
    lines: list[str] = []
    states._warn = lines.append
    return lines


def names(states: TrainingStates) -> list[str]:
    return sorted(path.name for path in states.folder.iterdir())


@pytest.fixture
def states(tmp_path: Path) -> Iterator[TrainingStates]:
    with TrainingStates(tmp_path / "scratch" / "run") as states:
        yield states


def test_a_state_comes_back_as_it_was_saved(states: TrainingStates) -> None:
    assert states.latest() is None
    states.save(3, tensors(1 / 3), {"step": 3, "loss": 0.1, "best": None})
    found, facts = states.latest() or pytest.fail("nothing was saved")
    assert facts == {"step": 3, "loss": 0.1, "best": None}
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in tensors(1 / 3).items()
    }


def test_the_newest_state_is_used_and_the_two_newest_are_kept(states: TrainingStates) -> None:
    for step in (1, 9, 10, 100):
        states.save(step, tensors(), {"step": step})
    assert names(states) == ["step_00000010", "step_00000100"]
    assert (states.latest() or pytest.fail())[1] == {"step": 100}


def test_two_saves_of_a_state_are_the_same_bytes(states: TrainingStates) -> None:
    files = ("state.safetensors", "state.json", "manifest.json")
    found = []
    for _ in range(2):
        states.save(1, tensors(), {"b": 1, "a": 2})
        found.append([sha256(states.folder / "step_00000001" / name) for name in files])
    assert found[0] == found[1]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights flipped": lambda path: flip(path / "state.safetensors", -1),
    "weights truncated": lambda path: os.truncate(path / "state.safetensors", 100),
    "weights empty": lambda path: os.truncate(path / "state.safetensors", 0),
    "weights missing": lambda path: (path / "state.safetensors").unlink(),
    "facts flipped": lambda path: flip(path / "state.json", 5),
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
def test_a_damaged_state_is_passed_by_with_a_warning_and_the_one_before_used(
    states: TrainingStates, damage: str
) -> None:
    lines = warned(states)
    for step in (1, 2):
        states.save(step, tensors(), {"step": step})
    DAMAGE[damage](states.folder / "step_00000002")
    assert (states.latest() or pytest.fail("none left"))[1] == {"step": 1}
    assert len(lines) == 1
    assert "step_00000002: not used, " in lines[0]


@pytest.mark.fault(6, planted=planted.STATE_HASH_UNCHECKED)
def test_where_every_state_is_damaged_there_is_none_and_both_are_named(
    states: TrainingStates,
) -> None:
    lines = warned(states)
    for step in (1, 2):
        states.save(step, tensors(), {"step": step})
        flip(states.folder / f"step_{step:08d}" / "state.safetensors", -1)
    assert states.latest() is None
    assert len(lines) == 2


@pytest.mark.fault(6, planted=planted.FORMAT_IGNORED)
def test_every_flipped_bit_of_the_manifest_is_caught(states: TrainingStates) -> None:
    lines = warned(states)
    states.save(1, tensors(), {"step": 1})
    manifest = states.folder / "step_00000001" / "manifest.json"
    whole = manifest.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << (at % 8)
        manifest.write_bytes(damaged)
        assert states.latest() is None, (at, bytes(damaged))
    assert len(lines) == len(whole)


@pytest.mark.fault(2, planted=planted.LEFTOVERS_STAY)
def test_what_a_killed_save_left_is_removed_and_never_used(tmp_path: Path) -> None:
    with TrainingStates(tmp_path / "run") as states:
        states.save(1, tensors(), {"step": 1})
        (tmp_path / "run" / ".writing-999").mkdir()
        (tmp_path / "run" / ".writing-999" / "state.json").write_text("{", encoding="utf-8")
        assert (states.latest() or pytest.fail())[1] == {"step": 1}
    with TrainingStates(tmp_path / "run") as states:
        assert names(states) == ["step_00000001"]


def test_removed_states_are_gone_and_the_folder_can_be_used_again(tmp_path: Path) -> None:
    with TrainingStates(tmp_path / "run") as states:
        states.save(1, tensors(), {"step": 1})
        states.remove()
    assert not (tmp_path / "run").exists()
    with TrainingStates(tmp_path / "run") as states:
        assert states.latest() is None


# --- writing fails --------------------------------------------------------------------------------


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault(5, planted=planted.SAVE_FAULT_ESCAPES)
@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_full_disk_leaves_the_state_before(states: TrainingStates, size: int) -> None:
    states.save(1, tensors(), {"step": 1})
    with largest_file(size), pytest.raises(CheckpointError) as error:
        states.save(2, tensors(), {"step": 2})
    assert "step_00000002: could not be written" in str(error.value)
    assert names(states) == ["step_00000001"]
    assert (states.latest() or pytest.fail())[1] == {"step": 1}


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
    with TrainingStates(nobody / "scratch" / "run") as states:
        states.save(1, tensors(), {"step": 1})
        states.folder.chmod(0o500)
        with pytest.raises(CheckpointError, match="could not be written"):
            states.save(2, tensors(), {"step": 2})
        assert (states.latest() or pytest.fail())[1] == {"step": 1}
        states.folder.chmod(0o700)


@pytest.mark.fault(5)
@pytest.mark.parametrize("shut", [".", "scratch"])
def test_a_place_where_nothing_can_be_written_is_refused_by_name(nobody: Path, shut: str) -> None:
    if shut != ".":
        (nobody / shut).mkdir()
        (nobody / shut).chmod(0o500)
    else:
        (nobody / "scratch").write_text("a file where a folder should be", encoding="utf-8")
    with (
        pytest.raises(CheckpointError, match="scratch"),
        TrainingStates(nobody / "scratch" / "run"),
    ):
        pass


# --- two at a time --------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from gpt.checkpoint import TrainingStates
with TrainingStates(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def other_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A folder of states that another process holds, and its pid."""
    folder = tmp_path_factory.mktemp("held") / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
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
        TrainingStates(folder),
    ):
        pass
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with TrainingStates(folder) as states:
        assert states.latest() is None


def test_a_training_that_ended_lets_the_next_one_in(tmp_path: Path) -> None:
    for _ in range(2):
        with TrainingStates(tmp_path / "run"):
            pass
    with pytest.raises(ZeroDivisionError), TrainingStates(tmp_path / "run"):
        raise ZeroDivisionError
    with TrainingStates(tmp_path / "run"):
        pass
