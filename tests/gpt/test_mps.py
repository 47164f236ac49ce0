"""Apple's GPU without a Mac: every operator has a kernel there, in PyTorch's own table."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretended_mps import Recorder, pretended_mps, without_kernel
from saved_models import change_config, saved_model

from gpt import model as model_module
from gpt.batches import make_batches, val_batches
from gpt.callbacks import DeadUnits, TrainingCurve, UpdateRatio
from gpt.checkpoint import TrainedModel, load_model
from gpt.config import ModelConfig, TrainConfig
from gpt.decoding.canonical import canonical
from gpt.device import Device
from gpt.errors import ParamsError
from gpt.evaluation.attention_maps import attention_weights
from gpt.evaluation.benchmarks import Question, score_hellaswag, score_text
from gpt.evaluation.scoring import Scorer, block_windows, half_block_windows
from gpt.generation import Sampling, beam_generate, generate
from gpt.model_source import make_model
from gpt.presets import PRESETS, resolve
from gpt.tokenizers.base import line_breaks
from gpt.tokenizers.char import CharTokenizer
from gpt.trainer import Trainer

TOKENIZER = CharTokenizer("\n abcdefgh", has_bos=True)
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8}
IDS = np.random.default_rng(0).integers(TOKENIZER.vocab_size, size=60).astype(np.uint16)
SLOW = pytest.mark.slow
TOKENS = 10  # generated: more than a block, so that its last half is read again


def small(preset: str) -> tuple[ModelConfig, TrainConfig]:
    """`preset` at a small width, length and batch."""
    shape, config, _ = resolve(preset, SMALL, {})
    rows = {"ngram_rows": 61} if shape.ngram_rows else {}
    sizes = {"batch_size": 2, "gradient_accumulation": 1, "steps": 1, "eval_every": 1}
    return shape.model_copy(update=rows), config.model_copy(update=sizes)


def make_trainer(preset: str, device: str, dtype: str = "float32", **changes: Any) -> Trainer:
    """A training with all that the stage `train` measures."""
    shape, config = small(preset)
    config = config.model_copy(update=changes)
    batches = make_batches(IDS, [], config, block_size=8, seed=0, bos=TOKENIZER.bos)
    val = val_batches(IDS, block_size=8, tokens=16, batch_size=2)
    model = make_model(shape, TOKENIZER.vocab_size, seed=0, line_breaks=line_breaks(TOKENIZER))
    here = Device(name=device, dtype=dtype, threads=1, cpu_capability="any", torch="any")
    curve = TrainingCurve()
    measured = [DeadUnits(curve), UpdateRatio(curve), curve]
    return Trainer(model, batches, val, config, here, seed=0, callbacks=measured)


def train(trainer: Trainer) -> None:
    trainer.run()
    trainer.load_state(*trainer.state())


def evaluate(trainer: Trainer) -> None:
    windowings = [half_block_windows(len(IDS), 8), block_windows(len(IDS), 8)]
    Scorer(trainer.model, trainer.device, batch_tokens=64).token_scores(IDS, windowings)
    attention_weights(trainer.model, torch.arange(8))


def sample(trainer: Trainer) -> None:
    sampling = Sampling(TOKENS, temperature=0.8, top_k=5, top_p=0.9)
    generate(trainer.model, TOKENIZER, "abc", sampling, seed=0, indices=range(2))
    beam_generate(trainer.model, TOKENIZER, "abc", beams=2, max_new_tokens=TOKENS)
    canonical(trainer.model)


def benchmark(trainer: Trainer) -> None:
    trained = TrainedModel(trainer.model, TOKENIZER, None, trainer.device)
    score_hellaswag(trained, [Question("ab", (" c", " de"), 1)])
    score_text(trained, "ptb", "abc def gh\n" * 2, 64, lambda tokens: None)


@cache
def recorded(preset: str, dtype: str) -> dict[str, Recorder]:
    """What each kind of step runs on the device."""
    with pretended_mps():
        trainer = make_trainer(preset, "mps", dtype)
    records = {}
    for step in (train, evaluate, sample, benchmark):
        with pretended_mps() as records[step.__name__]:
            step(trainer)
    return records


# Presets that differ in nothing but numbers run the same operators.
KINDS = {
    (shape.model_dump_json(exclude={"init_std"}), config.optimizer, config.packing): preset
    for preset, (shape, config) in {preset: small(preset) for preset in PRESETS}.items()
}
CASES = [
    pytest.param(preset, dtype, marks=() if (preset, dtype) == ("quick", "float32") else SLOW)
    for preset, dtype in [
        *((preset, "float32") for preset in KINDS.values()),
        ("quick", "bfloat16"),
    ]
]


@pytest.mark.parametrize(("preset", "dtype"), CASES)
def test_every_operator_has_a_kernel_for_apples_gpu(preset: str, dtype: str) -> None:
    for step, recorder in recorded(preset, dtype).items():
        assert len(recorder.operators) > 20, step
        assert without_kernel(recorder.operators) == set(), step


@pytest.mark.parametrize(("preset", "dtype"), CASES)
def test_no_tensor_there_is_float64(preset: str, dtype: str) -> None:
    for step, recorder in recorded(preset, dtype).items():
        assert recorder.float64 == set(), step


def test_an_operator_without_a_kernel_is_found_by_itself_and_inside_another() -> None:
    with pretended_mps() as recorder:
        matrix = torch.eye(2, device="mps")
        torch.linalg.eigvals(matrix)
        torch.linalg.pinv(matrix)
    assert without_kernel(recorder.operators) == {"linalg_eig", "_linalg_svd"}


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.double(),
        lambda x: x.to("cpu", torch.float64),  # PyTorch may convert before it copies
        lambda x: torch.zeros(2, dtype=torch.float64).to(x.device),
        lambda x: x.sum(dtype=torch.float64),
    ],
)
def test_float64_is_found(make: Callable[[torch.Tensor], object]) -> None:
    with pretended_mps() as recorder:
        x = torch.ones(2, device="mps")
        assert recorder.float64 == set()
        make(x)
    assert recorder.float64


def test_a_training_there_is_that_of_the_cpu_without_its_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_module, "CPU_KERNELS", False)
    expected = make_trainer("quick", "cpu")
    expected.run()
    with pretended_mps() as recorder:
        trainer = make_trainer("quick", "mps")
        trainer.run()
    assert trainer.progress.val_loss == pytest.approx(expected.progress.val_loss, rel=1e-5)
    assert "_fused_adamw_" in recorder.operators


def test_a_token_costs_one_copy_to_the_host() -> None:
    # Its logits: it is chosen there, in float64, so that a text does not depend on the device.
    with pretended_mps():
        model = make_trainer("quick", "mps").model
    copies = []
    for count in (2, TOKENS):
        with pretended_mps() as recorder:
            generate(model, TOKENIZER, "abc", Sampling(count), seed=0, indices=range(3))
        assert recorder.operators["_local_scalar_dense"] == 0
        copies.append(recorder.to_host)
    assert copies == [2, TOKENS]


def test_a_loaded_model_is_on_its_device_with_all_that_is_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    saved_model(tmp_path / "model", shape=small("quick")[0])
    change_config(tmp_path / "model", "device", name="mps")
    with pretended_mps():
        loaded = load_model(tmp_path / "model")
        assert loaded.device.name == "mps"
        tensors = [*loaded.model.parameters(), *loaded.model.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_activations_with_dropout_are_not_recomputed_there() -> None:
    # PyTorch restores the random numbers of CUDA and the CPU alone.
    changes = {"recompute": True}
    with pretended_mps():
        assert make_trainer("quick", "mps", **changes).model.recompute
        with pytest.raises(ParamsError, match=r"train\.recompute = true: .*model\.dropout=0"):
            make_trainer("nanogpt", "mps", **changes)
        assert make_trainer("nanogpt", "cpu", **changes).model.recompute
