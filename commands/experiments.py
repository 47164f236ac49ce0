"""Finished experiments, wherever they lie: the working folder, DVC's experiments, any git revision.

Reads what is committed; runs nothing and writes nothing. Knows nothing of MLflow.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gpt.config import ModelConfig
from gpt.errors import ParamsError
from gpt.evaluation.flops import flops_per_token
from repro.repository import Commit, Files, WorkingFolder, git
from repro.tracking.backfill import experiment_commits
from stages.params import (
    CURVE,
    EVALUATE_METRICS,
    TOKENIZE_METRICS,
    TRAIN_METRICS,
    Params,
    parse,
    parse_older,
)

WORKSPACE = "workspace"
# What may differ between runs that are compared as one: luck, and what is no part of the model.
NOT_OF_THE_MODEL = ("seed", "sample.", "evaluate.")


@dataclass(frozen=True)
class Experiment:
    """One finished run of the pipeline."""

    name: str
    params: Params
    metrics: dict[str, Any]  # of evaluate
    train: dict[str, Any]
    vocab_size: int
    curve: pd.DataFrame

    @property
    def bits_per_byte(self) -> float:
        """Of the validation split."""
        return float(self.metrics["val"]["bits_per_byte"])

    @property
    def model(self) -> ModelConfig:
        return self.params.resolved()[0]

    def setting(self) -> dict[str, Any]:
        """The params that make the model, luck left out."""
        flat = self.params.flat()
        return {k: v for k, v in flat.items() if not k.startswith(NOT_OF_THE_MODEL)}

    def flops(self) -> float:
        """Of the whole training."""
        return float(flops_per_token(self.model, self.vocab_size) * self.train["tokens"])

    def learning(self) -> list[tuple[float, float]]:
        """(operations spent, validation loss) at each look."""
        looks = self.curve.dropna(subset=["val_loss"])
        a_token = flops_per_token(self.model, self.vocab_size)
        return [
            (float(tokens) * a_token, float(loss))
            for tokens, loss in zip(looks["tokens"], looks["val_loss"], strict=True)
        ]


def names() -> list[str]:
    """The working folder, and DVC's experiments from the oldest on."""
    return [WORKSPACE, *(name for _, name in experiment_commits())]


def read(name: str) -> Experiment:
    """The experiment of that name. Raises ParamsError where there is none, or it is not whole."""
    files = files_of(name)
    try:
        read_params = parse if name == WORKSPACE else parse_older
        params = read_params((files.read("params.yaml") or b"").decode(), f"{name}: params.yaml")
        found = {
            path.stem: json.loads(files.read(str(path)) or b"")
            for path in (EVALUATE_METRICS, TRAIN_METRICS, TOKENIZE_METRICS)
        }
        curve = pd.read_csv(io.BytesIO(files.read(str(CURVE)) or b""))
        vocab_size = int(found["tokenize"]["vocab_size"])
        float(found["evaluate"]["val"]["bits_per_byte"]) + float(found["train"]["tokens"])
    except (ValueError, KeyError, TypeError):
        raise ParamsError(
            f"{name}: its metrics are not there or not whole; run it: dvc repro, or dvc queue start"
        ) from None
    return Experiment(name, params, found["evaluate"], found["train"], vocab_size, curve)


def files_of(name: str) -> Files:
    """Where the files of that experiment are read from. Raises ParamsError where there is none."""
    if name == WORKSPACE:
        return WorkingFolder()
    for sha, experiment in experiment_commits():
        if experiment == name:
            return Commit(sha)
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if commit is None:
        known = ", ".join(names()[-8:])
        raise ParamsError(f"{name}: no experiment and no git revision of that name; known: {known}")
    return Commit(commit.decode().strip())
