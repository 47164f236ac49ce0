"""Weights in eight bits: how far they are from the whole ones, and that they write."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from gpt.config import ModelConfig
from gpt.decoder import Decoder
from gpt.generation import Sampling, generate
from gpt.int8 import Int8Linear, to_int8
from gpt.model import GPT
from gpt.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer("\nabcdefgh", has_bos=False)


def made(architecture: str, bias: bool) -> GPT:
    shape: dict[str, Any] = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16}
    model = GPT(
        ModelConfig(architecture=architecture, bias=bias, **shape),  # type: ignore[arg-type]
        TOKENIZER.vocab_size,
        seed=2,
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():  # away from zero branches, biases and a zero head
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


@pytest.mark.parametrize("bias", [False, True])
def test_a_weight_is_off_by_half_a_step_of_its_row_at_most(bias: bool) -> None:
    linear = nn.Linear(7, 5, bias=bias)
    with torch.no_grad():
        linear.weight[2] = 0.0
        linear.weight[3] *= 1000
    rounded = Int8Linear(linear.weight, linear.bias)
    assert rounded.weight.dtype == torch.int8
    found = rounded.weight * rounded.scale[:, None]
    largest = linear.weight.abs().amax(dim=1, keepdim=True)
    assert ((found - linear.weight).abs() <= largest / 254 * 1.001).all()
    inputs = torch.randn(3, 7)
    expected = inputs @ found.T + (linear.bias if bias else 0.0)
    torch.testing.assert_close(rounded(inputs), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_compiled_loops_compute_of_integers_what_the_model_does(
    architecture: str, bias: bool
) -> None:
    whole = made(architecture, bias)
    model = to_int8(copy.deepcopy(whole))
    ids_bt = torch.arange(3 * 16).view(3, 16) % 9
    with torch.inference_mode():
        expected = model(ids_bt)
        by_weights = (expected - whole(ids_bt)).std()
        assert 0 < by_weights < 0.05 * expected.std()
        decoder = Decoder(model)
        decoder.read(ids_bt[:, :3])
        found = torch.stack([decoder.read(ids_bt[:, t : t + 1]) for t in range(3, 16)], dim=1)
        # The loops round what the weights are multiplied with as well, in far finer steps.
        assert 0 < (found - expected[:, 3:]).std() < by_weights / 20


def test_what_is_not_a_number_stays_so_among_integers() -> None:
    model = to_int8(made("modern", bias=False))
    with torch.no_grad():
        model.token_embedding.weight[3, 5] = math.nan
    decoder = Decoder(model)
    with torch.inference_mode():
        assert decoder.read(torch.tensor([[2]])).isfinite().all()
        assert decoder.read(torch.tensor([[3]])).isnan().all()


def test_all_products_of_the_blocks_are_in_int8_and_text_is_written() -> None:
    model = made("modern", bias=False)
    before = sum(p.numel() for p in model.parameters())
    to_int8(model)
    assert not any(type(module) is nn.Linear for module in model.modules())
    left = sum(p.numel() for p in model.parameters())
    in_int8 = sum(b.numel() for b in model.buffers() if b.dtype == torch.int8)
    assert left + in_int8 == before
    assert in_int8 == 2 * 12 * 32 * 32 + 9 * 32
    sampling = Sampling(max_new_tokens=40, temperature=0.8)
    (one,) = generate(model, TOKENIZER, "abc", sampling, seed=1)
    (same,) = generate(model, TOKENIZER, "abc", sampling, seed=1)
    assert one == same
    assert one.new_tokens == 40
