"""What the model computes of a few new tokens, as plain loops that Numba compiles for this machine.

Token by token a small model would spend its time on calls, not on arithmetic, and a larger one on
getting its weights from memory. Here the whole model is one call, and each row of a matrix is met
once, in the order in which it lies. The formulas are those of gpt/model.py and gpt/functional.py,
the three blocks stand side by side as they do there, and the tests hold them to it. For inference
alone.

The first use on a machine compiles for some seconds; the result is kept beside this file, or in
NUMBA_CACHE_DIR.

Shapes: l layers, b sequences, t new positions, n = b t, d = n_embd, h heads, k = d / h, s positions
so far, c = k / 2, i inputs, o outputs, v = vocab_size.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]
# Of each layer a matrix (l, o, i) of float32 or int8, what each of its rows is multiplied with
# (l, o), and the bias (l, o).
Linear = tuple[NDArray[Any], Array, Array]
# A block's four matrices: queries, keys and values; projection; up; down.
Linears = tuple[Linear, Linear, Linear, Linear]
# Of each layer the weight (l, d) and bias (l, d) of a LayerNorm.
Norm = tuple[Array, Array]

Function = TypeVar("Function", bound=Callable[..., Any])

ZERO, ONE = np.float32(0), np.float32(1)
EPS = np.float32(np.finfo(np.float32).eps)
LAYER_NORM_EPS = np.float32(1e-5)
GELU_SLOPE = np.float32(2 * math.sqrt(2 / math.pi))
GELU_CUBE = np.float32(0.044715)

# Sums may be made in any order, as in any product of matrices; not a number stays what it is.
_OPTIONS: dict[str, Any] = {
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract"},
    "nogil": True,  # so that two threads may each write texts of their own
}


def _compiled(function: Function) -> Function:
    try:
        compiled: Function = njit(function, cache=True, **_OPTIONS)
    except RuntimeError:  # neither here nor at home is there a folder to keep it in
        compiled = njit(function, **_OPTIONS)
    return compiled


# --- products -------------------------------------------------------------------------------------


@_compiled
def _linear(x_ni: Array, linear: Linear, layer: int) -> Array:
    weights_loi, scales_lo, biases_lo = linear
    weight_oi, scale_o, bias_o = weights_loi[layer], scales_lo[layer], biases_lo[layer]
    count, outputs = len(x_ni), len(weight_oi)
    y_no = np.empty((count, outputs), np.float32)
    fours_n, fours_o = count // 4 * 4, outputs // 4 * 4
    if fours_n:
        rows_4i = np.empty((4, x_ni.shape[1]), np.float32)
        for o in range(0, fours_o, 4):
            # From memory in the order in which they lie; four rows at a time come slower.
            for row in range(4):
                for i in range(x_ni.shape[1]):
                    rows_4i[row, i] = weight_oi[o + row, i]
            for n in range(0, fours_n, 4):
                _four_by_four(x_ni, n, rows_4i, y_no, o)
    for o in range(outputs):
        for n in range(fours_n if o < fours_o else 0, count):
            total = ZERO
            for i in range(x_ni.shape[1]):
                total += np.float32(weight_oi[o, i]) * x_ni[n, i]
            y_no[n, o] = total
    for n in range(count):
        for o in range(outputs):
            y_no[n, o] = y_no[n, o] * scale_o[o] + bias_o[o]
    return y_no


@_compiled
def _four_by_four(x_ni: Array, n: int, rows_4i: Array, y_no: Array, o: int) -> None:
    """Four outputs from `o` on of four positions from `n` on: each number fetched serves four."""
    (a0, a1, a2, a3), (b0, b1, b2, b3) = (ZERO, ZERO, ZERO, ZERO), (ZERO, ZERO, ZERO, ZERO)
    (c0, c1, c2, c3), (d0, d1, d2, d3) = (ZERO, ZERO, ZERO, ZERO), (ZERO, ZERO, ZERO, ZERO)
    for i in range(x_ni.shape[1]):
        x0, x1, x2, x3 = x_ni[n, i], x_ni[n + 1, i], x_ni[n + 2, i], x_ni[n + 3, i]
        w0, w1, w2, w3 = rows_4i[0, i], rows_4i[1, i], rows_4i[2, i], rows_4i[3, i]
        a0, a1, a2, a3 = a0 + x0 * w0, a1 + x0 * w1, a2 + x0 * w2, a3 + x0 * w3
        b0, b1, b2, b3 = b0 + x1 * w0, b1 + x1 * w1, b2 + x1 * w2, b3 + x1 * w3
        c0, c1, c2, c3 = c0 + x2 * w0, c1 + x2 * w1, c2 + x2 * w2, c3 + x2 * w3
        d0, d1, d2, d3 = d0 + x3 * w0, d1 + x3 * w1, d2 + x3 * w2, d3 + x3 * w3
    y_no[n, o], y_no[n, o + 1], y_no[n, o + 2], y_no[n, o + 3] = a0, a1, a2, a3
    y_no[n + 1, o], y_no[n + 1, o + 1], y_no[n + 1, o + 2], y_no[n + 1, o + 3] = b0, b1, b2, b3
    y_no[n + 2, o], y_no[n + 2, o + 1], y_no[n + 2, o + 2], y_no[n + 2, o + 3] = c0, c1, c2, c3
    y_no[n + 3, o], y_no[n + 3, o + 1], y_no[n + 3, o + 2], y_no[n + 3, o + 3] = d0, d1, d2, d3


# --- between them ---------------------------------------------------------------------------------


@_compiled
def _layer_norm(x_nd: Array, norm: Norm, layer: int) -> Array:
    weight_d, bias_d = norm[0][layer], norm[1][layer]
    y_nd = np.empty_like(x_nd)
    size = np.float32(x_nd.shape[1])
    for n in range(x_nd.shape[0]):
        mean = ZERO
        for d in range(x_nd.shape[1]):
            mean += x_nd[n, d]
        mean /= size
        variance = ZERO
        for d in range(x_nd.shape[1]):
            variance += (x_nd[n, d] - mean) ** 2
        scale = ONE / np.sqrt(variance / size + LAYER_NORM_EPS)
        for d in range(x_nd.shape[1]):
            y_nd[n, d] = (x_nd[n, d] - mean) * scale * weight_d[d] + bias_d[d]
    return y_nd


@_compiled
def _rms_scale(x_d: Array) -> np.float32:
    squares = ZERO
    for d in range(x_d.shape[0]):
        squares += x_d[d] * x_d[d]
    scale: np.float32 = ONE / np.sqrt(squares / np.float32(x_d.shape[0]) + EPS)
    return scale


@_compiled
def _rms_norm(x_nd: Array) -> Array:
    y_nd = np.empty_like(x_nd)
    for n in range(x_nd.shape[0]):
        scale = _rms_scale(x_nd[n])
        for d in range(x_nd.shape[1]):
            y_nd[n, d] = x_nd[n, d] * scale
    return y_nd


@_compiled
def _normalise_and_turn(x_k: Array, turn_2c: Array) -> None:
    """Normalises x (k,) and turns pair c by the angle whose cosine and sine (2, c) are given."""
    scale = _rms_scale(x_k)
    for c in range(turn_2c.shape[1]):
        real, imaginary = x_k[2 * c] * scale, x_k[2 * c + 1] * scale
        x_k[2 * c] = real * turn_2c[0, c] - imaginary * turn_2c[1, c]
        x_k[2 * c + 1] = real * turn_2c[1, c] + imaginary * turn_2c[0, c]


@_compiled
def _attend(qkv_no: Array, kv_bl2hsk: Array, layer: int, start: int) -> Array:
    """Writes the new keys and values to their places; what the new positions see, (n, d)."""
    batch, _, _, heads, _, size = kv_bl2hsk.shape
    count = len(qkv_no) // batch
    qkv_n3hk = qkv_no.reshape(len(qkv_no), 3, heads, size)
    y_nhk = np.zeros((len(qkv_no), heads, size), np.float32)
    weights_s = np.empty(start + count, np.float32)
    shrink = ONE / np.sqrt(np.float32(size))
    for n in range(len(qkv_no)):
        b, position = n // count, start + n % count
        for h in range(heads):
            query_k = qkv_n3hk[n, 0, h]
            keys_sk, values_sk = kv_bl2hsk[b, layer, 0, h], kv_bl2hsk[b, layer, 1, h]
            keys_sk[position] = qkv_n3hk[n, 1, h]
            values_sk[position] = qkv_n3hk[n, 2, h]
            largest = np.float32(-np.inf)
            for s in range(position + 1):
                score = ZERO
                for k in range(size):
                    score += query_k[k] * keys_sk[s, k]
                weights_s[s] = score * shrink
                largest = max(largest, weights_s[s])
            total = ZERO
            for s in range(position + 1):
                # Below the largest, so that none overflows.
                weights_s[s] = np.exp(weights_s[s] - largest)
                total += weights_s[s]
            for s in range(position + 1):
                weight = weights_s[s] / total
                for k in range(size):
                    y_nhk[n, h, k] += weight * values_sk[s, k]
    return y_nhk.reshape(len(qkv_no), heads * size)


# --- blocks ---------------------------------------------------------------------------------------


@_compiled
def _original_block(
    x_nd: Array,
    kv_bl2hsk: Array,
    start: int,
    turns_t2c: Array,
    layer: int,
    linears: Linears,
    norms: tuple[Norm, Norm],
) -> Array:
    """The stream (n, d) after a block, which adds the positions' keys and values to `kv_bl2hsk`."""
    qkv, proj, up, down = linears
    seen_nd = _attend(_linear(x_nd, qkv, layer), kv_bl2hsk, layer, start)
    x_nd = _layer_norm(x_nd + _linear(seen_nd, proj, layer), norms[0], layer)
    hidden_ni = np.maximum(_linear(x_nd, up, layer), ZERO)
    return _layer_norm(x_nd + _linear(hidden_ni, down, layer), norms[1], layer)


@_compiled
def _gpt2_block(
    x_nd: Array,
    kv_bl2hsk: Array,
    start: int,
    turns_t2c: Array,
    layer: int,
    linears: Linears,
    norms: tuple[Norm, Norm],
) -> Array:
    """The stream (n, d) after a block, which adds the positions' keys and values to `kv_bl2hsk`."""
    qkv, proj, up, down = linears
    qkv_no = _linear(_layer_norm(x_nd, norms[0], layer), qkv, layer)
    x_nd = x_nd + _linear(_attend(qkv_no, kv_bl2hsk, layer, start), proj, layer)
    hidden_ni = _linear(_layer_norm(x_nd, norms[1], layer), up, layer)
    for n in range(hidden_ni.shape[0]):
        for i in range(hidden_ni.shape[1]):
            x = hidden_ni[n, i]
            # x sigmoid(u), which is GELU by its tanh; u may go to infinity.
            u = GELU_SLOPE * (x + GELU_CUBE * x * x * x)
            hidden_ni[n, i] = x / (ONE + np.exp(-u))
    return x_nd + _linear(hidden_ni, down, layer)


@_compiled
def _modern_block(
    x_nd: Array,
    kv_bl2hsk: Array,
    start: int,
    turns_t2c: Array,
    layer: int,
    linears: Linears,
    norms: tuple[Norm, Norm],
) -> Array:
    """The stream (n, d) after a block, which adds the positions' keys and values to `kv_bl2hsk`."""
    qkv, proj, up, down = linears
    qkv_no = _linear(_rms_norm(x_nd), qkv, layer)
    batch, heads, size = len(kv_bl2hsk), kv_bl2hsk.shape[3], kv_bl2hsk.shape[5]
    for n in range(len(qkv_no)):
        turn_2c = turns_t2c[start + n % (len(qkv_no) // batch)]
        # The heads' queries, then their keys; the values behind them stay.
        for head in range(2 * heads):
            _normalise_and_turn(qkv_no[n, head * size : (head + 1) * size], turn_2c)
    x_nd = x_nd + _linear(_attend(qkv_no, kv_bl2hsk, layer, start), proj, layer)
    hidden_ni = _linear(_rms_norm(x_nd), up, layer)
    hidden_ni = np.maximum(hidden_ni, ZERO) ** 2
    return x_nd + _linear(hidden_ni, down, layer)


# --- models ---------------------------------------------------------------------------------------


@_compiled
def _last(x_nd: Array, x_btd: Array) -> Array:
    """The last position of each sequence, (b, d)."""
    last_bd = np.empty((len(x_btd), x_nd.shape[1]), np.float32)
    for b in range(len(x_btd)):
        last_bd[b] = x_nd[(b + 1) * x_btd.shape[1] - 1]
    return last_bd


@_compiled
def original(
    x_btd: Array,
    kv_bl2hsk: Array,
    start: int,
    turns_t2c: Array,
    linears: Linears,
    norms: tuple[Norm, Norm],
    head: Linear,
    norm: Norm,
) -> Array:
    """The logits (b, v) after the last of the embedded tokens `x_btd`, which begin at `start`.

    `kv_bl2hsk` holds the keys and the values of the positions before, and gets those of these.
    `norm`, the one before the head, is not used.
    """
    x_nd = x_btd.reshape(-1, x_btd.shape[2])
    for layer in range(kv_bl2hsk.shape[1]):
        x_nd = _original_block(x_nd, kv_bl2hsk, start, turns_t2c, layer, linears, norms)
    return _linear(_last(x_nd, x_btd), head, 0)


@_compiled
def gpt2(
    x_btd: Array,
    kv_bl2hsk: Array,
    start: int,
    turns_t2c: Array,
    linears: Linears,
    norms: tuple[Norm, Norm],
    head: Linear,
    norm: Norm,
) -> Array:
    """As `original`, with a norm before the head."""
    x_nd = x_btd.reshape(-1, x_btd.shape[2])
    for layer in range(kv_bl2hsk.shape[1]):
        x_nd = _gpt2_block(x_nd, kv_bl2hsk, start, turns_t2c, layer, linears, norms)
    return _linear(_layer_norm(_last(x_nd, x_btd), norm, 0), head, 0)


@_compiled
def modern(
    x_btd: Array,
    kv_bl2hsk: Array,
    start: int,
    turns_t2c: Array,
    linears: Linears,
    norms: tuple[Norm, Norm],
    head: Linear,
    norm: Norm,
) -> Array:
    """As `original`; `turns_t2c` are the cosines and sines of each position's rotation."""
    x_nd = x_btd.reshape(-1, x_btd.shape[2])
    for layer in range(kv_bl2hsk.shape[1]):
        x_nd = _modern_block(x_nd, kv_bl2hsk, start, turns_t2c, layer, linears, norms)
    return _linear(_rms_norm(_last(x_nd, x_btd)), head, 0)
