"""Models on disk, and the states from which a killed training goes on.

A model is a folder of three files, complete in itself and free of pickle:

    model.safetensors   the weights, float32
    config.json         what the weights depend on, and the sha256 of the two files beside it
    tokenizer.json      a copy of the tokenizer

A training state is a folder step_00000250 of state.safetensors and state.json, with the sha256 of
both in manifest.json. It is written aside, synced and renamed, so that at its final name there is
only ever a complete one; a damaged one is found by its hash and the one before it is used.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt.config import OUR_SOURCE, Config, ModelConfig, TrainConfig, first_line
from gpt.device import Device, choose_device
from gpt.errors import CheckpointError, ParamsError
from gpt.files import sha256_of, write_json
from gpt.model import GPT
from gpt.model_source import make_model, without_weights
from gpt.tokenizers.base import Tokenizer, line_breaks
from gpt.tokenizers.file import load_tokenizer

FORMAT = 1
MAX_JSON_BYTES = 16 * 2**20
# As safetensors names them; a mask is a tensor of a model that somebody wrote.
DTYPES = {torch.float32: "F32", torch.bool: "BOOL", torch.int64: "I64"}
STATE_FILES = ("state.safetensors", "state.json")


class DeviceRecord(Config):
    """What computed the weights: gpt.device.Device as it was."""

    name: str = Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")
    dtype: Literal["float32", "bfloat16"]
    threads: int = Field(gt=0, le=1024)
    cpu_capability: str
    torch: str


class ModelRecord(Config):
    """config.json: exactly what the weights depend on, resolved, and nothing else."""

    format: Literal[1] = 1
    model: ModelConfig
    vocab_size: int = Field(gt=0)
    train: TrainConfig
    seed: int
    data: dict[str, Any]
    code_sha256: str
    device: DeviceRecord
    tokenizer_sha256: str
    # Of the weights that the training began from, where it did not begin from nothing.
    pretrained_sha256: str = ""
    weights_sha256: str = ""

    def fingerprint(self) -> str:
        """Names a training: equal where one can go on from the other's saved states.

        To the same bits, but for how many processes train, and how they share the model: that they
        may change on the way is worth more than the last digits.
        """
        elastic = {"processes", "sharding", "recompute"}
        facts = self.model_dump(exclude={"weights_sha256": True, "train": elastic})
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrainedModel:
    """A model as it was saved."""

    model: GPT
    tokenizer: Tokenizer
    record: ModelRecord
    device: Device


def save_model(
    folder: Path, weights: dict[str, Tensor], tokenizer_file: Path, record: ModelRecord
) -> None:
    """Writes a model folder; config.json comes last, so a folder that has it is complete.

    Raises CheckpointError where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, _weights(folder))
        shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
        record = record.model_copy(update={"weights_sha256": sha256_of(_weights(folder))})
        write_json(folder / "config.json", record.model_dump())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: could not be written ({error}); make room") from None


def load_model(folder: Path, source: str = OUR_SOURCE) -> TrainedModel:
    """The model in `folder`, made by the file `source`, in eval mode, computing as when trained.

    With the same device, precision and threads a score or a text is the same bits as beside the
    training; where the device is not here, `auto` is used instead. Sizes and hashes are checked
    before memory is taken. Raises CheckpointError, naming the file, for what is missing, damaged,
    of another format or source, or does not belong together.
    """
    record = _read_record(folder / "config.json")
    weights = _weights(folder)
    _check_hash(weights, record.weights_sha256)
    _check_hash(folder / "tokenizer.json", record.tokenizer_sha256)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer.vocab_size != record.vocab_size:
        raise CheckpointError(f"{folder}: tokenizer and weights are of different vocabularies")
    if record.model.source != source:
        raise CheckpointError(
            f"{folder}: its weights are of model.source={record.model.source}, not of {source}; "
            "train again: dvc repro"
        )
    try:
        with safe_open(weights, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (s.get_dtype(), *s.get_shape()) for name, s in slices.items()}
        model = _untrained(record, tokenizer, weights, found)
        state = model.state_dict()
        expected = {name: (DTYPES.get(t.dtype), *t.shape) for name, t in state.items()}
        if found != expected:
            odd = sorted(set(found.items()) ^ set(expected.items()), key=str)[0][0]
            raise CheckpointError(f"{weights}: {odd} is not as config.json describes")
        device = _device_of(record.device)
        if source != OUR_SOURCE:
            # It may hold more than its weights, and one weight under two names.
            model.to(device.name)
        model.load_state_dict(load_file(weights, device=device.name), assign=source == OUR_SOURCE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{weights}: not a safetensors file ({error})") from None
    return TrainedModel(model.eval(), tokenizer, record, device)


def _untrained(
    record: ModelRecord, tokenizer: Tokenizer, weights: Path, found: dict[str, Any]
) -> GPT:
    """A model for the weights `found`; ours takes no memory yet, and is not built if they lie."""
    shape = record.model
    if shape.source != OUR_SOURCE:
        return make_model(shape, record.vocab_size)
    # The blocks' matrices alone; a config that claims more than the file holds is not built.
    if 4 * 12 * shape.n_layer * shape.n_embd**2 > weights.stat().st_size:
        raise CheckpointError(f"{weights}: is smaller than the model config.json describes")
    # A layer is several tensors; far more layers than those would take long to build.
    if shape.n_layer > len(found):
        raise CheckpointError(f"{weights}: has fewer layers than config.json describes")
    with without_weights():
        return make_model(shape, record.vocab_size, line_breaks=line_breaks(tokenizer))


def _device_of(record: DeviceRecord) -> Device:
    try:
        return choose_device(record.name, record.dtype, record.threads)
    except ParamsError:
        return choose_device()


def _read_record(path: Path) -> ModelRecord:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_JSON_BYTES} bytes, not a config")
        return ModelRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no model here; train one: dvc repro") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: not a model of format {FORMAT} ({first_line(error)})"
        ) from None


def _weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; bring it back: dvc checkout, or dvc repro")
    if sha256_of(path) != expected:
        raise CheckpointError(
            f"{path}: its sha256 is not the one in config.json, so it is damaged or of another "
            "model; delete .dvc/cache/files and data/model, then: dvc repro"
        )


class TrainingStates:
    """The saved states of one training, in a folder of their own; use it as a context manager.

    A lock keeps a second training out: two on one folder would overwrite each other's states.
    """

    def __init__(self, folder: Path, *, keep: int = 2, warn: Callable[[str], None] = print) -> None:
        self.folder = folder
        self._keep = keep
        self._warn = warn
        # Beside the folder, so that removing the folder leaves the lock in place.
        self._lock = FileLock(folder.with_suffix(".lock"))
        self._owner = folder.with_suffix(".pid")
        self._done = folder.with_suffix(".done")

    def __enter__(self) -> "TrainingStates":
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except OSError as error:
            # Timeout is an OSError as well.
            if not isinstance(error, Timeout):
                raise self._unwritable(error) from None
            owner = self._owner.read_text(encoding="utf-8") if self._owner.exists() else "unknown"
            raise CheckpointError(
                f"{self.folder}: the same training is already running as process {owner}; "
                "wait for it, or end it"
            ) from None
        try:
            self._owner.write_text(str(os.getpid()), encoding="utf-8")
            self.folder.mkdir(exist_ok=True)
            for leftover in (*self.folder.glob(".writing-*"), self._done):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            self._lock.release()
            raise self._unwritable(error) from None
        return self

    def _unwritable(self, error: OSError) -> CheckpointError:
        return CheckpointError(
            f"{self.folder}: training states cannot be written here ({error.strerror}); "
            "make room, or mend its rights"
        )

    def __exit__(self, *_: object) -> None:
        self._owner.unlink(missing_ok=True)
        self._lock.release()

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Writes the state after `step` updates and forgets the oldest ones.

        Raises CheckpointError where it cannot be written; earlier states stay as they are.
        """
        final = self.folder / f"step_{step:08d}"
        aside = self.folder / f".writing-{os.getpid()}"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            save_file(tensors, aside / "state.safetensors")
            write_json(aside / "state.json", facts)
            hashes = {name: sha256_of(aside / name) for name in STATE_FILES}
            write_json(aside / "manifest.json", {"format": FORMAT, "sha256": hashes})
            for path in (*aside.iterdir(), aside):
                _sync(path)
            if final.exists():
                shutil.rmtree(final)
            aside.rename(final)
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise CheckpointError(
                f"{final}: could not be written ({error}); the state before it is kept"
            ) from None
        # States of later steps are damaged, or the training would have gone on from them.
        good = [saved for saved in self._saved() if saved <= final]
        for old in {*self._saved()} - {*good[: self._keep]}:
            shutil.rmtree(old)

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest complete state, or None. A damaged one is named in a warning and passed by."""
        for folder in self._saved():
            try:
                manifest = json.loads((folder / "manifest.json").read_bytes())
                if manifest["format"] != FORMAT:
                    raise ValueError("is of another format")
                for name in STATE_FILES:
                    if sha256_of(folder / name) != manifest["sha256"][name]:
                        raise ValueError(f"{name} is not as it was written")
                facts = json.loads((folder / "state.json").read_bytes())
                return load_file(folder / "state.safetensors"), facts
            except (
                OSError,
                ValueError,
                KeyError,
                TypeError,
                RecursionError,
                SafetensorError,
            ) as error:
                self._warn(f"{folder}: not used, {error}")
        return None

    def remove(self) -> None:
        """Deletes the states; the training is done."""
        # Renamed first: who is killed meanwhile must not leave halves of states to be found.
        self.folder.rename(self._done)
        shutil.rmtree(self._done)

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"), reverse=True)


def _sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to disk; Windows cannot open folders."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
