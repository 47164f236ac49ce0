"""The presets' sizes."""

import pytest
import torch

from gpt.model import GPT
from gpt.presets import resolve


@pytest.mark.parametrize(
    ("preset", "parameters", "tokens"),
    [
        ("gpt2", 124_439_808, 2**19),
        ("gpt2-medium", 354_823_168, 2**19),
        ("gpt2-large", 774_030_080, 2**19),
        ("gpt2-xl", 1_557_611_200, 2**19),
    ],
)
def test_gpt2s_presets_have_its_parameters_and_half_a_million_tokens_a_step(
    preset: str, parameters: int, tokens: int
) -> None:
    model, train, _ = resolve(preset, {}, {})
    with torch.device("meta"):
        built = GPT(model, 50_257)
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters
    assert train.batch_size * train.gradient_accumulation * model.block_size == tokens
    # As many machines of eight GPUs as divide the passes of an update.
    assert train.gradient_accumulation % 8 == 0
