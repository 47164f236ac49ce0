"""The whole of a GPT in one file of plain Python: gradients, model, training, sampling.

    python -m gpt.micro names.txt               trains on the lines of a file, then samples some
    python -m gpt.micro names.txt --steps 2000

Start here to see all of it at once: no library does any of the computing. It is the architecture
`gpt2` of gpt/model.py with the same names of weights, and it learns the same from the same text,
loss by loss (tests/gpt/test_micro.py). But every number is an object, so it takes a second where
PyTorch takes a few milliseconds.
"""

import argparse
import itertools
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

# --- gradients ------------------------------------------------------------------------------------


class Value:
    """A number with the inputs it was computed from, and its derivative by each of them."""

    __slots__ = ("data", "derivatives", "grad", "inputs")

    def __init__(
        self, data: float, inputs: Sequence["Value"] = (), derivatives: Sequence[float] = ()
    ) -> None:
        self.data = data
        self.grad = 0.0  # derivative of the loss by this number
        self.inputs = inputs
        self.derivatives = derivatives  # of this number by each of its inputs

    def __add__(self, x: "Value | float") -> "Value":
        if isinstance(x, Value):
            return Value(self.data + x.data, (self, x), (1.0, 1.0))
        return Value(self.data + x, (self,), (1.0,))

    def __mul__(self, x: "Value | float") -> "Value":
        if isinstance(x, Value):
            return Value(self.data * x.data, (self, x), (x.data, self.data))
        return Value(self.data * x, (self,), (x,))

    def __pow__(self, power: float) -> "Value":
        return Value(self.data**power, (self,), (power * self.data ** (power - 1),))

    def exp(self) -> "Value":
        e = math.exp(self.data)
        return Value(e, (self,), (e,))

    def log(self) -> "Value":
        return Value(math.log(self.data), (self,), (1 / self.data,))

    def tanh(self) -> "Value":
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,))

    def backward(self) -> None:
        """Adds to the `grad` of every number this one was computed from, by the chain rule."""
        order: list[Value] = []
        seen: set[int] = set()
        stack = [(self, False)]
        while stack:  # topological order: every number after its inputs
            value, done = stack.pop()
            if done:
                order.append(value)
            elif id(value) not in seen:
                seen.add(id(value))
                stack.append((value, True))
                stack.extend((x, False) for x in value.inputs)
        self.grad = 1.0
        for value in reversed(order):
            for x, derivative in zip(value.inputs, value.derivatives, strict=True):
                x.grad += derivative * value.grad


Vector = Sequence[Value]
Matrix = list[list[Value]]  # a row per output


def dot(a: Vector, b: Vector) -> Value:
    """The sum of a_i * b_i as one Value: with + and * it would be two for each i."""
    a_data, b_data = [x.data for x in a], [x.data for x in b]
    total = math.fsum(x * y for x, y in zip(a_data, b_data, strict=True))
    return Value(total, (*a, *b), (*b_data, *a_data))


def mean(xs: Vector) -> Value:
    """The mean as one Value."""
    n = len(xs)
    return Value(math.fsum(x.data for x in xs) / n, xs, [1 / n] * n)


# --- the model ------------------------------------------------------------------------------------

Weights = dict[str, Matrix]  # a vector, such as the gain of a norm, has one row
Cache = list[list[tuple[Vector, Vector]]]  # of each layer, the (key, value) of each position


class GPT:
    """A GPT-2 that reads one token at a time; `forward` returns the logits of the next."""

    def __init__(
        self,
        vocab_size: int,
        *,
        n_layer: int = 1,
        n_head: int = 4,
        n_embd: int = 16,
        block_size: int = 16,
        seed: int = 0,
    ) -> None:
        self.n_layer, self.n_head = n_layer, n_head
        self.head_size, self.block_size = n_embd // n_head, block_size
        rng = random.Random(seed)  # noqa: S311 (weights, no secrets)

        def matrix(rows: int, columns: int, std: float = 0.08) -> Matrix:
            return [[Value(rng.gauss(0, std)) for _ in range(columns)] for _ in range(rows)]

        def ones() -> Matrix:
            return [[Value(1.0) for _ in range(n_embd)]]

        self.weights: Weights = {
            "token_embedding": matrix(vocab_size, n_embd),
            "position_embedding": matrix(block_size, n_embd),
        }
        for layer in range(n_layer):
            self.weights |= {
                f"blocks.{layer}.norm_1": ones(),
                f"blocks.{layer}.attention.qkv": matrix(3 * n_embd, n_embd),
                f"blocks.{layer}.attention.proj": matrix(n_embd, n_embd),
                f"blocks.{layer}.norm_2": ones(),
                f"blocks.{layer}.mlp.up": matrix(4 * n_embd, n_embd),
                f"blocks.{layer}.mlp.down": matrix(n_embd, 4 * n_embd),
            }
        self.weights["norm"] = ones()

    def parameters(self) -> list[Value]:
        return [value for matrix in self.weights.values() for row in matrix for value in row]

    def forward(self, token: int, cache: Cache) -> list[Value]:
        """Returns the logits after `token`, and adds its keys and values to `cache`.

        Attention sees only the cache, so no position attends to the future.
        """
        w, position = self.weights, len(cache[0])
        x = add(w["token_embedding"][token], w["position_embedding"][position])
        for layer, layer_cache in enumerate(cache):
            block = f"blocks.{layer}."
            qkv = linear(norm(x, w[block + "norm_1"]), w[block + "attention.qkv"])
            q, k, v = qkv[: len(x)], qkv[len(x) : 2 * len(x)], qkv[2 * len(x) :]
            layer_cache.append((k, v))
            heads = [self._attend(head, q, layer_cache) for head in range(self.n_head)]
            y = [value for head in heads for value in head]
            x = add(x, linear(y, w[block + "attention.proj"]))
            hidden = linear(norm(x, w[block + "norm_2"]), w[block + "mlp.up"])
            x = add(x, linear([gelu(h) for h in hidden], w[block + "mlp.down"]))
        # Tied weights: the head is the token embedding again.
        return linear(norm(x, w["norm"]), w["token_embedding"])

    def _attend(
        self, head: int, q: Vector, layer_cache: list[tuple[Vector, Vector]]
    ) -> list[Value]:
        """One head of attention: the values so far, weighted by how well keys match the query."""
        columns = slice(head * self.head_size, (head + 1) * self.head_size)
        scores = [dot(q[columns], k[columns]) * self.head_size**-0.5 for k, _ in layer_cache]
        weights = softmax(scores)
        values = zip(*(v[columns] for _, v in layer_cache), strict=True)
        return [dot(weights, column) for column in values]


def linear(x: Vector, matrix: Matrix) -> list[Value]:
    """The matrix times x: a dot product for each row."""
    return [dot(row, x) for row in matrix]


def add(x: Vector, y: Vector) -> list[Value]:
    """The sum of two vectors."""
    return [a + b for a, b in zip(x, y, strict=True)]


def norm(x: Vector, gain: Matrix) -> list[Value]:
    """LayerNorm: mean 0, variance 1, times a learned gain."""
    mu = mean(x)
    centered = [a + mu * -1.0 for a in x]
    scale = (mean([c * c for c in centered]) + 1e-5) ** -0.5
    return [c * scale * g for c, g in zip(centered, gain[0], strict=True)]


def gelu(x: Value) -> Value:
    """GELU, tanh form: near 0 for negative x, near x for positive x, and smooth between."""
    return x * 0.5 * ((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)).tanh() + x * 0.5


def softmax(scores: Vector) -> list[Value]:
    """Probabilities exp(score) / sum of all; with the maximum subtracted, exp cannot overflow."""
    maximum = max(score.data for score in scores)
    powers = [(score + -maximum).exp() for score in scores]
    total = Value(math.fsum(p.data for p in powers), powers, [1.0] * len(powers))
    return [p * total**-1 for p in powers]


# --- training -------------------------------------------------------------------------------------


def loss_of(model: GPT, ids: list[int]) -> Value:
    """The mean of -ln(probability of the next token), in nats per token."""
    cache: Cache = [[] for _ in range(model.n_layer)]
    losses = []
    for token, target in itertools.pairwise(ids[: model.block_size + 1]):
        probability = softmax(model.forward(token, cache))[target]
        losses.append(probability.log() * -1.0)
    return mean(losses)


class Adam:
    """Adam (Kingma & Ba 2015): steps against the gradient, each about the learning rate long."""

    def __init__(self, parameters: list[Value], beta1: float = 0.9, beta2: float = 0.99) -> None:
        self.parameters, self.beta1, self.beta2 = parameters, beta1, beta2
        self.means = [0.0] * len(parameters)  # running averages of the gradients
        self.squares = [0.0] * len(parameters)
        self.steps = 0

    def step(self, learning_rate: float) -> None:
        """Updates the parameters and sets their gradients to 0."""
        self.steps += 1
        for i, parameter in enumerate(self.parameters):
            grad, parameter.grad = parameter.grad, 0.0
            self.means[i] = self.beta1 * self.means[i] + (1 - self.beta1) * grad
            self.squares[i] = self.beta2 * self.squares[i] + (1 - self.beta2) * grad * grad
            # Bias correction: both averages start at 0.
            mean = self.means[i] / (1 - self.beta1**self.steps)
            square = self.squares[i] / (1 - self.beta2**self.steps)
            parameter.data -= learning_rate * mean / (math.sqrt(square) + 1e-8)


# --- generation -----------------------------------------------------------------------------------


def generate(model: GPT, end: int, rng: random.Random, temperature: float = 0.7) -> list[int]:
    """Samples a text token by token, until `end` or the last position."""
    cache: Cache = [[] for _ in range(model.n_layer)]
    ids = [end]
    while len(ids) <= model.block_size:
        logits = model.forward(ids[-1], cache)
        probs = softmax([logit * (1 / temperature) for logit in logits])
        (token,) = rng.choices(range(len(probs)), [p.data for p in probs])
        if token == end:
            break
        ids.append(token)
    return ids[1:]


def main() -> None:
    """Trains on the lines of a file, then samples twenty more."""
    parser = argparse.ArgumentParser(prog="python -m gpt.micro")
    parser.add_argument(
        "file", type=Path, help="a text file with a name or another short text per line"
    )
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    try:
        lines = options.file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{options.file}: cannot be read as UTF-8 text ({error})")
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        sys.exit(f"{options.file}: has no lines to learn from")
    characters = sorted(set("".join(texts)))
    end = len(characters)  # one more token, which starts and ends every text
    rng = random.Random(1)  # noqa: S311 (the order of texts, no secret)
    rng.shuffle(texts)
    model = GPT(end + 1)
    adam = Adam(model.parameters())
    print(f"{len(texts)} texts, {len(characters)} characters, {len(adam.parameters)} weights")
    losses: list[float] = []
    for step in range(options.steps):
        text = texts[step % len(texts)]
        loss = loss_of(model, [end, *map(characters.index, text), end])
        loss.backward()
        adam.step(0.01 * (1 - step / options.steps))
        losses.append(loss.data)
        if (step + 1) % 50 == 0 or step + 1 == options.steps:
            recent = losses[-50:]
            print(f"step {step + 1}: loss {sum(recent) / len(recent):.4f}", flush=True)
    for _ in range(20):
        print("".join(characters[token] for token in generate(model, end, rng)))


if __name__ == "__main__":
    main()
