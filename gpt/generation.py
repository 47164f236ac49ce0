"""Writing text: one token after the other, each drawn from what the model makes of those before.

Several samples are written side by side in one batch. Each has a random generator of its own, so
that a sample does not depend on how many are written with it.

Shapes: b samples, t positions, v = vocab_size.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpt.decoding.beam_search import beam_search
from gpt.decoding.decoder import Decoder, Rereader
from gpt.errors import TokenizerError
from gpt.model import GPT
from gpt.tokenizers.base import Tokenizer


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
    """Goes on from `prompt`, once for each of `indices`, with a random stream of (seed, index).

    A model of several documents starts a new document before the prompt, and ends a sample where
    it ends its document. The stop string itself is left out. `on_text` is told each piece of sample
    `index` as it becomes certain. Raises TokenizerError for a prompt with characters the model does
    not know.

    The context grows to block_size tokens; then the last half of a block is read again, and it
    grows from there. So every token has at least half a block of context, as in scoring, and all
    but one in half a block cost one position's work.
    """
    training = model.training
    model.eval()
    writers = [_Writer(tokenizer, sampling.stop) for _ in indices]
    for next_b in _tokens(model, first_ids(tokenizer, prompt), sampling, seed, indices):
        for index, writer, token in zip(indices, writers, next_b, strict=True):
            if (text := writer.feed(token)) != "":
                on_text(index, text)
        if all(writer.stop_reason for writer in writers):
            break
    samples = []
    for index, writer in zip(indices, writers, strict=True):
        if (text := writer.flush()) != "":
            on_text(index, text)
        reason = writer.stop_reason or "length"
        samples.append(Sample(prompt + writer.text, prompt, reason, writer.tokens))
    model.train(training)
    return samples


def _tokens(
    model: GPT, first: list[int], sampling: Sampling, seed: int, indices: Sequence[int]
) -> Iterator[list[int]]:
    """The next token of each sample (b,), one after the other, behind the ids `first`."""
    device, block_size = next(model.parameters()).device, model.config.block_size
    first = first[-block_size:]
    uniforms_nb = _uniforms(seed, indices, sampling)
    decoder: Decoder | Rereader = Rereader(model)
    if isinstance(model, GPT):
        decoder = Decoder(model)
    new_bt = torch.tensor(first, dtype=torch.int64).expand(len(indices), -1)
    recent = deque(new_bt.unbind(1), maxlen=max(1, block_size // 2))
    for uniforms_b in uniforms_nb:
        if decoder.length + new_bt.shape[1] > block_size:
            decoder.clear()
            new_bt = torch.stack(list(recent), dim=1)
        logits_bv = decoder.read(new_bt.to(device)).float().cpu()
        next_b = choose(logits_bv, sampling, uniforms_b)
        recent.append(next_b)
        new_bt = next_b[:, None]
        yield next_b.tolist()


def search(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    beams: int,
    max_new_tokens: int,
    stop: str | None = None,
) -> list[tuple[Sample, float]]:
    """Likely ways to go on from `prompt` as a whole, by beam search, the likeliest first.

    Up to `beams` of them, each with the sum of the log-probabilities (nats) of its new tokens,
    those of the stop string or the document's end included. Begins and ends as in `generate`.
    Raises TokenizerError for a prompt with characters the model does not know.
    """
    tail = len((stop or "").encode())  # a token that is not bos stands for a byte at least

    def ended(new: tuple[int, ...]) -> bool:
        if new[-1] == tokenizer.bos:
            return True
        return tail > 0 and (stop or "") in tokenizer.decode(list(new[-tail:]))

    training = model.training
    model.eval()
    first = first_ids(tokenizer, prompt)
    found = beam_search(model, first, max_new_tokens, beams=beams, ended=ended)
    model.train(training)
    samples = []
    for one in found:
        writer = _Writer(tokenizer, stop)
        for token in one.ids:
            writer.feed(token)
        writer.flush()
        sample = Sample(prompt + writer.text, prompt, writer.stop_reason or "length", writer.tokens)
        samples.append((sample, one.log_probability))
    return samples


def choose(logits_bv: Tensor, sampling: Sampling, uniforms_b: NDArray[np.float64]) -> Tensor:
    """The next token (b,) of each row of logits, drawn by the row's number from 0 up to 1.

    temperature divides the logits, top_k keeps the k likeliest tokens, and top_p (the nucleus of
    Holtzman et al. 2020) the fewest likeliest tokens whose probabilities reach p; in this order.
    """
    if sampling.temperature == 0:
        return logits_bv.argmax(dim=-1)
    # In NumPy, whose calls cost a third of PyTorch's: there is little to compute.
    rows = logits_bv.numpy().astype(np.float64)
    with np.errstate(over="ignore"):  # to minus infinity, of which nothing is drawn
        drawn = [
            _drawn(row, sampling, uniform)
            for row, uniform in zip(rows, uniforms_b.tolist(), strict=True)
        ]
    return torch.from_numpy(np.array(drawn))


def _drawn(logits_v: NDArray[np.float64], sampling: Sampling, uniform: float) -> int:
    order = (-logits_v).argsort(kind="stable")
    if sampling.top_k:
        order = order[: sampling.top_k]
    sorted_v = logits_v[order]
    # Below the largest, so that no temperature divides to infinity.
    weights_v = np.exp((sorted_v - sorted_v[0]) / sampling.temperature)
    sums_v = weights_v.cumsum()
    if sampling.top_p < 1:
        kept = (sums_v - weights_v).searchsorted(sampling.top_p * sums_v[-1])
        sums_v = sums_v[:kept]
    # Inverse of the distribution function; scaled by the sum, so that rounding cannot overshoot.
    rank = min(
        sums_v.searchsorted(uniform * sums_v[-1], side="right"), sums_v.searchsorted(sums_v[-1])
    )
    return int(order[rank])


def printable(text: str) -> str:
    """`text` for a terminal: control characters, and with them escape sequences, made visible."""
    return "".join(c if c in "\n\t" or c.isprintable() else ascii(c)[1:-1] for c in text)


def first_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """What is read before the first new token: the prompt after `bos`, and never nothing.

    Raises TokenizerError for a prompt with characters the tokenizer does not know.
    """
    start = [] if tokenizer.bos is None else [tokenizer.bos]
    ids = start + [int(token) for token in tokenizer.encode(prompt)]
    if ids:
        return ids
    # Nothing to go on from: a line break, as if a line had just ended, or else the first token.
    try:
        return [int(token) for token in tokenizer.encode("\n")]
    except TokenizerError:
        return [0]


def _uniforms(seed: int, indices: Sequence[int], sampling: Sampling) -> NDArray[np.float64]:
    """A number from 0 up to 1 for each new token of each sample, (n, b), a stream a sample."""
    numbers_bn = np.empty((len(indices), sampling.max_new_tokens))
    for row, index in enumerate(indices):
        # A large odd factor keeps (seed, index) pairs apart for any index one would ask for.
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
        torch.rand(
            sampling.max_new_tokens, generator=generator, out=torch.from_numpy(numbers_bn[row])
        )
    return numbers_bn.T


class _Writer:
    """Collects the text of one sample, holding back what might be the stop string's beginning."""

    def __init__(self, tokenizer: Tokenizer, stop: str | None) -> None:
        self._decoder = tokenizer.streaming_decoder()
        self._bos = tokenizer.bos
        self._stop = stop or ""
        self._pending = ""
        self.text = ""
        self.tokens = 0
        self.stop_reason = ""

    def feed(self, token: int) -> str:
        """Takes a token; returns the text that is now certain to belong to the sample."""
        if self.stop_reason:
            return ""
        self.tokens += 1
        if token == self._bos:
            self.stop_reason = "end of document"
            return self._certain(len(self._pending))
        self._pending += self._decoder.feed(token)
        at = self._pending.find(self._stop) if self._stop else -1
        if at >= 0:
            self._pending = self._pending[:at]
            self.stop_reason = "stop"
            return self._certain(at)
        held = max(
            (n for n in range(1, len(self._stop)) if self._pending.endswith(self._stop[:n])),
            default=0,
        )
        return self._certain(len(self._pending) - held)

    def flush(self) -> str:
        """What was held back when the writing ended."""
        return self._certain(len(self._pending))

    def _certain(self, count: int) -> str:
        text, self._pending = self._pending[:count], self._pending[count:]
        self.text += text
        return text
