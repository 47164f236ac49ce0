"""A model on disk: a folder of three files, complete in itself and free of pickle.

    model.safetensors   the weights, float32
    config.json         what the weights depend on (RunConfig), and the sha256 of the other files
    tokenizer.json      a copy of the tokenizer

Not here: the states from which a killed training resumes (gpt/training_state.py).
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
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
WEIGHTS = "model.safetensors"
MAX_JSON_BYTES = 16 * 2**20
# As safetensors names them; a user's own model may hold a mask or counters.
DTYPES = {torch.float32: "F32", torch.bool: "BOOL", torch.int64: "I64"}


class RunConfig(Config):
    """config.json: exactly what the weights depend on, resolved, and nothing else."""

    format: Literal[1] = 1
    model: ModelConfig
    vocab_size: int = Field(gt=0)
    train: TrainConfig
    seed: int
    data: dict[str, Any]
    code_sha256: str
    device: Device
    tokenizer_sha256: str
    # Of the weights that train.init_from names.
    pretrained_sha256: str = ""
    weights_sha256: str = ""

    def fingerprint(self) -> str:
        """A name that two trainings share where one can resume from the other's states.

        To the same bits, except for the number of processes and how they hold the model: that these
        may change between two starts is worth more than the last digits.
        """
        elastic = {"processes", "sharding", "recompute"}
        inputs = self.model_dump(exclude={"weights_sha256": True, "train": elastic})
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrainedModel:
    """A loaded model. `device` is where it lies; `device.apply()` sets threads as when trained."""

    model: GPT
    tokenizer: Tokenizer
    run_config: RunConfig
    device: Device


def code_sha256(files: Iterable[Path]) -> str:
    """The sha256 of Python modules, by name and content."""
    digest = hashlib.sha256()
    for file in files:
        module = file.with_suffix("").as_posix().replace("/", ".")
        digest.update(f"{module}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def save_model(
    folder: Path, weights: dict[str, Tensor], tokenizer_file: Path, run_config: RunConfig
) -> None:
    """Writes a model folder; config.json comes last, so a folder that has it is complete.

    Raises CheckpointError where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(contiguous, folder / WEIGHTS)
        shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
        hashes = {"weights_sha256": sha256_of(folder / WEIGHTS)}
        write_json(folder / "config.json", run_config.model_copy(update=hashes).model_dump())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: could not be written ({error}); free disk space and run the same command"
        ) from None


def load_model(
    folder: Path, source: str = OUR_SOURCE, source_file: Path | None = None
) -> TrainedModel:
    """The model in `folder`, made by the file `source`, in eval mode, on the device it trained on.

    `source_file` is where that file lies, if not at the path `source`.

    Where that device is not here, `auto` is used instead. The process's threads and precision stay
    (Device.apply). Sizes and hashes are checked before memory is allocated. Raises CheckpointError,
    naming the file, for what is missing, damaged, of another format or source, or does not belong
    together.
    """
    run_config = read_run_config(folder / "config.json")
    weights = folder / WEIGHTS
    _check_hash(weights, run_config.weights_sha256)
    _check_hash(folder / "tokenizer.json", run_config.tokenizer_sha256)
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    if tokenizer.vocab_size != run_config.vocab_size:
        raise CheckpointError(f"{folder}: tokenizer and weights are of different vocabularies")
    if run_config.model.source != source:
        raise CheckpointError(
            f"{folder}: its weights are of model.source={run_config.model.source}, not of {source};"
            " train again: dvc repro"
        )
    try:
        with safe_open(weights, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            stored = {name: (s.get_dtype(), *s.get_shape()) for name, s in slices.items()}
        model = _untrained(run_config, tokenizer, weights, len(stored), source_file)
        state = model.state_dict()
        expected = {name: (DTYPES.get(t.dtype), *t.shape) for name, t in state.items()}
        if stored != expected:
            odd = sorted(set(stored.items()) ^ set(expected.items()), key=str)[0][0]
            raise CheckpointError(f"{weights}: {odd} is not as config.json describes")
        # A model of another source may hold one weight under two names.
        model.load_state_dict(load_file(weights), assign=source == OUR_SOURCE)
        device = _device(run_config.device)
        model.to(device.name)  # also what is in no file, such as the position tables
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{weights}: not a safetensors file ({error})") from None
    return TrainedModel(model.eval(), tokenizer, run_config, device)


def _untrained(
    run_config: RunConfig,
    tokenizer: Tokenizer,
    weights: Path,
    num_tensors: int,
    source_file: Path | None,
) -> GPT:
    """A model to load weights into; ours takes no memory yet. A config that lies is refused."""
    shape = run_config.model
    if shape.source != OUR_SOURCE:
        breaks = line_breaks(tokenizer)
        return make_model(shape, run_config.vocab_size, line_breaks=breaks, file=source_file)
    # The blocks' matrices alone need more bytes than this.
    if 4 * 12 * shape.n_layer * shape.n_embd**2 > weights.stat().st_size:
        raise CheckpointError(f"{weights}: is smaller than the model config.json describes")
    # A layer is several tensors; a model of far more layers would take long to build.
    if shape.n_layer > num_tensors:
        raise CheckpointError(f"{weights}: has fewer layers than config.json describes")
    with without_weights():
        return make_model(shape, run_config.vocab_size, line_breaks=line_breaks(tokenizer))


def _device(config: Device) -> Device:
    try:
        return choose_device(config.name, config.dtype, config.threads)
    except ParamsError:
        return choose_device()


def read_run_config(path: Path) -> RunConfig:
    """config.json. Raises CheckpointError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: larger than {MAX_JSON_BYTES} bytes, not a config")
        return RunConfig.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no model here; train one: dvc repro") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: not a model of format {FORMAT} ({first_line(error)})"
        ) from None


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; restore it: dvc checkout, or dvc repro")
    if sha256_of(path) != expected:
        raise CheckpointError(
            f"{path}: its sha256 is not the one in config.json, so it is damaged or of another "
            "model; delete .dvc/cache/files and data/model, then: dvc repro"
        )
