"""What the model computes of a single token, as plain loops that Numba compiles for the processor.

Token by token a small model would spend its time on calls, not on arithmetic, and a larger one on
getting its weights from memory. Here a block is one call, and each row of a matrix is met once, in
the order in which it lies. The formulas are those of gpt/model.py and gpt/functional.py, the three
blocks stand side by side as they do there, and the tests hold them to it. For inference alone.

The first use on a machine compiles for some seconds; the result is kept beside this file, or in
NUMBA_CACHE_DIR.

Shapes: b sequences, d = n_embd, h heads, k = d / h, s positions so far, i inputs, o outputs,
v = vocab_size.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float32]
# A matrix (o, i) of float32 or int8, what each of its rows is multiplied with (o,), the bias (o,).
Linear = tuple[NDArray[Any], Array, Array]
# Weight (d,) and bias (d,) of a LayerNorm.
Norm = tuple[Array, Array]

Function = TypeVar("Function", bound=Callable[..., Any])

ZERO, ONE = np.float32(0), np.float32(1)
EPS = np.float32(np.finfo(np.float32).eps)
LAYER_NORM_EPS = np.float32(1e-5)
GELU_SLOPE = np.float32(2 * math.sqrt(2 / math.pi))
GELU_CUBE = np.float32(0.044715)

# Sums may be made in any order, as in any product of matrices; not a number stays what it is.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}


def _compiled(function: Function) -> Function:
    try:
        compiled: Function = njit(function, cache=True, **_OPTIONS)
    except RuntimeError:  # neither here nor at home is there a folder to keep it in
        compiled = njit(function, **_OPTIONS)
    return compiled


# --- products -------------------------------------------------------------------------------------


@_compiled
def _linear(x_bi: Array, linear: Linear) -> Array:
    weight_oi, scale_o, bias_o = linear
    batch, inputs = x_bi.shape
    y_bo = np.empty((batch, len(weight_oi)), np.float32)
    fours = batch // 4 * 4
    for o in range(len(weight_oi)):
        # A weight that was fetched serves four sequences at a time.
        for b in range(0, fours, 4):
            sum_0, sum_1, sum_2, sum_3 = ZERO, ZERO, ZERO, ZERO
            for i in range(inputs):
                weight = np.float32(weight_oi[o, i])
                sum_0 += weight * x_bi[b, i]
                sum_1 += weight * x_bi[b + 1, i]
                sum_2 += weight * x_bi[b + 2, i]
                sum_3 += weight * x_bi[b + 3, i]
            y_bo[b, o], y_bo[b + 1, o], y_bo[b + 2, o], y_bo[b + 3, o] = sum_0, sum_1, sum_2, sum_3
        for b in range(fours, batch):
            total = ZERO
            for i in range(inputs):
                total += np.float32(weight_oi[o, i]) * x_bi[b, i]
            y_bo[b, o] = total
        for b in range(batch):
            y_bo[b, o] = y_bo[b, o] * scale_o[o] + bias_o[o]
    return y_bo


# --- between them ---------------------------------------------------------------------------------


@_compiled
def _layer_norm(x_bd: Array, norm: Norm) -> Array:
    weight_d, bias_d = norm
    y_bd = np.empty_like(x_bd)
    size = np.float32(x_bd.shape[1])
    for b in range(x_bd.shape[0]):
        mean = ZERO
        for d in range(x_bd.shape[1]):
            mean += x_bd[b, d]
        mean /= size
        variance = ZERO
        for d in range(x_bd.shape[1]):
            variance += (x_bd[b, d] - mean) ** 2
        scale = ONE / np.sqrt(variance / size + LAYER_NORM_EPS)
        for d in range(x_bd.shape[1]):
            y_bd[b, d] = (x_bd[b, d] - mean) * scale * weight_d[d] + bias_d[d]
    return y_bd


@_compiled
def _rms_scale(x_d: Array) -> np.float32:
    squares = ZERO
    for d in range(x_d.shape[0]):
        squares += x_d[d] * x_d[d]
    scale: np.float32 = ONE / np.sqrt(squares / np.float32(x_d.shape[0]) + EPS)
    return scale


@_compiled
def _rms_norm(x_bd: Array) -> Array:
    y_bd = np.empty_like(x_bd)
    for b in range(x_bd.shape[0]):
        scale = _rms_scale(x_bd[b])
        for d in range(x_bd.shape[1]):
            y_bd[b, d] = x_bd[b, d] * scale
    return y_bd


@_compiled
def _normalise_and_turn(x_k: Array, turn_2c: Array) -> None:
    """Normalises x (k,) and turns pair c by the angle whose cosine and sine (2, c) are given."""
    scale = _rms_scale(x_k)
    for c in range(turn_2c.shape[1]):
        real, imaginary = x_k[2 * c] * scale, x_k[2 * c + 1] * scale
        x_k[2 * c] = real * turn_2c[0, c] - imaginary * turn_2c[1, c]
        x_k[2 * c + 1] = real * turn_2c[1, c] + imaginary * turn_2c[0, c]


@_compiled
def _attend(qkv_b3hk: Array, kv_b2hsk: Array, position: int) -> Array:
    """Writes the new keys and values to their place; what the new position sees, (b, d)."""
    batch, _, heads, size = qkv_b3hk.shape
    y_bhk = np.zeros((batch, heads, size), np.float32)
    weights_s = np.empty(position + 1, np.float32)
    shrink = ONE / np.sqrt(np.float32(size))
    for b in range(batch):
        for h in range(heads):
            for k in range(size):
                kv_b2hsk[b, 0, h, position, k] = qkv_b3hk[b, 1, h, k]
                kv_b2hsk[b, 1, h, position, k] = qkv_b3hk[b, 2, h, k]
            query_k, keys_sk, values_sk = qkv_b3hk[b, 0, h], kv_b2hsk[b, 0, h], kv_b2hsk[b, 1, h]
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
                    y_bhk[b, h, k] += weight * values_sk[s, k]
    return y_bhk.reshape(batch, heads * size)


@_compiled
def _heads(qkv_bo: Array, kv_b2hsk: Array) -> Array:
    return qkv_bo.reshape(qkv_bo.shape[0], 3, kv_b2hsk.shape[2], kv_b2hsk.shape[4])


# --- blocks ---------------------------------------------------------------------------------------


@_compiled
def original_block(
    x_bd: Array,
    kv_b2hsk: Array,
    position: int,
    turn_2c: Array,
    linears: tuple[Linear, Linear, Linear, Linear],
    norms: tuple[Norm, Norm],
) -> Array:
    """The stream (b, d) after a block, which adds the position's key and value to `kv_b2hsk`."""
    qkv, proj, up, down = linears
    heads_b3hk = _heads(_linear(x_bd, qkv), kv_b2hsk)
    x_bd = _layer_norm(x_bd + _linear(_attend(heads_b3hk, kv_b2hsk, position), proj), norms[0])
    hidden_bi = np.maximum(_linear(x_bd, up), ZERO)
    return _layer_norm(x_bd + _linear(hidden_bi, down), norms[1])


@_compiled
def gpt2_block(
    x_bd: Array,
    kv_b2hsk: Array,
    position: int,
    turn_2c: Array,
    linears: tuple[Linear, Linear, Linear, Linear],
    norms: tuple[Norm, Norm],
) -> Array:
    """The stream (b, d) after a block, which adds the position's key and value to `kv_b2hsk`."""
    qkv, proj, up, down = linears
    heads_b3hk = _heads(_linear(_layer_norm(x_bd, norms[0]), qkv), kv_b2hsk)
    x_bd = x_bd + _linear(_attend(heads_b3hk, kv_b2hsk, position), proj)
    hidden_bi = _linear(_layer_norm(x_bd, norms[1]), up)
    for b in range(hidden_bi.shape[0]):
        for i in range(hidden_bi.shape[1]):
            x = hidden_bi[b, i]
            # x sigmoid(u), which is GELU by its tanh; u may go to infinity.
            u = GELU_SLOPE * (x + GELU_CUBE * x * x * x)
            hidden_bi[b, i] = x / (ONE + np.exp(-u))
    return x_bd + _linear(hidden_bi, down)


@_compiled
def modern_block(
    x_bd: Array,
    kv_b2hsk: Array,
    position: int,
    turn_2c: Array,
    linears: tuple[Linear, Linear, Linear, Linear],
    norms: tuple[Norm, Norm],
) -> Array:
    """The stream (b, d) after a block, which adds the position's key and value to `kv_b2hsk`."""
    qkv, proj, up, down = linears
    heads_b3hk = _heads(_linear(_rms_norm(x_bd), qkv), kv_b2hsk)
    for b in range(heads_b3hk.shape[0]):
        for part in range(2):
            for h in range(heads_b3hk.shape[2]):
                _normalise_and_turn(heads_b3hk[b, part, h], turn_2c)
    x_bd = x_bd + _linear(_attend(heads_b3hk, kv_b2hsk, position), proj)
    hidden_bi = _linear(_rms_norm(x_bd), up)
    hidden_bi = np.maximum(hidden_bi, ZERO) ** 2
    return x_bd + _linear(hidden_bi, down)


# --- the end --------------------------------------------------------------------------------------


@_compiled
def original_head(x_bd: Array, linear: Linear, norm: Norm) -> Array:
    """The logits (b, v) of the stream as the last block leaves it; `norm` is not used."""
    return _linear(x_bd, linear)


@_compiled
def gpt2_head(x_bd: Array, linear: Linear, norm: Norm) -> Array:
    """The logits (b, v) of the stream as the last block leaves it."""
    return _linear(_layer_norm(x_bd, norm), linear)


@_compiled
def modern_head(x_bd: Array, linear: Linear, norm: Norm) -> Array:
    """The logits (b, v) of the stream as the last block leaves it; `norm` is not used."""
    return _linear(_rms_norm(x_bd), linear)
