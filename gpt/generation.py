"""Text generation: a prompt in, text out, one sampled token after the other.

    generate        samples of a model: temperature, top-k, top-p, a stop string
    beam_generate   the most likely texts, nothing sampled
    sample_next     the next token from logits

Several samples share one batch, but each has its own random stream. Not here: the logits of the
next token (decoding/decoder.py) and the search itself (decoding/beam_search.py).

Shapes are those of gpt/__init__.py; k = tokens kept, n = new tokens.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gpt.decoding.beam_search import beam_search
from gpt.decoding.canonical import one_thread
from gpt.decoding.decoder import make_decoder
from gpt.errors import TokenizerError
from gpt.model import GPT
from gpt.tokenizers.base import Tokenizer

# Without top_k the most likely tokens, up to here, are tried first: a sort of GPT-2's vocabulary
# takes 5 ms, longer than a small model, and the sampled token is nearly always among these.
MAX_FIRST_SORTED = 256

# One text, and a step of fewer multiplications, stays on one thread: two that wait for each other
# at every matmul are hardly faster, and far slower as soon as anything else wants a core.
MAX_ONE_THREAD_WORK = 2**25


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Off values: temperature 0 (greedy), top_k 0, top_p 1."""

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: str | None = None


@dataclass(frozen=True)
class Sample:
    """A text with its prompt, and why it ended: 'length', 'stop', or 'end of document'."""

    text: str
    prompt: str
    stop_reason: str
    new_tokens: int


@torch.inference_mode()
def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: Sampling,
    *,
    seed: int,
    indices: Sequence[int] = (0,),
    on_text: Callable[[int, str], None] = lambda index, text: None,
) -> list[Sample]:
    """Continues `prompt`, once for each of `indices`, whose random stream is of (seed, index).

    A model of several documents starts a new document before the prompt, and ends a sample where
    it ends its document. The stop string is left out. `on_text` is called with the index of a
    sample and its new characters, as soon as no stop string can begin in them.

    The context grows to block_size tokens; then its last half is read again, and it grows from
    there. So every token has at least half a block of context, as in scoring, and all but one in
    half a block cost one position's work. Raises TokenizerError for a prompt with characters the
    tokenizer does not know.
    """
    prompt_ids = encode_prompt(tokenizer, prompt)
    work = len(indices) * sum(weight.numel() for weight in model.parameters())
    threads = one_thread() if len(indices) == 1 or work < MAX_ONE_THREAD_WORK else nullcontext()
    buffers = [_TextBuffer(tokenizer, sampling.stop) for _ in indices]
    with _eval_mode(model), threads:
        for token_b in _sample_tokens(model, prompt_ids, sampling, seed, indices):
            for index, buffer, token in zip(indices, buffers, token_b, strict=True):
                if text := buffer.feed(token):
                    on_text(index, text)
            if all(buffer.stop_reason for buffer in buffers):
                break
    for index, buffer in zip(indices, buffers, strict=True):
        if text := buffer.flush():
            on_text(index, text)
    return [buffer.sample(prompt) for buffer in buffers]


def beam_generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    beams: int,
    max_new_tokens: int,
    stop: str | None = None,
) -> list[tuple[Sample, float]]:
    """Up to `beams` likely continuations of `prompt` by beam search, the most likely first.

    With each the sum of the log-probabilities (nats) of its new tokens, those of the stop string
    or the document's end included. Starts and ends as `generate` does. Raises TokenizerError for a
    prompt with characters the tokenizer does not know.
    """
    tail = len((stop or "").encode())  # every token but bos stands for at least one byte

    def ended(ids: tuple[int, ...]) -> bool:
        if ids[-1] == tokenizer.bos:
            return True
        return tail > 0 and (stop or "") in tokenizer.decode(list(ids[-tail:]))

    prompt_ids = encode_prompt(tokenizer, prompt)
    with _eval_mode(model):
        hypotheses = beam_search(model, prompt_ids, max_new_tokens, beams=beams, ended=ended)
    samples = []
    for hypothesis in hypotheses:
        buffer = _TextBuffer(tokenizer, stop)
        for token in hypothesis.ids:
            buffer.feed(token)
        buffer.flush()
        samples.append((buffer.sample(prompt), hypothesis.log_probability))
    return samples


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _sample_tokens(
    model: GPT, prompt_ids: list[int], sampling: Sampling, seed: int, indices: Sequence[int]
) -> Iterator[list[int]]:
    """The next token of each sample (b,), again and again, after `prompt_ids`."""
    device, block_size = next(model.parameters()).device, model.config.block_size
    decoder = make_decoder(model, sampling.max_new_tokens)
    new_bt = torch.tensor(prompt_ids[-block_size:]).expand(len(indices), -1)
    recent = deque(new_bt.unbind(1), maxlen=max(1, block_size // 2))
    for uniforms_b in _uniforms(seed, indices, sampling.max_new_tokens):
        if decoder.length + new_bt.shape[1] > block_size:
            decoder.clear()
            new_bt = torch.stack(list(recent), dim=1)
        logits_bv = decoder.read(new_bt.to(device)).float().cpu()
        token_b = sample_next(logits_bv, sampling, uniforms_b)
        recent.append(token_b)
        new_bt = token_b[:, None]
        yield token_b.tolist()


def sample_next(logits_bv: Tensor, sampling: Sampling, uniforms_b: NDArray[np.float64]) -> Tensor:
    """Samples one token per row, (b,), as the inverse CDF at `uniforms_b` in [0, 1).

    In this order: divide by temperature (0: argmax), keep the top_k most likely tokens, keep the
    smallest set whose probability reaches top_p (Holtzman et al. 2020). Uniforms come from the
    caller, one stream per sample, so that a sample does not depend on its batch.
    """
    if sampling.temperature == 0:
        return logits_bv.argmax(dim=-1)
    # In NumPy, whose calls cost a third of PyTorch's: there is little to compute.
    logits = logits_bv.numpy().astype(np.float64)
    uniforms = uniforms_b.tolist()
    with np.errstate(over="ignore"):  # to minus infinity, a probability of 0
        # A row alone is sampled in half the time by itself.
        if len(logits) > 1 and logits.shape[1] <= MAX_FIRST_SORTED:
            return torch.tensor(_sample_rows(logits, sampling, uniforms))
        rows = zip(logits, uniforms, strict=True)
        return torch.tensor([_sample_row(logits_v, sampling, u) for logits_v, u in rows])


def _sample_rows(
    logits_bv: NDArray[np.float64], sampling: Sampling, uniforms: list[float]
) -> list[int]:
    """`_sample_row` of each row of a small vocabulary: sorts and sums are one call for all."""
    order_bk = (-logits_bv).argsort(axis=1, kind="stable")[:, : sampling.top_k or None]
    sorted_bk = logits_bv[np.arange(len(logits_bv))[:, None], order_bk]
    weights_bk = np.exp((sorted_bk - sorted_bk[:, :1]) / sampling.temperature)
    rows = zip(order_bk, weights_bk, weights_bk.cumsum(axis=1), uniforms, strict=True)
    return [
        int(order_k[_inverse_cdf(weights_k, cdf_k, None, sampling.top_p, uniform)])
        for order_k, weights_k, cdf_k, uniform in rows
    ]


def _sample_row(logits_v: NDArray[np.float64], sampling: Sampling, uniform: float) -> int:
    v = len(logits_v)
    if not sampling.top_k and v > MAX_FIRST_SORTED:
        # Summed in another order than below, which moves a token with a probability of 1e-13.
        total = float(np.exp((logits_v - logits_v.max()) / sampling.temperature).sum())
        order_k = _most_likely(logits_v, MAX_FIRST_SORTED)
        rank = _sample_rank(logits_v[order_k], total, sampling, uniform)
        if rank < MAX_FIRST_SORTED:
            return int(order_k[rank])
    order_k = _most_likely(logits_v, min(sampling.top_k or v, v))
    return int(order_k[_sample_rank(logits_v[order_k], None, sampling, uniform)])


def _most_likely(logits_v: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The indices of the `count` largest, in descending order; of equals the first come first."""
    if len(logits_v) <= MAX_FIRST_SORTED or count == len(logits_v):
        return (-logits_v).argsort(kind="stable")[:count]
    smallest = np.partition(logits_v, -count)[-count]
    (kept_k,) = np.nonzero(logits_v >= smallest)
    return kept_k[(-logits_v[kept_k]).argsort(kind="stable")[:count]]


def _sample_rank(
    logits_k: NDArray[np.float64], total: float | None, sampling: Sampling, uniform: float
) -> int:
    """Which of `logits_k`, in descending order, is sampled; k: none of them.

    `total` is the sum of the weights exp((logit - max) / temperature) of all tokens; None: of
    these.
    """
    # Relative to the maximum, so that no temperature divides to infinity.
    weights_k = np.exp((logits_k - logits_k[0]) / sampling.temperature)
    return _inverse_cdf(weights_k, weights_k.cumsum(), total, sampling.top_p, uniform)


def _inverse_cdf(
    weights_k: NDArray[np.float64],
    cdf_k: NDArray[np.float64],
    total: float | None,
    top_p: float,
    uniform: float,
) -> int:
    """Which of k weights, in descending order, `uniform` falls on; `cdf_k` are their sums."""
    total = cdf_k[-1] if total is None else total
    if top_p < 1:
        if cdf_k[-1] < top_p * total:
            return len(cdf_k)
        cdf_k = cdf_k[: (cdf_k - weights_k).searchsorted(top_p * total)]
        total = cdf_k[-1]
    point = uniform * total
    if point < total:
        return int(cdf_k.searchsorted(point, side="right"))
    return int(cdf_k.searchsorted(total))  # the product was rounded up to the total


def _uniforms(seed: int, indices: Sequence[int], count: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), (n, b): `count` per sample, each from its own stream."""
    uniforms_bn = np.empty((len(indices), count))
    for sample, index in enumerate(indices):
        # A large odd factor keeps (seed, index) pairs apart for every plausible index.
        rng = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
        torch.rand(count, generator=rng, out=torch.from_numpy(uniforms_bn[sample]))
    return uniforms_bn.T


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """Ids to read before the first new token: `bos`, if there is one, and the prompt; at least one.

    Raises TokenizerError for a prompt with characters the tokenizer does not know.
    """
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    ids = start + [int(token) for token in tokenizer.encode(prompt)]
    if ids:
        return ids
    # A line break, as if a line had just ended, or else the first token.
    try:
        return [int(token) for token in tokenizer.encode("\n")]
    except TokenizerError:
        return [0]


class _TextBuffer:
    """The text of one sample; holds back what might be the start of the stop string."""

    def __init__(self, tokenizer: Tokenizer, stop: str | None) -> None:
        self._decoder = tokenizer.streaming_decoder()
        self._bos = tokenizer.bos
        self._stop = stop or ""
        self._pending = ""
        self._text = ""
        self._tokens = 0
        self.stop_reason = ""

    def feed(self, token: int) -> str:
        """Adds a token; returns the text that is now certain to belong to the sample."""
        if self.stop_reason:
            return ""
        self._tokens += 1
        if token == self._bos:
            self.stop_reason = "end of document"
            return self.flush()
        self._pending += self._decoder.feed(token)
        start = self._pending.find(self._stop) if self._stop else -1
        if start >= 0:
            self._pending = self._pending[:start]
            self.stop_reason = "stop"
            return self._emit(start)
        held = max(
            (n for n in range(1, len(self._stop)) if self._pending.endswith(self._stop[:n])),
            default=0,
        )
        return self._emit(len(self._pending) - held)

    def flush(self) -> str:
        """Returns what was held back; to be called after the last token."""
        if self.stop_reason != "stop":
            self._pending += self._decoder.flush()
        return self._emit(len(self._pending))

    def sample(self, prompt: str) -> Sample:
        """The finished sample."""
        reason = self.stop_reason or "length"
        return Sample(prompt + self._text, prompt, reason, self._tokens)

    def _emit(self, count: int) -> str:
        text, self._pending = self._pending[:count], self._pending[count:]
        self._text += text
        return text


def printable(text: str) -> str:
    """`text` for a terminal: control characters, and with them escape sequences, made visible."""
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)
