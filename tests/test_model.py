"""The model against the formulas of GPT-2, written out by hand, and the numbers of its peers.

Comparisons run in float64, where a right answer and a wrong one cannot be mistaken for rounding.
"""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gpt.config import ModelConfig
from gpt.model import GPT, MLP, CausalSelfAttention, GPT2Block, cross_entropy
from gpt.presets import PRESETS

VOCABULARY = 17
SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 12}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def make(seed: int = 0, **changes: Any) -> GPT:
    return GPT(ModelConfig(**(SHAPE | changes)), VOCABULARY, seed)


def randomised(module: torch.nn.Module) -> Any:
    """In float64 and eval mode, every parameter away from its initial value, 0 and 1 above all."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.1, 0.5)
    return module


def ids_bt(b: int = 3, t: int = 12) -> Tensor:
    return torch.randint(VOCABULARY, (b, t))


# --- the formulas ---------------------------------------------------------------------------------


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    y = y * weights[f"{name}.weight"]
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def gelu_tanh(x: Tensor) -> Tensor:
    """Hendrycks & Gimpel 2016, the approximation that GPT-2 uses."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(x_btd: Tensor, weights: dict[str, Tensor], name: str, n_head: int) -> Tensor:
    """softmax(q k' / sqrt(k)) v for each head and position on its own."""
    _, t, d = x_btd.shape
    q, k, v = linear(x_btd, weights, f"{name}qkv").split(d, dim=-1)
    size = d // n_head
    y_btd = torch.zeros_like(x_btd)
    for head in range(n_head):
        own = slice(head * size, (head + 1) * size)
        for now in range(t):
            scores_bt = (k[:, : now + 1, own] * q[:, now : now + 1, own]).sum(-1) / math.sqrt(size)
            shares_bt = scores_bt.exp() / scores_bt.exp().sum(-1, keepdim=True)
            y_btd[:, now, own] = (shares_bt[..., None] * v[:, : now + 1, own]).sum(1)
    return linear(y_btd, weights, f"{name}proj")


def gpt2(ids: Tensor, weights: dict[str, Tensor], n_layer: int, n_head: int) -> Tensor:
    """Logits of GPT-2 (Radford et al. 2019), pre-norm, with the tied head."""
    x = weights["token_embedding.weight"][ids]
    x = x + weights["position_embedding.weight"][: ids.shape[1]]
    for layer in range(n_layer):
        at = f"blocks.{layer}."
        x = x + attention(layer_norm(x, weights, f"{at}norm_1"), weights, f"{at}attention.", n_head)
        hidden = gelu_tanh(linear(layer_norm(x, weights, f"{at}norm_2"), weights, f"{at}mlp.up"))
        x = x + linear(hidden, weights, f"{at}mlp.down")
    return layer_norm(x, weights, "norm") @ weights["token_embedding.weight"].T


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("t", [1, 5, 12])
def test_logits_are_those_of_gpt2_written_out(bias: bool, t: int) -> None:
    model = randomised(make(bias=bias))
    ids = ids_bt(t=t)
    expected = gpt2(ids, model.state_dict(), SHAPE["n_layer"], SHAPE["n_head"])
    torch.testing.assert_close(model(ids), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_head", [1, 2, 8])
def test_attention_is_the_formula_written_out(n_head: int) -> None:
    module = randomised(CausalSelfAttention(ModelConfig(**(SHAPE | {"n_head": n_head}))))
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    expected = attention(x_btd, module.state_dict(), "", n_head)
    torch.testing.assert_close(module(x_btd), expected, rtol=1e-10, atol=1e-10)


def test_the_mlp_has_gelu_in_the_tanh_form() -> None:
    module = randomised(MLP(ModelConfig(**SHAPE)))
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    weights = module.state_dict()
    up = linear(x_btd, weights, "up")
    torch.testing.assert_close(
        module(x_btd), linear(gelu_tanh(up), weights, "down"), atol=1e-12, rtol=0
    )
    erf_form = linear(0.5 * up * (1 + torch.erf(up / math.sqrt(2))), weights, "down")
    assert (module(x_btd) - erf_form).abs().max() > 1e-5, "the two forms can be told apart"


def test_a_block_whose_branches_are_zero_passes_the_stream_on() -> None:
    block = randomised(GPT2Block(ModelConfig(**SHAPE)))
    with torch.no_grad():
        block.attention.proj.weight.zero_()
        block.mlp.down.weight.zero_()
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    assert torch.equal(block(x_btd), x_btd)


def test_logits_see_nothing_of_what_comes_after() -> None:
    model = randomised(make())
    embedded: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        embedded.append(output)

    model.token_embedding.register_forward_hook(keep)
    for now in range(12):
        logits_btv = model(ids_bt(b=1))
        logits_btv[0, now].square().sum().backward()
        seen = embedded[-1].grad[0].abs().sum(-1)
        assert (seen[: now + 1] > 0).all()
        assert (seen[now + 1 :] == 0).all(), "exactly: not a rounding error, no path at all"


def test_a_shorter_text_has_the_logits_of_its_part_in_a_longer_one() -> None:
    model = randomised(make())
    ids = ids_bt()
    torch.testing.assert_close(model(ids[:, :7]), model(ids)[:, :7], rtol=1e-10, atol=1e-10)


def test_sequences_of_a_batch_do_not_see_each_other() -> None:
    model = randomised(make())
    ids = ids_bt()
    torch.testing.assert_close(model(ids)[1:2], model(ids[1:2]), rtol=1e-10, atol=1e-10)


def test_cross_entropy_is_the_mean_of_minus_log_softmax() -> None:
    logits_btv, targets_bt = torch.randn(2, 5, VOCABULARY), ids_bt(2, 5)
    shares = logits_btv.exp() / logits_btv.exp().sum(-1, keepdim=True)
    picked = [float(shares[b, t, targets_bt[b, t]].log()) for b in range(2) for t in range(5)]
    assert float(cross_entropy(logits_btv, targets_bt)) == pytest.approx(
        -sum(picked) / 10, rel=1e-5
    )


def test_cross_entropy_computes_in_float32_whatever_the_logits_are() -> None:
    logits_btv, targets_bt = torch.randn(2, 5, VOCABULARY).bfloat16(), ids_bt(2, 5)
    loss = cross_entropy(logits_btv, targets_bt)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits_btv.float(), targets_bt))


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "count"),
    [("tiny", 437_888), ("small", 3_241_728), ("medium", 10_770_816), ("nanogpt-cpu", 804_096)],
)
def test_a_preset_has_the_parameters_its_source_states(preset: str, count: int) -> None:
    with torch.device("meta"):
        model = GPT(ModelConfig(**PRESETS[preset]["model"]), vocab_size=65)
    assert model.parameter_count() == count


def test_the_head_is_the_token_embedding() -> None:
    model = make()
    assert not [name for name, _ in model.named_parameters() if "head" in name]
    model(ids_bt()).sum().backward()
    unused = [token for token in range(VOCABULARY) if token not in (ids := ids_bt(1, 2))]
    model.zero_grad()
    model(ids).square().sum().backward()
    assert (model.token_embedding.weight.grad[unused] != 0).all(), "reached through the head alone"


def test_a_bias_key_gives_biases_everywhere_or_nowhere() -> None:
    names = {name for name, _ in make(bias=False).named_parameters()}
    with_bias = {name for name, _ in make(bias=True).named_parameters()}
    assert not [name for name in names if "bias" in name]
    modules = {name.removesuffix(".weight") for name in names if "embedding" not in name}
    assert with_bias - names == {f"{module}.bias" for module in modules}


# --- initial weights ------------------------------------------------------------------------------


def test_the_initial_loss_is_that_of_guessing() -> None:
    model, ids = make().eval(), ids_bt(64)
    loss = cross_entropy(model(ids), torch.randint(VOCABULARY, ids.shape)).item()
    assert loss == pytest.approx(math.log(VOCABULARY), abs=0.03)


def test_initial_weights_have_the_spread_of_gpt2_and_less_where_a_branch_joins_the_stream() -> None:
    model = make(n_embd=128, n_layer=8, init_std=0.03, block_size=200)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        joins = name.endswith(("attention.proj.weight", "mlp.down.weight"))
        expected = 0.03 / math.sqrt(2 * 8) if joins else 0.03
        assert float(weight.std()) == pytest.approx(expected, rel=0.06), name
        assert abs(float(weight.mean())) < 0.05 * expected, name


def test_initial_norms_are_one_and_biases_zero() -> None:
    for name, weight in make(bias=True).named_parameters():
        if weight.dim() == 1:
            assert (weight == (0 if name.endswith("bias") else 1)).all(), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    torch.manual_seed(1)
    first = make(seed=3)
    torch.manual_seed(2)
    again, other = make(seed=3), make(seed=4)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        assert weight.dim() < 2 or not torch.equal(weight, other.state_dict()[name]), name


# --- dropout --------------------------------------------------------------------------------------


def test_dropout_is_off_in_eval_mode() -> None:
    model = randomised(make(dropout=0.5))
    ids = ids_bt()
    expected = gpt2(ids, model.state_dict(), SHAPE["n_layer"], SHAPE["n_head"])
    torch.testing.assert_close(model(ids), expected, rtol=1e-9, atol=1e-9)


def dropped(module: torch.nn.Module, x_btd: Tensor) -> float:
    """The share of outputs that are exactly 0."""
    return float((module(x_btd) == 0).double().mean())


@pytest.mark.parametrize("kind", [CausalSelfAttention, MLP])
def test_a_branch_drops_the_configured_share_while_training(kind: type) -> None:
    module = randomised(kind(ModelConfig(**(SHAPE | {"dropout": 0.3})))).train()
    x_btd = torch.randn(20, 12, 32, dtype=torch.float64)
    assert dropped(module, x_btd) == pytest.approx(0.3, abs=0.03)
    assert dropped(module.eval(), x_btd) == 0


def test_attention_shares_are_dropped_while_training() -> None:
    module = randomised(CausalSelfAttention(ModelConfig(**(SHAPE | {"dropout": 0.3})))).train()
    with torch.no_grad():
        module.proj.weight.copy_(torch.eye(32))
    # A first position attends to itself alone: its head is there, scaled, or dropped as a whole.
    y_bhk = module(torch.randn(500, 1, 32, dtype=torch.float64)).view(500, 4, 8)
    assert float((y_bhk == 0).all(-1).double().mean()) == pytest.approx(0.3, abs=0.05)


def test_embeddings_are_dropped_while_training() -> None:
    model = randomised(make(dropout=0.3)).train()
    streams: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
    model(ids_bt(20))
    assert float((streams[0] == 0).double().mean()) == pytest.approx(0.3, abs=0.03)
