"""Plots: levels in the units of the curve, and bytes that depend on the values alone."""

import math
from pathlib import Path

import pandas as pd
import pytest

from gpt.evaluation.plots import baseline_levels, loss_plot


def test_baselines_become_levels_in_nats_per_token() -> None:
    baselines = {"uniform": 6.0, **{f"ngram_{n}": 5 - n / 2 for n in range(1, 7)}}
    baselines |= {"gzip": 2.8, "xz": 2.5}
    # Two bytes per token: one bit per byte is 2 ln 2 nats per token.
    val = {"loss": 4 * math.log(2), "bits_per_byte": 2.0, "floor_bits_per_byte": 1.0}
    levels = baseline_levels(val, baselines)
    assert levels["the model, on the whole split"] == pytest.approx(4 * math.log(2))
    assert levels["floor: the text's own information"] == pytest.approx(2 * math.log(2))
    assert levels["gzip"] == pytest.approx(2.8 * 2 * math.log(2))
    assert levels["6-gram, the best"] == pytest.approx(2.0 * 2 * math.log(2))


def test_a_text_of_one_character_has_levels_too() -> None:
    baselines = {"uniform": 0.0, **{f"ngram_{n}": 0.0 for n in range(1, 7)}, "gzip": 0.1, "xz": 0.2}
    levels = baseline_levels({"loss": 0.0, "bits_per_byte": 0.0}, baselines)
    assert levels["the model, on the whole split"] == 0.0
    assert levels["gzip"] == pytest.approx(0.1 * math.log(2))


def test_a_plot_is_the_same_bytes_for_the_same_values(tmp_path: Path) -> None:
    curve = pd.DataFrame({"step": [0, 1], "train_loss": [4.0, 3.0], "val_loss": [4.1, None]})
    plots = []
    for name, level in (("first", 2.5), ("second", 2.5), ("third", 2.6)):
        path = tmp_path / f"{name}.png"
        loss_plot(path, curve, {"gzip": level}, "Loss")
        plots.append(path.read_bytes())
    assert plots[0] == plots[1] != plots[2]
