"""Canonical decoding: rounded logits that do not depend on the processor."""

import pytest
import torch

from gpt.config import ModelConfig
from gpt.decoding.canonical import STEP, canonical, one_thread
from gpt.decoding.decoder import KVCacheDecoder
from gpt.model import GPT


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_canonical_logits_are_the_models_rounded_and_blind_to_float32(architecture: str) -> None:
    extra = {"ngram_rows": 64, "line_sums": 4} if architecture == "modern" else {}
    shape = ModelConfig(
        architecture=architecture, n_layer=2, n_head=2, n_embd=16, block_size=32, **extra
    )
    model = GPT(shape, 11, seed=3, line_breaks=[0]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator()) * 0.1)
    ids_bt = torch.arange(22)[None] % 11
    with torch.inference_mode():
        plain, exact = model(ids_bt), canonical(model)(ids_bt)
        # What another processor makes of sums, as noise: far above float64's, below a step.
        again = canonical(model)
        for parameter in again.parameters():
            parameter.mul_(1 + 1e-12)
        assert torch.equal(again(ids_bt), exact)
    assert exact.dtype == torch.float64
    assert torch.equal(exact.float().double(), exact)
    assert torch.equal((exact / STEP).round() * STEP, exact)
    assert (plain.double() - exact).abs().max() < STEP
    # Token by token, as text is written.
    decoder = KVCacheDecoder(canonical(model))
    with torch.inference_mode():
        for t in range(22):
            assert torch.equal(decoder.read(ids_bt[:, t : t + 1]), exact[:, t])
    # The model itself stays as it was.
    assert next(model.parameters()).dtype == torch.float32
    assert torch.equal(model(ids_bt), plain)


@pytest.mark.usefixtures("two_threads")
def test_one_thread_is_given_back() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
