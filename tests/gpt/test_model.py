"""The models against their formulas, written out by hand, and against the numbers of peers.

Comparisons run in float64, where a right answer and a wrong one cannot be mistaken for rounding.
"""

import math
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from gpt.config import ModelConfig, first_line
from gpt.decoding.decoder import KVCacheDecoder
from gpt.extra_embeddings import LinePosition, NgramEmbedding
from gpt.kv_cache import KVCache
from gpt.model import (
    GPT,
    MLP,
    CausalSelfAttention,
    GPT2Block,
    ModernBlock,
    apply_rotary_emb,
    cross_entropy,
    gelu,
    position_cos_sin,
    relu_squared,
)
from gpt.model_source import count_parameters
from gpt.presets import PRESETS

VOCABULARY = 17
SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 12}
ARCHITECTURES = ["original", "gpt2", "modern"]


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


LINE_BREAKS = (3, 5)


def make(seed: int = 0, **changes: Any) -> GPT:
    return GPT(ModelConfig(**(SHAPE | changes)), VOCABULARY, seed, LINE_BREAKS)


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


def attend(q: Tensor, k: Tensor, v: Tensor, n_head: int) -> Tensor:
    """softmax(q k' / sqrt(k)) v for each head and position on its own; all (b, t, d)."""
    _, t, d = q.shape
    size = d // n_head
    y_btd = torch.zeros_like(q)
    for head in range(n_head):
        own = slice(head * size, (head + 1) * size)
        for now in range(t):
            scores_bt = (k[:, : now + 1, own] * q[:, now : now + 1, own]).sum(-1) / math.sqrt(size)
            shares_bt = scores_bt.exp() / scores_bt.exp().sum(-1, keepdim=True)
            y_btd[:, now, own] = (shares_bt[..., None] * v[:, : now + 1, own]).sum(1)
    return y_btd


def attention(x_btd: Tensor, weights: dict[str, Tensor], name: str, n_head: int) -> Tensor:
    q, k, v = linear(x_btd, weights, f"{name}qkv").split(x_btd.shape[-1], dim=-1)
    return linear(attend(q, k, v, n_head), weights, f"{name}proj")


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


def original(ids: Tensor, weights: dict[str, Tensor], n_layer: int, n_head: int) -> Tensor:
    """Logits of the decoder of Vaswani et al. 2017 without an encoder: post-norm, sinusoidal."""
    table = weights["token_embedding.weight"]
    d = table.shape[1]
    x = table[ids] * math.sqrt(d)
    for position in range(ids.shape[1]):
        for i in range(d // 2):
            angle = position / 10_000 ** (2 * i / d)
            x[:, position, 2 * i] += math.sin(angle)
            x[:, position, 2 * i + 1] += math.cos(angle)
    for layer in range(n_layer):
        at = f"blocks.{layer}."
        x = layer_norm(x + attention(x, weights, f"{at}attention.", n_head), weights, f"{at}norm_1")
        hidden = linear(x, weights, f"{at}mlp.up").clamp(min=0)
        x = layer_norm(x + linear(hidden, weights, f"{at}mlp.down"), weights, f"{at}norm_2")
    return x @ table.T


def rms_norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 2.0**-23).sqrt()


def rotated(x_btd: Tensor, n_head: int) -> Tensor:
    """Each head's pair (2i, 2i + 1), as a complex number, times e^(j t / 10000^(2 i / size))."""
    b, t, d = x_btd.shape
    size = d // n_head
    x_bthk = rms_norm(x_btd.reshape(b, t, n_head, size))
    pairs = torch.complex(x_bthk[..., ::2], x_bthk[..., 1::2])
    speeds = 10_000.0 ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
    angles = torch.arange(t, dtype=torch.float64)[:, None] * speeds
    pairs = pairs * torch.polar(torch.ones_like(angles), angles)[:, None, :]
    return torch.stack([pairs.real, pairs.imag], dim=-1).reshape(b, t, d)


def rotary_attention(x_btd: Tensor, weights: dict[str, Tensor], name: str, n_head: int) -> Tensor:
    q, k, v = linear(x_btd, weights, f"{name}qkv").split(x_btd.shape[-1], dim=-1)
    y_btd = attend(rotated(q, n_head), rotated(k, n_head), v, n_head)
    return linear(y_btd, weights, f"{name}proj")


def modern(ids: Tensor, weights: dict[str, Tensor], n_layer: int, n_head: int) -> Tensor:
    """Logits of the modern architecture: rotary, RMSNorm without gain, squared ReLU, own head."""
    x = rms_norm(weights["token_embedding.weight"][ids])
    for layer in range(n_layer):
        at = f"blocks.{layer}."
        x = x + rotary_attention(rms_norm(x), weights, f"{at}attention.", n_head)
        hidden = linear(rms_norm(x), weights, f"{at}mlp.up").clamp(min=0) ** 2
        x = x + linear(hidden, weights, f"{at}mlp.down")
    return linear(rms_norm(x), weights, "head")


REFERENCE = {"original": original, "gpt2": gpt2, "modern": modern}
# Sines and cosines of the positions are float32.
TOLERANCE = {"original": 1e-5, "gpt2": 1e-9, "modern": 1e-5}


def rope(num_positions: int, size: int) -> tuple[Tensor, Tensor]:
    return position_cos_sin(num_positions, size, torch.float64)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("t", [1, 5, 12])
def test_logits_are_those_of_the_formulas(architecture: str, bias: bool, t: int) -> None:
    model = randomised(make(architecture=architecture, bias=bias))
    ids = ids_bt(t=t)
    expected = REFERENCE[architecture](ids, model.state_dict(), SHAPE["n_layer"], SHAPE["n_head"])
    error = (model(ids) - expected).abs().max() / expected.abs().max()
    assert error < TOLERANCE[architecture]


@pytest.mark.parametrize("n_head", [1, 2, 8])
def test_attention_is_the_formula_written_out(n_head: int) -> None:
    module = randomised(CausalSelfAttention(ModelConfig(**(SHAPE | {"n_head": n_head}))))
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    expected = attention(x_btd, module.state_dict(), "", n_head)
    torch.testing.assert_close(module(x_btd), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n_head", [1, 2, 8])
def test_rotary_attention_is_the_formula_written_out(n_head: int) -> None:
    module = randomised(CausalSelfAttention(ModelConfig(**(SHAPE | {"n_head": n_head}))))
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    expected = rotary_attention(x_btd, module.state_dict(), "", n_head)
    y = module(x_btd, rope(9, 32 // n_head))
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def test_scores_of_rotated_queries_and_keys_depend_on_their_distance_alone() -> None:
    q, k = torch.randn(2, 8, dtype=torch.float64)
    q_te, k_te = (apply_rotary_emb(x.repeat(1, 50, 1, 1), *rope(50, 8))[0, :, 0] for x in (q, k))
    scores = q_te @ k_te.T
    for distance in range(-20, 20):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[0].std() > 0.1, "and the distance does matter"


@pytest.mark.parametrize("size", [2, 64, 4096])
def test_tables_of_positions_never_make_a_call_that_two_threads_share(size: int) -> None:
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        cos, sin = Tensor.cos, Tensor.sin
        patch.setattr(Tensor, "cos", lambda x: calls.append(x.numel()) or cos(x))
        patch.setattr(Tensor, "sin", lambda x: calls.append(x.numel()) or sin(x))
        tables = position_cos_sin(300, size)
    assert max(calls) <= max(1024, size // 2)
    angles = torch.arange(300.0)[:, None] * 10_000.0 ** (-torch.arange(0, size, 2.0) / size)
    for table, expected in zip(tables, (angles.double().cos(), angles.double().sin()), strict=True):
        torch.testing.assert_close(table, expected.float(), rtol=0, atol=1e-7)


def test_the_mlp_has_gelu_in_the_tanh_form() -> None:
    module = randomised(MLP(ModelConfig(**SHAPE), gelu))
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    weights = module.state_dict()
    up = linear(x_btd, weights, "up")
    torch.testing.assert_close(
        module(x_btd), linear(gelu_tanh(up), weights, "down"), atol=1e-12, rtol=0
    )
    erf_form = linear(0.5 * up * (1 + torch.erf(up / math.sqrt(2))), weights, "down")
    assert (module(x_btd) - erf_form).abs().max() > 1e-5, "the two forms can be told apart"


def test_the_modern_mlp_has_a_squared_relu() -> None:
    module = randomised(MLP(ModelConfig(**SHAPE), relu_squared))
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    weights = module.state_dict()
    up = linear(x_btd, weights, "up")
    expected = linear(up * up * (up > 0), weights, "down")
    torch.testing.assert_close(module(x_btd), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [GPT2Block, ModernBlock])
def test_a_block_whose_branches_are_zero_leaves_the_residual_stream_as_it_is(kind: type) -> None:
    block = randomised(kind(ModelConfig(**SHAPE)))
    with torch.no_grad():
        block.attention.proj.weight.zero_()
        block.mlp.down.weight.zero_()
    x_btd = torch.randn(2, 9, 32, dtype=torch.float64)
    assert torch.equal(block(x_btd, rope(9, 8) if kind is ModernBlock else None), x_btd)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_see_nothing_of_what_comes_after(architecture: str) -> None:
    model = randomised(make(architecture=architecture))
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_shorter_text_has_the_logits_of_its_part_in_a_longer_one(architecture: str) -> None:
    model = randomised(make(architecture=architecture))
    ids = ids_bt()
    torch.testing.assert_close(model(ids[:, :7]), model(ids)[:, :7], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sequences_of_a_batch_do_not_see_each_other(architecture: str) -> None:
    model = randomised(make(architecture=architecture))
    ids = ids_bt()
    torch.testing.assert_close(model(ids)[1:2], model(ids[1:2]), rtol=1e-10, atol=1e-10)


def test_cross_entropy_is_the_mean_of_minus_log_softmax() -> None:
    logits_btv, targets_bt = torch.randn(2, 5, VOCABULARY), ids_bt(2, 5)
    probs = logits_btv.exp() / logits_btv.exp().sum(-1, keepdim=True)
    picked = [float(probs[b, t, targets_bt[b, t]].log()) for b in range(2) for t in range(5)]
    assert float(cross_entropy(logits_btv, targets_bt)) == pytest.approx(
        -sum(picked) / 10, rel=1e-5
    )


def test_cross_entropy_computes_in_float32_whatever_the_logits_are() -> None:
    logits_btv, targets_bt = torch.randn(2, 5, VOCABULARY).bfloat16(), ids_bt(2, 5)
    loss = cross_entropy(logits_btv, targets_bt)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, cross_entropy(logits_btv.float(), targets_bt))


# --- n-gram embeddings ----------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [5, 18**2, 18**3])
def test_an_ngram_embedding_has_the_rows_of_the_last_two_to_five_side_by_side(rows: int) -> None:
    module = randomised(NgramEmbedding(ModelConfig(**SHAPE, ngram_rows=rows), VOCABULARY))
    ids, symbols = ids_bt(2, 8), VOCABULARY + 1
    y = module(ids)
    for b in range(2):
        digits = [0, 0, 0, 0] + [int(token) + 1 for token in ids[b]]
        for t in range(8):
            parts = []
            for table, size in zip(module.tables, (2, 3, 4, 5), strict=True):
                number = 0
                for digit in digits[t + 5 - size : t + 5]:
                    number = number * symbols + digit
                parts.append(table.weight[number % rows])
            assert torch.equal(y[b, t], torch.cat(parts))


@pytest.mark.parametrize("width", [3, 6, 8, 13])
def test_ngram_embeddings_fill_any_width(width: int) -> None:
    config = ModelConfig(**SHAPE | {"n_embd": width, "n_head": 1}, ngram_rows=7)
    assert NgramEmbedding(config, VOCABULARY)(ids_bt(2, 6)).shape == (2, 6, width)


def test_many_symbols_overflow_no_row_of_an_ngram() -> None:
    symbols = 200_000
    module = NgramEmbedding(ModelConfig(**SHAPE, ngram_rows=2**24 - 3), symbols)
    seen: list[int] = []
    for table in module.tables:
        table.forward = lambda rows: seen.append(int(rows[0, -1])) or torch.zeros(1, 6, 1)  # type: ignore[method-assign, func-returns-value]
    module(torch.full((1, 6), symbols - 1))
    number = [sum(symbols * (symbols + 1) ** k for k in range(size)) for size in (2, 3, 4, 5)]
    assert seen == [n % (2**24 - 3) for n in number]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ngram_embeddings_are_added_to_those_of_the_tokens(architecture: str) -> None:
    model = make(architecture=architecture, ngram_rows=50).double().eval()
    plain = make(architecture=architecture).double().eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    ids = ids_bt()
    assert not torch.allclose(model.embed(ids), plain.embed(ids))
    with torch.no_grad():
        for table in model.ngram_embedding.tables:
            table.weight.zero_()
    assert torch.equal(model(ids), plain(ids))


# --- places in lines ------------------------------------------------------------------------------


def test_a_place_in_a_line_is_its_column_and_the_sums_since_the_last_break() -> None:
    config = ModelConfig(**SHAPE, architecture="modern", line_sums=4)
    module, x_btd = randomised(LinePosition(config, LINE_BREAKS)), torch.randn(2, 7, 32).double()
    ids = torch.tensor([[1, 3, 2, 2, 5, 1, 1], [5, 3, 1, 1, 1, 1, 1]])
    breaks = [[None, 1, 1, 1, 4, 4, 4], [0, 1, 1, 1, 1, 1, 1]]
    values_btn = x_btd @ module.values.weight.T
    y = module(x_btd, ids)
    for b in range(2):
        for t in range(7):
            last = breaks[b][t]
            expected = module.columns.weight[80 if last is None else t - last]
            for position in range(t + 1 if last is None else last + 1, t + 1):
                expected = expected + module.out.weight @ values_btn[b, position]
            torch.testing.assert_close(y[b, t], expected)


def test_columns_beyond_the_last_are_one() -> None:
    config = ModelConfig(**SHAPE, architecture="modern", line_sums=4)
    module, ids = LinePosition(config, LINE_BREAKS), torch.ones(1, 100, dtype=torch.int64)
    ids[0, 0] = LINE_BREAKS[0]
    with torch.no_grad():
        module.out.weight.zero_()
        y = module(torch.randn(1, 100, 32), ids)[0]
    assert torch.equal(y[:80], module.columns.weight[:80])
    assert torch.equal(y[80:], module.columns.weight[79].expand(20, -1))


def test_a_place_in_a_line_is_added_to_the_normalised_embedding() -> None:
    ids = torch.tensor([[1, 3, 2, 2, 5, 1, 1]])
    model, plain = (make(architecture="modern", line_sums=n).double().eval() for n in (4, 0))
    plain.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        model.line_position.out.weight.normal_()
        x_btd = plain.embed(ids)
        x_btd = x_btd + model.line_position(x_btd, ids)
        expected = x_btd / x_btd.square().mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(model.embed(ids), expected)


def test_a_model_without_line_breaks_never_begins_a_line() -> None:
    config = ModelConfig(**SHAPE, architecture="modern", line_sums=4)
    model = GPT(config, VOCABULARY, line_breaks=())
    with torch.no_grad():
        model.line_position.out.weight.normal_()
    constant_btd = model.line_position(torch.randn(1, 6, 32), ids_bt(1, 6))
    assert torch.equal(constant_btd, constant_btd[:, :1].expand(-1, 6, -1))


@pytest.mark.parametrize("architecture", ["original", "gpt2"])
def test_places_in_lines_belong_to_the_modern_architecture(architecture: str) -> None:
    with pytest.raises(ValueError, match=r"line_sums = 4: model\.architecture"):
        make(architecture=architecture, line_sums=4)


# --- with a cache ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extras",
    [
        *({"architecture": architecture} for architecture in ARCHITECTURES),
        *({"architecture": architecture, "ngram_rows": 100} for architecture in ARCHITECTURES),
        {"architecture": "modern", "line_sums": 4},
    ],
)
@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 1, 5], [1, 11], [3, 4, 5]])
def test_reading_in_pieces_gives_the_logits_of_reading_at_once(
    extras: dict[str, Any], chunks: list[int]
) -> None:
    model = randomised(make(**extras))
    ids, cache = ids_bt(), KVCache(2, 12)
    # A line that continues in the next chunk, one that begins there, one without a beginning.
    ids[0, 1], ids[1, 6], ids[2] = 3, 5, 1
    with torch.no_grad():
        y = torch.cat([model(chunk, cache) for chunk in ids.split(chunks, dim=1)], dim=1)
        assert cache.length == 12
        torch.testing.assert_close(y, model(ids), rtol=1e-5, atol=1e-5)


class Doubled(GPT):
    """A model of one's own, made from ours."""

    def forward(self, ids_bt: Tensor, cache: KVCache | None = None) -> Tensor:
        return 2 * super().forward(ids_bt, cache)


def test_a_model_derived_from_ours_is_asked_itself() -> None:
    model = randomised(Doubled(make().config, VOCABULARY))
    decoder, ids = KVCacheDecoder(model), ids_bt()
    with torch.inference_mode():
        expected = model(ids)
        torch.testing.assert_close(decoder.read(ids[:, :4]), expected[:, 3])
        torch.testing.assert_close(decoder.read(ids[:, 4:5]), expected[:, 4])


def test_a_cleared_cache_remembers_nothing() -> None:
    extras = {"architecture": "modern", "ngram_rows": 100, "line_sums": 4}
    model, cache = randomised(make(**extras)), KVCache(2, 12)
    with torch.no_grad():
        model(ids_bt(), cache)
        cache.clear()
        ids = ids_bt()
        torch.testing.assert_close(model(ids[:, :4], cache), model(ids[:, :4]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_more_than_a_block_is_refused(architecture: str) -> None:
    model, cache = randomised(make(architecture=architecture)), KVCache(2, 12)
    with torch.no_grad():
        with pytest.raises(ValueError, match="13 positions; block_size is 12"):
            model(ids_bt(t=13))
        model(ids_bt(t=12), cache)
        with pytest.raises(ValueError, match="13 positions; block_size is 12"):
            model(ids_bt(t=1), cache)


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "count"),
    [("tiny", 437_888), ("small", 3_241_728), ("medium", 10_770_816), ("nanogpt-cpu", 804_096)],
)
def test_a_preset_has_the_parameters_its_source_states(preset: str, count: int) -> None:
    with torch.device("meta"):
        model = GPT(ModelConfig(**PRESETS[preset]["model"]), vocab_size=65)
    assert count_parameters(model) == count


def test_the_head_of_gpt2_is_the_token_embedding() -> None:
    model, ids = make(), ids_bt(1, 2)
    unused = [token for token in range(VOCABULARY) if token not in ids]
    model(ids).square().sum().backward()
    assert (model.token_embedding.weight.grad[unused] != 0).any(-1).all(), "reached as the head"


def test_the_modern_head_is_its_own() -> None:
    model, ids = randomised(make(architecture="modern")), ids_bt(1, 2)
    unused = [token for token in range(VOCABULARY) if token not in ids]
    model(ids).square().sum().backward()
    assert (model.token_embedding.weight.grad[unused] == 0).all()
    assert (model.head.weight.grad[unused] != 0).any(-1).all()


@pytest.mark.parametrize("architecture", ["original", "modern"])
def test_tables_of_positions_are_in_no_checkpoint(architecture: str) -> None:
    model = make(architecture=architecture)
    names = set(model.state_dict())
    model(ids_bt())
    assert set(model.state_dict()) == names == {name for name, _ in model.named_parameters()}


@given(
    architecture=st.sampled_from(ARCHITECTURES),
    n_head=st.integers(1, 16),
    n_embd=st.integers(1, 300),
)
def test_a_width_that_does_not_fit_is_refused_with_the_nearest_that_does(
    architecture: str, n_head: int, n_embd: int
) -> None:
    def refusal(width: int) -> str:
        shape = {"architecture": architecture, "n_head": n_head, "n_embd": width}
        try:
            ModelConfig(n_layer=1, block_size=8, **shape)
        except ValidationError as error:
            return first_line(error)
        return ""

    if line := refusal(n_embd):
        near = int(line.rpartition("; use model.n_embd=")[2])
        assert not refusal(near)
        closer = range(1 - abs(near - n_embd), abs(near - n_embd))
        assert all(refusal(n_embd + by) for by in closer if n_embd + by > 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_bias_key_gives_linear_and_norm_layers_a_bias_or_none(architecture: str) -> None:
    names = {name for name, _ in make(architecture=architecture, bias=False).named_parameters()}
    with_bias = {name for name, _ in make(architecture=architecture, bias=True).named_parameters()}
    assert not [name for name in names if "bias" in name]
    modules = {name.removesuffix(".weight") for name in names}
    modules = {name for name in modules if "embedding" not in name and name != "head"}
    assert with_bias - names == {f"{module}.bias" for module in modules}


# --- initial weights ------------------------------------------------------------------------------


# The original's tied head sees a stream and embeddings of unit size, as the paper's did.
@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_the_initial_loss_is_that_of_a_uniform_distribution(architecture: str) -> None:
    model, ids = make(architecture=architecture).eval(), ids_bt(64)
    loss = cross_entropy(model(ids), torch.randint(VOCABULARY, ids.shape)).item()
    assert loss == pytest.approx(math.log(VOCABULARY), abs=0.03)


def test_initial_weights_have_the_spread_of_gpt2_and_less_where_a_branch_joins_the_stream() -> None:
    model = make(n_embd=128, n_layer=8, init_std=0.03, block_size=200)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            continue
        joins = name.endswith(("attention.proj.weight", "mlp.down.weight"))
        expected = 0.03 / math.sqrt(2 * 8) if joins else 0.03
        assert weight.std().item() == pytest.approx(expected, rel=0.06), name
        assert abs(weight.mean().item()) < 0.05 * expected, name


def test_modern_branches_and_head_begin_at_zero_and_the_rest_does_not() -> None:
    model = make(architecture="modern", n_embd=128, init_std=0.03)
    for name, weight in model.named_parameters():
        zero = name.endswith(("proj.weight", "down.weight", "head.weight"))
        expected = 0.0 if zero else 0.03
        assert weight.std().item() == pytest.approx(expected, rel=0.06), name


def test_the_original_begins_with_matrices_of_glorot_and_embeddings_of_unit_length() -> None:
    model = make(architecture="original", n_embd=128)
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            expected = 128**-0.5 if "embedding" in name else math.sqrt(2 / sum(weight.shape))
            assert weight.std().item() == pytest.approx(expected, rel=0.06), name


def test_initial_norms_are_one_and_biases_zero() -> None:
    for name, weight in make(bias=True).named_parameters():
        if weight.dim() == 1:
            assert (weight == (0 if name.endswith("bias") else 1)).all(), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    torch.manual_seed(1)
    first = make(seed=3)
    torch.manual_seed(2)
    again, different = make(seed=3), make(seed=4)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
        assert weight.dim() < 2 or not torch.equal(weight, different.state_dict()[name]), name


# --- dropout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_is_off_in_eval_mode(architecture: str) -> None:
    model = randomised(make(architecture=architecture, dropout=0.5))
    ids = ids_bt()
    expected = REFERENCE[architecture](ids, model.state_dict(), SHAPE["n_layer"], SHAPE["n_head"])
    assert (model(ids) - expected).abs().max() / expected.abs().max() < TOLERANCE[architecture]


def branch(kind: str) -> Any:
    """A module with dropout 0.3, in training mode, and the rotary tables it may need put in."""
    config = ModelConfig(**(SHAPE | {"dropout": 0.3}))
    if kind == "mlp":
        return randomised(MLP(config, gelu)).train()
    module = randomised(CausalSelfAttention(config)).train()
    if kind == "rotary attention":
        module.forward = partial(module.forward, rope=rope(12, 8))
    return module


@pytest.mark.parametrize("kind", ["attention", "rotary attention", "mlp"])
def test_a_branch_drops_the_configured_share_while_training(kind: str) -> None:
    module = branch(kind)
    x_btd = torch.randn(20, 12, 32, dtype=torch.float64)
    assert float((module(x_btd) == 0).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert (module.eval()(x_btd) != 0).all()


@pytest.mark.parametrize("kind", ["attention", "rotary attention"])
def test_attention_shares_are_dropped_while_training(kind: str) -> None:
    module = branch(kind)
    with torch.no_grad():
        module.proj.weight.copy_(torch.eye(32))
    # A first position attends to itself alone: its head is there, scaled, or dropped as a whole.
    first_bhk = module(torch.randn(500, 12, 32, dtype=torch.float64))[:, 0].view(500, 4, 8)
    assert float((first_bhk == 0).all(-1).double().mean()) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_are_dropped_while_training(architecture: str) -> None:
    model = randomised(make(architecture=architecture, dropout=0.3)).train()
    streams: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: streams.append(inputs[0]))
    model(ids_bt(20))
    assert float((streams[0] == 0).double().mean()) == pytest.approx(0.3, abs=0.03)
