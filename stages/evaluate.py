"""Stage `evaluate`: scores every validation and test token once.  python -m stages.evaluate

Reads data/model, data/tokens, metrics/curves/train.csv and the params `evaluate`. Writes
metrics/evaluate.json, metrics/curves/positions.csv and calibration.csv, and the plot of the loss.
"""

import math
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from gpt.batches import manifest, open_tokens
from gpt.checkpoint import TrainedModel, load_model
from gpt.errors import DataError
from gpt.evaluation import scoring
from gpt.evaluation.baselines import MAX_TRAIN_TOKENS, baseline_bits_per_byte, best_ngram
from gpt.evaluation.diagnostics import beaten_by_bigram, diagnose
from gpt.evaluation.minimal_pairs import prefers_right, writable
from gpt.evaluation.plots import baseline_levels, loss_plot
from gpt.files import rounded, write_json
from gpt.model_source import count_parameters
from gpt.types import Ids
from repro import run_stage
from repro.tracking.run import Run
from stages.params import (
    BASELINES,
    CALIBRATION,
    CURVE,
    EVALUATE_METRICS,
    LOSS_PICTURE,
    MODEL,
    POSITIONS,
    PROJECT,
    TOKENS,
    Params,
)
from verse.minimal_pairs import minimal_pairs

PAIR_PLAYS = 50  # about 200 minimal pairs of each rule
GAP_TOKENS = 32_768  # of the training split: enough for its distance from validation


def evaluate(params: Params, run: Run) -> None:
    trained = load_model(MODEL, params.model_source)
    trained.device.apply()
    stats = manifest(TOKENS)["splits"]
    for split, sha256 in trained.run_config.data.items():
        if split in stats and stats[split]["sha256"] != sha256:
            raise DataError(f"{TOKENS}/{split}.npy: not what {MODEL} was trained with; dvc repro")
    vocab_size = trained.tokenizer.vocab_size
    train_ids = open_tokens(TOKENS, "train", vocab_size)[-MAX_TRAIN_TOKENS:]
    ids = {split: open_tokens(TOKENS, split, vocab_size)[:] for split in ("val", "test")}
    if len(ids["test"]) < 2:
        del ids["test"]  # no token to score
    ids["train"] = train_ids[-GAP_TOKENS:]
    metrics = score_splits(trained, ids, params.evaluate.batch_tokens)
    metrics["parameters"] = count_parameters(trained.model)
    metrics["gap"] = round(metrics["val"]["loss"] - metrics["train"]["loss"], 6)
    for split in ids.keys() - {"train"}:
        if "information_bits" in stats[split]:
            floor = stats[split]["information_bits"] / stats[split]["bytes"]
            above_floor = metrics[split]["bits_per_byte"] - floor
            metrics[split] |= rounded({"floor_bits_per_byte": floor, "above_floor": above_floor})
    metrics[BASELINES] = rounded(baseline_bits_per_byte(train_ids, ids["val"], trained.tokenizer))
    if trained.run_config.data["corpus"] == "verse":
        metrics["minimal_pairs"] = rounded(pair_accuracy(trained, params.evaluate.batch_tokens))
    curve = pd.read_csv(CURVE)
    findings = diagnose(curve.to_dict("records"), math.log(vocab_size))  # type: ignore[arg-type]
    if worse := beaten_by_bigram(metrics["val"]["bits_per_byte"], metrics[BASELINES]["ngram_2"]):
        findings.insert(0, worse)
        print(worse)
    metrics["diagnosis"] = ", ".join(finding.title for finding in findings) or "healthy"
    write_json(EVALUATE_METRICS, metrics)
    levels = baseline_levels(metrics["val"], metrics[BASELINES])
    loss_plot(LOSS_PICTURE, curve, levels, "Loss while training")
    print(summary(metrics))


def score_splits(trained: TrainedModel, ids: dict[str, Ids], batch_tokens: int) -> dict[str, Any]:
    """The metrics of each split. Writes the curves of the validation split."""
    tokenizer, block_size = trained.tokenizer, trained.model.config.block_size
    metrics: dict[str, Any] = {}
    # Windows that overlap by half send every token through the model twice.
    total = scoring.CROP_TOKENS + 2 * sum(len(split_ids) - 1 for split_ids in ids.values())
    with tqdm(desc="evaluate", total=total, unit="tok", unit_scale=True, disable=None) as bar:
        scorer = scoring.Scorer(trained.model, trained.device, batch_tokens, bar.update)
        for split, split_ids in ids.items():
            cuts = (scoring.half_block_windows, scoring.block_windows)
            windowings = [cut(len(split_ids), block_size) for cut in cuts]
            half_block, blocks = scorer.token_scores(split_ids, windowings)
            metrics[split] = scoring.split_metrics(half_block, blocks, split_ids, tokenizer)
            if split == "val":
                calibration = scoring.calibration_curve(half_block)
                curve = pd.DataFrame(calibration)
                curve.round(6).to_csv(CALIBRATION, index=False, lineterminator="\n")
                positions = scoring.loss_by_position(blocks.losses, block_size)
                curve = pd.DataFrame({"position": range(1, len(positions) + 1), "loss": positions})
                curve.round(6).to_csv(POSITIONS, index=False, lineterminator="\n")
                metrics[split] |= scoring.crop_metrics(scorer, split_ids) | {
                    "accuracy": float(np.mean(half_block.correct)),
                    "calibration_error": scoring.expected_calibration_error(calibration),
                    "by_class": scoring.loss_by_class(half_block.losses, split_ids, tokenizer),
                }
    return {split: rounded(split_metrics) for split, split_metrics in metrics.items()}


def pair_accuracy(trained: TrainedModel, batch_tokens: int) -> dict[str, float]:
    """By rule of a play, the fraction of minimal pairs whose right line is the more likely one.

    Pairs with characters that a small corpus lacks are left out.
    """
    pairs = minimal_pairs(PAIR_PLAYS)
    known = writable(trained.tokenizer, ["".join(pair) for pair in pairs])
    pairs = list(compress(pairs, known))
    with tqdm(desc="minimal pairs", unit="tok", unit_scale=True, disable=None) as bar:
        scorer = scoring.Scorer(trained.model, trained.device, batch_tokens, bar.update)
        right = prefers_right(scorer, trained.tokenizer, [pair[1:] for pair in pairs])
    by_rule: dict[str, list[bool]] = {}
    for pair, is_right in zip(pairs, right, strict=True):
        by_rule.setdefault(pair.rule, []).append(is_right)
    return {rule: float(np.mean(verdicts)) for rule, verdicts in by_rule.items()}


def summary(metrics: dict[str, Any]) -> str:
    """The two lines that the stage prints."""
    val, baselines = metrics["val"], metrics[BASELINES]
    best = best_ngram(baselines)
    line = (
        f"validation: loss {val['loss']:.4f}, {val['bits_per_byte']:.4f} bits per byte "
        f"(95 % interval {val['bits_per_byte_low']:.4f} to {val['bits_per_byte_high']:.4f})"
    )
    if "above_floor" in val:
        line += f", {val['above_floor']:.4f} above the floor of {val['floor_bits_per_byte']:.4f}"
    return (
        f"{line}; random crops: {val['loss_crops']:.3f} +- {val['loss_crops_error']:.3f}\n"
        f"baselines, bits per byte: best n-gram {baselines[best]:.3f} (n = {best[-1]}), "
        f"xz {baselines['xz']:.3f}, gzip {baselines['gzip']:.3f}"
    )


if __name__ == "__main__":
    run_stage.main(PROJECT, "evaluate", evaluate)
