"""One optimizer update is read in three files: gpt/trainer.py, gpt/model.py, gpt/batches.py."""

import inspect
import sys
import textwrap
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from gpt import model as model_module
from gpt.batches import make_batches, val_batches
from gpt.config import TrainConfig
from gpt.device import Device
from gpt.model_source import make_model
from gpt.presets import resolve
from gpt.trainer import Trainer

GPT_FOLDER = Path(model_module.__file__).parent
CPU = Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any")
SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}
VOCAB_SIZE = 20


def functions_of_an_update(preset: str) -> set[tuple[str, str]]:
    """(file, function) of everything in gpt/ that an update of a small model of `preset` runs."""
    model_config, config, _ = resolve(preset, SMALL, {"batch_size": 4, "device": "cpu"})
    ids = np.random.default_rng(0).integers(VOCAB_SIZE, size=500).astype(np.uint16)
    batches = make_batches(ids, [], config, block_size=8, seed=0, bos=None)
    val = val_batches(ids, block_size=8, tokens=32, batch_size=4)
    line_breaks = (3,) if model_config.line_sums else ()
    model = make_model(model_config, VOCAB_SIZE, seed=0, line_breaks=line_breaks)
    trainer = Trainer(model, batches, val, TrainConfig(**config.model_dump()), CPU, seed=0)
    functions: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(GPT_FOLDER):
            functions.add((path.relative_to(GPT_FOLDER).as_posix(), frame.f_code.co_qualname))

    trainer.train_step(0)  # what is made at first use is made now
    sys.setprofile(note)
    trainer.train_step(1)
    sys.setprofile(None)
    return functions


def test_an_update_of_gpt2_runs_trainer_model_and_batches_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_module, "CPU_KERNELS", False)
    functions = functions_of_an_update("nanogpt-cpu")
    assert {file for file, _ in functions} == {"trainer.py", "model.py", "batches.py"}
    # nanoGPT's runs 2 files and 8 functions.
    assert len(functions) <= 20, sorted(functions)


def test_an_update_of_the_modern_recipe_adds_muon_embeddings_and_kernels() -> None:
    files = {file for file, _ in functions_of_an_update("quick")}
    added = {"optim.py", "extra_embeddings.py", "kernels/cpu.py"}
    assert files - added == {"trainer.py", "model.py", "batches.py"}
    assert {"optim.py", "extra_embeddings.py"} <= files


def test_train_step_is_fifteen_lines_and_a_return() -> None:
    source = textwrap.dedent(inspect.getsource(Trainer.train_step))
    body = source.split('"""\n')[-1].strip().splitlines()
    assert len(body) <= 16
    assert body[-1].strip() == "return stats"
