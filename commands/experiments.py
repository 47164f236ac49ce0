"""Results of experiments: of the working folder, DVC's experiments, and any git revision.

Reads files and commits; runs nothing, writes nothing, and knows nothing of MLflow.
"""

import io
import json
import math
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from gpt.errors import ParamsError
from gpt.evaluation.flops import flops_per_token
from repro.repository import Commit, Files, WorkingFolder, git
from repro.tracking.backfill import experiment_commits
from stages.params import (
    CURVE,
    EVALUATE_METRICS,
    PREPARE_METRICS,
    TOKENIZE_METRICS,
    TRAIN_METRICS,
    Params,
    parse,
    parse_older,
)

if TYPE_CHECKING:
    import pandas as pd

WORKSPACE = "workspace"
# Params that may differ between runs of one setting: they change chance alone, or not the model.
NOT_OF_THE_SETTING = ("seed", "sample.", "evaluate.")


@dataclass(frozen=True)
class Experiment:
    """The results of one run of the pipeline."""

    name: str
    params: Params
    metrics: dict[str, Any]  # of the evaluate stage
    train: dict[str, Any]  # metrics of the train stage
    prepare: dict[str, Any]  # of the prepare stage; {} where they are missing
    vocab_size: int
    curve: "pd.DataFrame"

    @property
    def bits_per_byte(self) -> float:
        """Of the validation split."""
        return float(self.metrics["val"]["bits_per_byte"])

    @property
    def pair_accuracy(self) -> float | None:
        """Of minimal pairs, the mean over the rules; None for results without them."""
        accuracies = self.metrics.get("minimal_pairs")
        return sum(accuracies.values()) / len(accuracies) if accuracies else None

    def setting(self) -> dict[str, Any]:
        """The params that decide the model, without the seed."""
        flat = self.params.flat()
        return {k: v for k, v in flat.items() if not k.startswith(NOT_OF_THE_SETTING)}

    @property
    def text(self) -> str:
        """The validation text, in words: bits per byte compare on one text only."""
        data, val = self.params.data, self.prepare.get("val", {})
        words = [data.corpus, *([data.path] if "own" in data.corpora else ())]
        words += [f"{val[unit]:,} {unit}" for unit in ("bytes", "characters") if unit in val]
        return ", ".join([*words, f"data.seed {data.seed}"])

    @property
    def flops_per_token(self) -> int:
        return flops_per_token(self.params.resolved()[0], self.vocab_size)

    def flops(self) -> float:
        """FLOPs of the training."""
        return float(self.flops_per_token * self.train["tokens"])

    def learning(self) -> list[tuple[float, float]]:
        """(FLOPs spent, validation loss) at each evaluation during training."""
        evaluations, per_token = self.curve.dropna(subset=["val_loss"]), self.flops_per_token
        points = zip(evaluations["tokens"], evaluations["val_loss"], strict=True)
        return [(float(tokens) * per_token, float(loss)) for tokens, loss in points]


def names() -> list[str]:
    """The working folder, then DVC's experiments, oldest first."""
    return [WORKSPACE, *(name for _, name in experiment_commits())]


def read(name: str) -> Experiment:
    """The experiment `name`. Raises ParamsError for an unknown name or missing results."""
    files = files_of(name)
    try:
        read_params = parse if name == WORKSPACE else parse_older
        text = files.read("params.yaml")
        if text is None:
            raise ParamsError(f"{name}: has no params.yaml; name an experiment of this project")
        params = read_params(text.decode(), f"{name}: params.yaml")
        evaluate, train, tokenize = (
            json.loads(files.read(path.as_posix()) or b"")
            for path in (EVALUATE_METRICS, TRAIN_METRICS, TOKENIZE_METRICS)
        )
        prepare = json.loads(files.read(PREPARE_METRICS.as_posix()) or b"{}")
        import pandas as pd  # half a second, which a command without results must not wait

        curve = pd.read_csv(io.BytesIO(files.read(CURVE.as_posix()) or b""))
        experiment = Experiment(
            name, params, evaluate, train, prepare, int(tokenize["vocab_size"]), curve
        )
        # All that is read later; `text` fails where the sizes in it are no numbers.
        figures = [experiment.bits_per_byte, experiment.flops(), *chain(*experiment.learning())]
        if not (experiment.text and all(map(math.isfinite, figures))):
            raise ValueError("a figure is not finite")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ParamsError(
            f"{name}: its metrics are missing or incomplete; run it: dvc repro, or dvc queue start"
        ) from None
    return experiment


def read_finished() -> list[Experiment]:
    """The experiments of `names` that can be read; queued and failed ones are left out."""
    return read_all()[0]


def read_all() -> tuple[list[Experiment], list[str]]:
    """The experiments of `names`, and the names of those that cannot be read."""
    finished, unreadable = [], []
    for name in names():
        try:
            finished.append(read(name))
        except ParamsError:
            unreadable.append(name)
    return finished, unreadable


def files_of(name: str) -> Files:
    """The files of the experiment `name`. Raises ParamsError for an unknown name."""
    if name == WORKSPACE:
        return WorkingFolder()
    for sha, experiment in experiment_commits():
        if experiment == name:
            return Commit(sha)
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if commit is None:
        known = ", ".join(names()[-8:])
        raise ParamsError(f"{name}: no experiment or git revision of that name; known: {known}")
    return Commit(commit.decode().strip())
