"""The GPT in plain Python against PyTorch's, and its gradients against finite differences."""

import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt import micro
from gpt.config import ModelConfig, TrainConfig
from gpt.micro import Value
from gpt.model import GPT, cross_entropy
from gpt.optim import make_optimizers

TEXTS = [[5, 0, 3, 3, 1, 5], [5, 2, 5], [5, 4, 4, 1, 0, 2, 3, 4, 1, 5], [5, 1, 1, 5]]
VOCABULARY = 6
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 8, "block_size": 7}


pytestmark = pytest.mark.usefixtures("one_thread")


def twins() -> tuple[micro.GPT, GPT]:
    """The same model in plain Python and in PyTorch, its weights copied name by name."""
    ours = micro.GPT(VOCABULARY, **SHAPE, seed=1)
    theirs = GPT(ModelConfig(**SHAPE, architecture="gpt2", bias=False), VOCABULARY).double()
    names = {name for name, _ in theirs.named_parameters()}
    assert names == {f"{name}.weight" for name in ours.weights}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            matrix = ours.weights[name.removesuffix(".weight")]
            data = [[value.data for value in row] for row in matrix]
            parameter.copy_(torch.tensor(data, dtype=torch.float64).view_as(parameter))
    return ours, theirs


def test_it_learns_the_same_as_pytorch_loss_by_loss() -> None:
    ours, theirs = twins()
    config = TrainConfig(
        steps=100, batch_size=1, learning_rate=0.01, min_learning_rate=0.0, weight_decay=0.0
    )
    (adamw,) = make_optimizers(theirs, config)
    adam = micro.Adam(ours.parameters())
    losses = []
    for step in range(12):
        rate = 0.01 * (1 - step / 20)
        ids = TEXTS[step % len(TEXTS)]
        loss = micro.loss_of(ours, ids)
        loss.backward()
        adam.step(rate)

        seen = torch.tensor([ids[: SHAPE["block_size"] + 1]])
        expected = cross_entropy_in_float64(theirs, seen)
        adamw.zero_grad()
        expected.backward()
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.step()
        assert loss.data == pytest.approx(expected.item(), rel=0, abs=1e-9)
        losses.append(loss.data)
    assert losses[-1] < losses[3] - 0.2, "it learns"


def cross_entropy_in_float64(model: GPT, ids_bt: torch.Tensor) -> torch.Tensor:
    logits_btv = model(ids_bt[:, :-1])
    loss = torch.nn.functional.cross_entropy(logits_btv.flatten(0, 1), ids_bt[:, 1:].flatten())
    # The trainer's own loss is the same number in float32.
    assert cross_entropy(logits_btv, ids_bt[:, 1:]).item() == pytest.approx(loss.item(), rel=1e-5)
    return loss


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + b * 3.0,
        lambda a, b: a * b + a,
        lambda a, b: a**3 + b**-0.5,
        lambda a, b: (a * b).exp() + b.log(),
        lambda a, b: (a * b).tanh() * a,
        lambda a, b: micro.dot([a, b, a], [b, b, a]),
        lambda a, b: micro.mean([a, b * b, a * b]),
        lambda a, b: micro.gelu(a) * b,
        lambda a, b: micro.softmax([a, b, a * b])[1],
        lambda a, b: micro.norm([a, b, a * b], [[b, a, a]])[2],
    ],
)
def test_gradients_are_those_of_finite_differences(
    function: Callable[[Value, Value], Value],
) -> None:
    a, b, h = 0.7, 1.3, 1e-6
    left, right = Value(a), Value(b)
    function(left, right).backward()

    def at(x: float, y: float) -> float:
        return function(Value(x), Value(y)).data

    assert left.grad == pytest.approx((at(a + h, b) - at(a - h, b)) / (2 * h), rel=1e-6)
    assert right.grad == pytest.approx((at(a, b + h) - at(a, b - h)) / (2 * h), rel=1e-6)


def test_without_embeddings_the_loss_is_the_uniform_baseline() -> None:
    model = micro.GPT(VOCABULARY, **SHAPE)
    for row in model.weights["token_embedding"]:
        for value in row:
            value.data = 0.0
    assert micro.loss_of(model, TEXTS[0]).data == pytest.approx(math.log(VOCABULARY))


def test_a_text_ends_at_the_last_position_or_before() -> None:
    model, rng = micro.GPT(VOCABULARY, **SHAPE), random.Random(3)  # noqa: S311
    texts = [micro.generate(model, 5, rng, temperature=1.0) for _ in range(60)]
    assert {len(text) for text in texts} > {0, 1, SHAPE["block_size"]}
    assert max(map(len, texts)) == SHAPE["block_size"]
    assert all(0 <= token < 5 for text in texts for token in text)


def test_it_runs_without_any_package(tmp_path: Path) -> None:
    # A Python without this project's packages can run the file.
    names = tmp_path / "names.txt"
    names.write_text("anna\nhanna\nannan\n" * 5, encoding="utf-8")
    # -S: without site-packages.
    command = [sys.executable, "-I", "-S", micro.__file__, names, "--steps", "30"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert "15 texts, 3 characters" in shown
    assert "step 30: loss" in shown
    written = shown.split("step 30: ")[1].split("\n", 1)[1]
    assert set(written) <= set("ahn\n")


def test_a_file_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    for name, reason in (("bad", "UTF-8"), ("empty", "no lines"), ("none", "cannot be read")):
        done = subprocess.run(
            [sys.executable, "-m", "gpt.micro", tmp_path / f"{name}.txt"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1
