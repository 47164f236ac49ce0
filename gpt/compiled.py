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
from numba import njit, types
from numba.extending import overload
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
TINY = np.float32(np.finfo(np.float32).tiny)
EPS = np.float32(np.finfo(np.float32).eps)
LAYER_NORM_EPS = np.float32(1e-5)
LN_2, LOG2_E = np.float32(math.log(2)), np.float32(1 / math.log(2))
SMALLEST_POWER, LARGEST_POWER = np.float32(-87), np.float32(88)
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


def _linear(x_ni: Array, linear: Linear, layer: int) -> Array:
    """A layer's matrix times each position, (n, o): one of the next two, by the matrix's type."""
    raise NotImplementedError


@overload(_linear, jit_options=_OPTIONS)
def _by_type(x_ni, linear, layer):  # type: ignore[no-untyped-def]  # Numba wants it bare
    product = _of_integers if linear[0].dtype == types.int8 else _of_floats
    return lambda x_ni, linear, layer: product(x_ni, linear, layer)


@_compiled
def _of_floats(x_ni: Array, linear: Linear, layer: int) -> Array:
    weight_oi, bias_o = linear[0][layer], linear[2][layer]
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
                total += weight_oi[o, i] * x_ni[n, i]
            y_no[n, o] = total
    for n in range(count):
        for o in range(outputs):
            y_no[n, o] += bias_o[o]
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


@_compiled
def _of_integers(x_ni: Array, linear: Linear, layer: int) -> Array:
    """Rounds what is multiplied too, to as many of 16 bits as keep the sum within 32.

    Those steps are far finer than the weights': 32,767 up to the largest number of a position of
    384, 5,504 where there are 3,072. Processors multiply and add such pairs twice as fast as
    floats, and no weight has to become a float first.
    """
    weight_oi, scale_o, bias_o = linear[0][layer], linear[1][layer], linear[2][layer]
    count, inputs = x_ni.shape
    largest = min(2**15 - 1, (2**31 - 1) // (127 * inputs))
    rounded_ni = np.empty((count, inputs), np.int16)
    steps_n = np.empty(count, np.float32)
    for n in range(count):
        size, spoiled = TINY, ZERO
        for i in range(inputs):
            size = max(size, abs(x_ni[n, i]))
            spoiled += x_ni[n, i] * ZERO  # an integer cannot say that it is not a number
        steps_n[n] = size / np.float32(largest) + spoiled
        for i in range(inputs):
            rounded_ni[n, i] = np.int16(np.rint(x_ni[n, i] / size * np.float32(largest)))
    y_no = np.empty((count, len(weight_oi)), np.float32)
    for o in range(len(weight_oi)):
        for n in range(count):
            total = np.int32(0)
            for i in range(inputs):
                # NumPy's rules make 64 bits of a product, which are not needed.
                total = np.int32(total + np.int32(weight_oi[o, i]) * np.int32(rounded_ni[n, i]))
            y_no[n, o] = np.float32(total) * (steps_n[n] * scale_o[o]) + bias_o[o]
    return y_no


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
def _to_exponentials(x_n: Array) -> None:
    """e to the power of each number, in its place; a call of the system's exp a number is slower.

    With x = n ln 2 + r, it is 2^n e^r: n goes into the exponent's bits, and r is so small (0.35 at
    most) that seven terms of the series are all that a float32 holds.
    """
    powers_n = np.empty(len(x_n), np.int32)
    for i in range(len(x_n)):
        # What a float32 holds as a normal number.
        x = min(max(x_n[i], SMALLEST_POWER), LARGEST_POWER)
        n = np.rint(x * LOG2_E)
        r = x - n * LN_2
        powers_n[i] = (np.int32(n) + np.int32(127)) << np.int32(23)
        series = ONE + r / np.float32(7)
        series = ONE + series * r / np.float32(6)
        series = ONE + series * r / np.float32(5)
        series = ONE + series * r / np.float32(4)
        series = ONE + series * r / np.float32(3)
        series = ONE + series * r / np.float32(2)
        x_n[i] = ONE + series * r
    factors_n = powers_n.view(np.float32)
    for i in range(len(x_n)):
        x_n[i] *= factors_n[i]


@_compiled
def _gelu(x_ni: Array) -> None:
    """In place; x sigmoid(u), which is GELU by its tanh."""
    powers_i = np.empty(x_ni.shape[1], np.float32)
    for n in range(x_ni.shape[0]):
        for i in range(x_ni.shape[1]):
            x = x_ni[n, i]
            powers_i[i] = -GELU_SLOPE * (x + GELU_CUBE * x * x * x)
        _to_exponentials(powers_i)
        for i in range(x_ni.shape[1]):
            x_ni[n, i] /= ONE + powers_i[i]


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
def _scores(query_k: Array, keys_sk: Array, scores_s: Array) -> None:
    """The query times each key; four at a time, which wait less for one another."""
    count = len(scores_s)
    for s in range(0, count // 4 * 4, 4):
        a, b, c, d = ZERO, ZERO, ZERO, ZERO
        for k in range(len(query_k)):
            q = query_k[k]
            a, b = a + q * keys_sk[s, k], b + q * keys_sk[s + 1, k]
            c, d = c + q * keys_sk[s + 2, k], d + q * keys_sk[s + 3, k]
        scores_s[s], scores_s[s + 1], scores_s[s + 2], scores_s[s + 3] = a, b, c, d
    for s in range(count // 4 * 4, count):
        a = ZERO
        for k in range(len(query_k)):
            a += query_k[k] * keys_sk[s, k]
        scores_s[s] = a


@_compiled
def _add_weighted(weights_s: Array, values_sk: Array, y_k: Array) -> None:
    """Adds each value times its weight to y (k,)."""
    count = len(weights_s)
    for s in range(0, count // 4 * 4, 4):
        a, b, c, d = weights_s[s], weights_s[s + 1], weights_s[s + 2], weights_s[s + 3]
        for k in range(len(y_k)):
            y_k[k] += (
                a * values_sk[s, k]
                + b * values_sk[s + 1, k]
                + c * values_sk[s + 2, k]
                + d * values_sk[s + 3, k]
            )
    for s in range(count // 4 * 4, count):
        for k in range(len(y_k)):
            y_k[k] += weights_s[s] * values_sk[s, k]


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
            seen_s = weights_s[: position + 1]
            _scores(query_k, keys_sk, seen_s)
            largest = np.float32(-np.inf)
            for s in range(position + 1):
                seen_s[s] *= shrink
                largest = max(largest, seen_s[s])
            for s in range(position + 1):
                seen_s[s] -= largest  # so that none overflows
            _to_exponentials(seen_s)
            total = ZERO
            for s in range(position + 1):
                total += seen_s[s]
            for s in range(position + 1):
                seen_s[s] /= total
            _add_weighted(seen_s, values_sk, y_nhk[n, h])
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
    _gelu(hidden_ni)
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
def _last(x_nd: Array, x_btd: Array, wanted: int) -> Array:
    """The last `wanted` positions of each sequence, (b wanted, d)."""
    last_nd = np.empty((len(x_btd) * wanted, x_nd.shape[1]), np.float32)
    for b in range(len(x_btd)):
        end = (b + 1) * x_btd.shape[1]
        last_nd[b * wanted : (b + 1) * wanted] = x_nd[end - wanted : end]
    return last_nd


@_compiled
def original(
    x_btd: Array,
    kv_bl2hsk: Array,
    start: int,
    wanted: int,
    turns_t2c: Array,
    linears: Linears,
    norms: tuple[Norm, Norm],
    head: Linear,
    norm: Norm,
) -> Array:
    """The logits (b wanted, v) after the last embedded tokens of `x_btd`, which begin at `start`.

    `kv_bl2hsk` holds the keys and the values of the positions before, and gets those of these.
    `norm`, the one before the head, is not used.
    """
    x_nd = x_btd.reshape(-1, x_btd.shape[2])
    for layer in range(kv_bl2hsk.shape[1]):
        x_nd = _original_block(x_nd, kv_bl2hsk, start, turns_t2c, layer, linears, norms)
    return _linear(_last(x_nd, x_btd, wanted), head, 0)


@_compiled
def gpt2(
    x_btd: Array,
    kv_bl2hsk: Array,
    start: int,
    wanted: int,
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
    return _linear(_layer_norm(_last(x_nd, x_btd, wanted), norm, 0), head, 0)


@_compiled
def modern(
    x_btd: Array,
    kv_bl2hsk: Array,
    start: int,
    wanted: int,
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
    return _linear(_rms_norm(_last(x_nd, x_btd, wanted)), head, 0)
