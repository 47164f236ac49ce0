"""A view computes what its model computes, with the model's weights of the moment."""

import pytest
import torch
from torch import Tensor, nn

from gpt.config import ModelConfig
from gpt.decoding.decoder import MIN_PACKED_TOKENS, KVCacheDecoder
from gpt.decoding.inference_view import inference_view
from gpt.model import GPT


class Residual(nn.Module):
    """A module of one's own: a list, a missing child, a buffer and a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.norm = None
        self.register_module("absent", None)
        self.register_buffer("shift", torch.ones(4))
        self.factor = 0.5

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + self.factor * layer(x)
        return x + self.shift if self.absent is None else x


def test_a_view_of_any_module_computes_the_same_bits() -> None:
    torch.manual_seed(1)
    module, x = Residual(), torch.randn(3, 4)
    assert torch.equal(inference_view(module)(x), module(x))


def test_a_view_has_the_weights_of_the_moment() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=4), 5).eval()
    view, ids_bt = inference_view(model), torch.tensor([[1, 2]])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
        assert torch.equal(view(ids_bt), model(ids_bt))


def test_forward_hooks_are_called() -> None:
    module, calls = Residual(), list[str]()
    module.layers[1].register_forward_hook(lambda *_: calls.append("hook"))
    inference_view(module)(torch.zeros(1, 4))
    assert calls == ["hook"]


def test_a_view_leaves_the_model_as_it_was() -> None:
    module = Residual()
    before = dict(module.__dict__)
    inference_view(module)(torch.zeros(1, 4))
    assert module.__dict__ == before
    assert type(module) is Residual


@pytest.mark.parametrize("bias", [False, True])
def test_packed_weights_give_the_logits_of_the_model_and_leave_its_weights_alone(
    bias: bool,
) -> None:
    config = ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, bias=bias)
    model, ids_bt = GPT(config, 9).eval(), torch.tensor([[1, 2, 3]])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    decoder = KVCacheDecoder(model, num_tokens=MIN_PACKED_TOKENS)
    assert not decoder._model.blocks[0].mlp.up.weight.is_contiguous()
    with torch.inference_mode():
        for t in range(3):
            logits_bv = decoder.read(ids_bt[:, t : t + 1])
            torch.testing.assert_close(logits_bv, model(ids_bt[:, : t + 1])[:, -1])
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_weights_of_another_precision_are_not_packed() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, block_size=8), 9).double().eval()
    decoder = KVCacheDecoder(model, num_tokens=MIN_PACKED_TOKENS)
    assert decoder._model.blocks[0].mlp.up.weight is model.blocks[0].mlp.up.weight
