"""Attention maps: the very weights that the model uses."""

from typing import Any

import pytest
import torch

from gpt.config import ModelConfig
from gpt.evaluation.attention_maps import attention_plot, attention_weights
from gpt.model import GPT, CausalSelfAttention
from gpt.tokenizers.char import CharTokenizer

TOKENIZER = CharTokenizer("\n $abc漢", has_bos=False)


def model_of(architecture: str) -> GPT:
    shape = ModelConfig(
        architecture=architecture, n_layer=2, n_head=2, n_embd=16, block_size=8, init_std=0.5
    )
    return GPT(shape, TOKENIZER.vocab_size, seed=4).eval()


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
@torch.inference_mode()
def test_the_weights_times_the_values_are_what_attention_gives(architecture: str) -> None:
    model = model_of(architecture)
    for name, parameter in model.named_parameters():
        if name.endswith("proj.weight"):
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    seen: list[tuple[Any, Any]] = []
    modules = [m for m in model.modules() if isinstance(m, CausalSelfAttention)]
    hooks = [
        m.register_forward_hook(lambda m, inputs, y: seen.append((inputs[0], y))) for m in modules
    ]
    ids_t = torch.tensor([1, 3, 4, 5, 3, 0])
    layers = attention_weights(model, ids_t)
    for hook in hooks:
        hook.remove()
    assert len(layers) == 2
    for module, weights_hts, (x_btd, y_btd) in zip(modules, layers, seen, strict=True):
        assert weights_hts.shape == (2, 6, 6)
        assert torch.equal(weights_hts.triu(1), torch.zeros(2, 6, 6))
        v_hte = module.qkv(x_btd)[0, :, 32:].view(6, 2, 8).transpose(0, 1)
        ours = module.proj((weights_hts @ v_hte).transpose(0, 1).reshape(6, 16))
        torch.testing.assert_close(ours, y_btd[0], atol=1e-5, rtol=1e-5)
    # Nothing stays behind in the model.
    assert not any(m._forward_pre_hooks for m in modules)


def test_a_plot_has_a_map_for_each_head_and_accepts_any_character() -> None:
    png = attention_plot(model_of("modern"), TOKENIZER, "a $\n漢b" * 9)
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert png == attention_plot(model_of("modern"), TOKENIZER, "a $\n漢b" * 9)
    assert png != attention_plot(model_of("modern"), TOKENIZER, "b $\n漢b" * 9)
    assert attention_plot(model_of("modern"), TOKENIZER, "a") is None
