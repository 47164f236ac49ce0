"""The evaluate stage's figures, against programs that others wrote."""

import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import missing
from torch.nn.functional import cross_entropy

from gpt.config import ModelConfig
from gpt.device import Device
from gpt.evaluation.scoring import half_block_windows, token_scores
from gpt.model import GPT
from gpt.presets import resolve
from gpt.tokenizers.base import CharTokenizer
from stages.evaluate import ladder, levels
from verse import grammar as verse

CPU = Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any")


@pytest.fixture(scope="module")
def play() -> str:
    return verse.write_play(seed=0, index=0).text


@pytest.fixture(scope="module")
def steps(play: str) -> dict[str, float]:
    return ladder(*trained_on(play))


def trained_on(play: str) -> tuple[SimpleNamespace, np.ndarray, np.ndarray]:
    """What `ladder` wants of a model, and the two halves of a play as ids."""
    tokenizer = CharTokenizer("".join(sorted(set(play))), has_bos=False)
    ids = tokenizer.encode(play)
    record = SimpleNamespace(vocab_size=tokenizer.vocab_size)
    trained = SimpleNamespace(record=record, tokenizer=tokenizer)
    return trained, ids[: len(ids) // 2], ids[len(ids) // 2 :]


@pytest.mark.parametrize("program", ["gzip", "xz"])
def test_compressed_sizes_are_those_of_the_command_line(
    tmp_path: Path, play: str, steps: dict[str, float], program: str
) -> None:
    if shutil.which(program) is None:
        missing(f"{program} is not installed")
    text = play[len(play) // 2 :].encode()
    (tmp_path / "text").write_bytes(text)
    command = [program, "-9", "-c", str(tmp_path / "text")]
    packed = subprocess.run(command, capture_output=True, check=True).stdout
    # GNU gzip and zlib, and two versions of xz, part by some bytes; gzip adds the file's name.
    assert steps[program] == pytest.approx(8 * len(packed) / len(text), rel=0.01)


def test_the_ladder_goes_down_from_guessing(play: str, steps: dict[str, float]) -> None:
    assert steps["uniform"] == pytest.approx(math.log2(len(set(play))), abs=1e-6)
    assert steps["uniform"] > steps["ngram_1"] > steps["ngram_2"] > steps["ngram_3"]
    assert steps["ngram_3"] < steps["xz"]


def test_the_lines_of_the_picture_are_in_nats_a_token(steps: dict[str, float]) -> None:
    # Two bytes a token: a bit per byte is 2 ln 2 nats a token.
    val = {"loss": 4 * math.log(2), "bits_per_byte": 2.0, "floor_bits_per_byte": 1.0}
    lines = levels({"val": val, "ladder": steps})
    assert lines["the model, on the whole split"] == pytest.approx(4 * math.log(2))
    assert lines["floor: the text's own information"] == pytest.approx(2 * math.log(2))
    assert lines["gzip"] == pytest.approx(steps["gzip"] * 2 * math.log(2))


# --- Hugging Face's GPT-2 -------------------------------------------------------------------------


def as_hugging_face(model: GPT) -> torch.nn.Module:
    """The same weights in Hugging Face's GPT2LMHeadModel; its linear layers are transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = model.config
    other = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=model.vocab_size,
            n_positions=shape.block_size,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    ours = model.state_dict()
    names = {"token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f"}
    for layer in range(shape.n_layer):
        for here, there in (
            ("norm_1", "ln_1"),
            ("attention.qkv", "attn.c_attn"),
            ("attention.proj", "attn.c_proj"),
            ("norm_2", "ln_2"),
            ("mlp.up", "mlp.c_fc"),
            ("mlp.down", "mlp.c_proj"),
        ):
            names[f"blocks.{layer}.{here}"] = f"h.{layer}.{there}"
    theirs = other.transformer.state_dict()
    for here, there in names.items():
        weight = ours[f"{here}.weight"]
        theirs[f"{there}.weight"].copy_(weight.T if ".c_" in there else weight)
        if f"{there}.bias" in theirs:
            bias = ours.get(f"{here}.bias")
            theirs[f"{there}.bias"].copy_(torch.zeros(()) if bias is None else bias)
    assert {name for name in ours if name != "head.weight"} <= {
        f"{here}.{part}" for here in names for part in ("weight", "bias")
    }
    return other


@pytest.mark.slow
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.filterwarnings("ignore")  # what their package warns of is not ours to mend
def test_the_exact_loss_is_that_of_hugging_faces_gpt2(play: str, bias: bool) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    shape, _, _ = resolve("nanogpt-cpu", {"dropout": 0.0, "bias": bias, "init_std": 0.1}, {})
    assert isinstance(shape, ModelConfig)
    _, _, ids = trained_on(play)
    ids = ids[: 64 + 32 * 30 + 1]
    vocab_size = len(set(play))
    model = GPT(shape, vocab_size, seed=5)
    with torch.no_grad():
        noise = torch.Generator().manual_seed(1)
        for parameter in model.parameters():  # biases and gains too
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise))
    windows = half_block_windows(len(ids), shape.block_size)
    (found,) = token_scores(model, ids, [windows], CPU, batch_tokens=4096)

    other, losses = as_hugging_face(model), []
    block_size, half = shape.block_size, shape.block_size // 2
    tokens = torch.from_numpy(ids.astype(np.int64))
    for stop in range(block_size, len(ids), half):
        inputs, targets = tokens[stop - block_size : stop], tokens[stop - block_size + 1 : stop + 1]
        with torch.no_grad():
            logits = other(inputs[None]).logits[0]
        new = slice(0 if stop == block_size else half, None)
        losses.append(cross_entropy(logits[new], targets[new], reduction="none"))
    expected = torch.cat(losses)
    assert len(expected) == len(ids) - 1
    assert float(found.losses.mean()) == pytest.approx(float(expected.mean()), abs=1e-5)
    assert found.losses == pytest.approx(expected.numpy(), abs=1e-3)
    assert float(expected.mean()) > math.log(vocab_size)  # not a model that says nothing
