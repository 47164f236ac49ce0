"""Small models saved as the stage `train` saves them, and changes to what was saved."""

import hashlib
import json
from pathlib import Path
from typing import Any

from gpt.checkpoint import RunConfig, save_model
from gpt.config import ModelConfig, TrainConfig
from gpt.device import Device
from gpt.files import write_json
from gpt.model import GPT
from gpt.tokenizers.char import CharTokenizer

SHAPE = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, bias=True)
TOKENIZER = CharTokenizer("\n abcdefg", has_bos=True)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def saved_model(folder: Path, seed: int = 0, shape: ModelConfig = SHAPE) -> GPT:
    """Writes a model folder as the stage `train` does; returns the model."""
    model = GPT(shape, TOKENIZER.vocab_size, seed)
    tokenizer_file = folder.parent / f"{folder.name}-tokenizer.json"
    write_json(tokenizer_file, TOKENIZER.spec())
    train = TrainConfig(steps=1, batch_size=1, learning_rate=1e-3, min_learning_rate=0.0)
    config = RunConfig(
        model=shape,
        vocab_size=TOKENIZER.vocab_size,
        train=train,
        seed=seed,
        data={"corpus": "own", "train": "0" * 64},
        code_sha256="0" * 64,
        device=Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any"),
        tokenizer_sha256=sha256(tokenizer_file),
    )
    save_model(folder, model.state_dict(), tokenizer_file, config)
    return model


def change_config(folder: Path, section: str = "", **values: Any) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    (config[section] if section else config).update(values)
    write_json(folder / "config.json", config)


def vouch(folder: Path) -> None:
    """Lets config.json state the hashes of the files as they are, as whoever swapped them would."""
    change_config(
        folder,
        weights_sha256=sha256(folder / "model.safetensors"),
        tokenizer_sha256=sha256(folder / "tokenizer.json"),
    )
