"""Models on disk: complete or refused, and never a pickle that runs."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import planted
import pytest
import torch
from safetensors.torch import save_file
from saved_models import SHAPE, TOKENIZER, change_config, saved_model, sha256, vouch

from gpt.checkpoint import load_model
from gpt.errors import CheckpointError, GptError, TokenizerError
from gpt.files import write_json
from gpt.model import GPT
from gpt.tokenizers.base import line_breaks
from gpt.tokenizers.char import CharTokenizer

REPOSITORY = Path(__file__).resolve().parents[2]


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


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_model_of_ones_own_that_derives_from_ours_computes_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    code = tmp_path / ("elsewhere.py" if elsewhere else "own.py")
    code.write_text("import gpt.model\n\nclass GPT(gpt.model.GPT): pass\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    shape = SHAPE.model_copy(
        update={"architecture": "modern", "line_sums": 4, "bias": False, "source": "own.py"}
    )
    saved_model(tmp_path / "model", shape=shape)
    model = GPT(shape, TOKENIZER.vocab_size, 0, line_breaks(TOKENIZER)).eval()
    ids_bt = torch.tensor([[1, 2, 0, 3, 4, 0, 0, 5]])  # 0 breaks a line
    loaded = load_model(tmp_path / "model", "own.py", code if elsewhere else None).model
    assert torch.equal(loaded(ids_bt), model(ids_bt))


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


def test_loading_a_model_leaves_the_threads_and_apply_sets_them(
    folder: Path, two_threads: None
) -> None:
    device = load_model(folder).device
    assert torch.get_num_threads() == 2
    device.apply()
    assert torch.get_num_threads() == 1


def test_a_device_that_is_not_here_is_replaced(folder: Path) -> None:
    change_config(folder, "device", name="cuda:63")
    assert load_model(folder).device.name == ("cuda" if torch.cuda.is_available() else "cpu")


def test_two_saves_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved_model(tmp_path / name)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert sha256(tmp_path / "one" / name) == sha256(tmp_path / "two" / name), name


def test_a_fingerprint_names_the_training_and_not_its_result(tmp_path: Path) -> None:
    configs = []
    for seed in (0, 1):
        saved_model(tmp_path / str(seed), seed)
        configs.append(load_model(tmp_path / str(seed)).run_config)
    unsaved = configs[0].model_copy(update={"weights_sha256": ""})
    assert unsaved.fingerprint() == configs[0].fingerprint() != configs[1].fingerprint()


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
    payload = tmp_path / "payload"
    if how == "pickle":
        payload.write_bytes(pickle.dumps(Payload(mark)) + bytes(50_000))
        pickle.loads(payload.read_bytes())  # noqa: S301
    else:
        torch.save((Payload(mark), torch.zeros(10_000)), payload)
        torch.load(payload, weights_only=False)
    assert mark.exists(), "the payload works where pickles are loaded"
    mark.unlink()
    (folder / name).write_bytes(payload.read_bytes())
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
