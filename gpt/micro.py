"""The whole of a GPT in one file of plain Python: gradients, model, training, sampling.

    python -m gpt.micro names.txt               learns from the lines of a file, then writes some
    python -m gpt.micro names.txt --steps 2000

Begin here to see all of it at once; nothing is imported that calculates. It is the architecture
`gpt2` of gpt/model.py, with the same names for its weights, and it learns the same from the same
text, loss by loss (tests/gpt/test_micro.py). Only each number is an object here, so it takes a
second
where PyTorch takes a few milliseconds.
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
    """A number that remembers what it was made of, and how far it moves when a part of it moves."""

    __slots__ = ("data", "grad", "parts", "slopes")

    def __init__(
        self, data: float, parts: Sequence["Value"] = (), slopes: Sequence[float] = ()
    ) -> None:
        self.data = data
        self.grad = 0.0  # how far the loss moves when this number moves
        self.parts = parts
        self.slopes = slopes  # how far this number moves when each part moves

    def __add__(self, other: "Value | float") -> "Value":
        if isinstance(other, Value):
            return Value(self.data + other.data, (self, other), (1.0, 1.0))
        return Value(self.data + other, (self,), (1.0,))

    def __mul__(self, other: "Value | float") -> "Value":
        if isinstance(other, Value):
            return Value(self.data * other.data, (self, other), (other.data, self.data))
        return Value(self.data * other, (self,), (other,))

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
        """Adds to the `grad` of everything this number was made of: the chain rule, backwards."""
        order: list[Value] = []
        seen: set[int] = set()
        path = [(self, False)]
        while path:  # every number after all that it was made of
            value, done = path.pop()
            if done:
                order.append(value)
            elif id(value) not in seen:
                seen.add(id(value))
                path.append((value, True))
                path.extend((part, False) for part in value.parts)
        self.grad = 1.0
        for value in reversed(order):
            for part, slope in zip(value.parts, value.slopes, strict=True):
                part.grad += slope * value.grad


Vector = Sequence[Value]
Matrix = list[list[Value]]  # a row for each output


def dot(a: Vector, b: Vector) -> Value:
    """The sum of a_i * b_i, as one step: written with + and * it would be two for each i."""
    a_data, b_data = [x.data for x in a], [x.data for x in b]
    total = math.fsum(x * y for x, y in zip(a_data, b_data, strict=True))
    return Value(total, (*a, *b), (*b_data, *a_data))


def mean(numbers: Vector) -> Value:
    """As one step, too."""
    n = len(numbers)
    return Value(math.fsum(x.data for x in numbers) / n, numbers, [1 / n] * n)


# --- the model ------------------------------------------------------------------------------------

Weights = dict[str, Matrix]  # a vector, such as the gain of a norm, is one row


class GPT:
    """Reads one token after the other. `read` gives the logits of the next."""

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
        self.size, self.block_size = n_embd // n_head, block_size
        draw = random.Random(seed)  # noqa: S311 (weights, no secrets)

        def matrix(rows: int, columns: int, std: float = 0.08) -> Matrix:
            return [[Value(draw.gauss(0, std)) for _ in range(columns)] for _ in range(rows)]

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

    def read(self, token: int, memory: list[list[tuple[Vector, Vector]]]) -> list[Value]:
        """The logits after `token`. `memory` has a list of (key, value) vectors for each layer.

        What was read before is all that attention can look at, so nobody sees the future.
        """
        w, position = self.weights, len(memory[0])
        both = zip(w["token_embedding"][token], w["position_embedding"][position], strict=True)
        x = [a + b for a, b in both]
        for layer, seen in enumerate(memory):
            block = f"blocks.{layer}."
            qkv = linear(norm(x, w[block + "norm_1"]), w[block + "attention.qkv"])
            q, k, v = qkv[: len(x)], qkv[len(x) : 2 * len(x)], qkv[2 * len(x) :]
            seen.append((k, v))
            y = [value for head in range(self.n_head) for value in self._attend(head, q, seen)]
            x = add(x, linear(y, w[block + "attention.proj"]))
            hidden = linear(norm(x, w[block + "norm_2"]), w[block + "mlp.up"])
            x = add(x, linear([gelu(h) for h in hidden], w[block + "mlp.down"]))
        # The head is the token embedding again: how much does x look like each token?
        return linear(norm(x, w["norm"]), w["token_embedding"])

    def _attend(self, head: int, q: Vector, seen: list[tuple[Vector, Vector]]) -> list[Value]:
        """What a head takes from the positions so far: most from those whose key fits its query."""
        part = slice(head * self.size, (head + 1) * self.size)
        scores = [dot(q[part], k[part]) * self.size**-0.5 for k, _ in seen]
        shares = softmax(scores)
        return [dot(shares, column) for column in zip(*(v[part] for _, v in seen), strict=True)]


def linear(x: Vector, matrix: Matrix) -> list[Value]:
    """A new number for each row of the matrix: how much x looks like it."""
    return [dot(row, x) for row in matrix]


def add(x: Vector, y: Vector) -> list[Value]:
    """Number by number."""
    return [a + b for a, b in zip(x, y, strict=True)]


def norm(x: Vector, gain: Matrix) -> list[Value]:
    """Moved to mean 0, stretched to variance 1, times a learned gain (LayerNorm)."""
    middle = mean(x)
    centred = [a + middle * -1.0 for a in x]
    scale = (mean([c * c for c in centred]) + 1e-5) ** -0.5
    return [c * scale * g for c, g in zip(centred, gain[0], strict=True)]


def gelu(x: Value) -> Value:
    """About 0 where x is negative, about x where it is not, without a corner between."""
    return x * 0.5 * ((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)).tanh() + x * 0.5


def softmax(scores: Vector) -> list[Value]:
    """Shares that add up to 1; one more in a score is e times the share."""
    largest = max(score.data for score in scores)  # so that no exponential overflows
    powers = [(score + -largest).exp() for score in scores]
    total = Value(math.fsum(p.data for p in powers), powers, [1.0] * len(powers))
    return [p * total**-1 for p in powers]


# --- training -------------------------------------------------------------------------------------


def loss_of(model: GPT, ids: list[int]) -> Value:
    """How surprised the model is by each next token, on average, in nats."""
    memory: list[list[tuple[Vector, Vector]]] = [[] for _ in range(model.n_layer)]
    surprises = []
    for token, following in itertools.pairwise(ids[: model.block_size + 1]):
        chance = softmax(model.read(token, memory))[following]
        surprises.append(chance.log() * -1.0)
    return mean(surprises)


class Adam:
    """Steps of about the learning rate, each against its gradient (Kingma & Ba 2015)."""

    def __init__(self, parameters: list[Value], beta1: float = 0.9, beta2: float = 0.99) -> None:
        self.parameters, self.beta1, self.beta2 = parameters, beta1, beta2
        self.means = [0.0] * len(parameters)  # of the gradients lately
        self.squares = [0.0] * len(parameters)
        self.steps = 0

    def step(self, learning_rate: float) -> None:
        """Moves the weights, and forgets the gradients."""
        self.steps += 1
        for i, parameter in enumerate(self.parameters):
            grad, parameter.grad = parameter.grad, 0.0
            self.means[i] = self.beta1 * self.means[i] + (1 - self.beta1) * grad
            self.squares[i] = self.beta2 * self.squares[i] + (1 - self.beta2) * grad * grad
            # Both begin at 0, and are too small at first.
            mean = self.means[i] / (1 - self.beta1**self.steps)
            square = self.squares[i] / (1 - self.beta2**self.steps)
            parameter.data -= learning_rate * mean / (math.sqrt(square) + 1e-8)


# --- writing --------------------------------------------------------------------------------------


def write(model: GPT, end: int, draw: random.Random, temperature: float = 0.7) -> list[int]:
    """A new text, token by token, until the model ends it or has no more positions."""
    memory: list[list[tuple[Vector, Vector]]] = [[] for _ in range(model.n_layer)]
    ids = [end]
    while len(ids) <= model.block_size:
        logits = model.read(ids[-1], memory)
        shares = softmax([logit * (1 / temperature) for logit in logits])
        (token,) = draw.choices(range(len(shares)), [share.data for share in shares])
        if token == end:
            break
        ids.append(token)
    return ids[1:]


def main() -> None:
    """Learns from the lines of a file, and writes twenty more."""
    parser = argparse.ArgumentParser(prog="python -m gpt.micro")
    parser.add_argument("file", type=Path, help="a text file, a name or another short text a line")
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
    end = len(characters)  # one more token: here a text begins, and here it ends
    draw = random.Random(1)  # noqa: S311 (the order of texts, no secret)
    draw.shuffle(texts)
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
            lately = losses[-50:]
            print(f"step {step + 1}: loss {sum(lately) / len(lately):.4f}", flush=True)
    for _ in range(20):
        print("".join(characters[token] for token in write(model, end, draw)))


if __name__ == "__main__":
    main()
