"""Stage `evaluate`: score every validation and test token once.  python -m stages.evaluate

Reads data/model, data/tokens, metrics/curves/train.csv and the params `evaluate`. Writes
metrics/evaluate.json, metrics/curves/positions.csv and calibration.csv, and the picture of the
loss. Beside the model's own figures stands the ladder: what guessing, counting and compressing make
of the same text, in bits per byte.
"""

import gzip
import lzma
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from gpt.batches import manifest, open_tokens
from gpt.checkpoint import TrainedModel, load_model
from gpt.errors import DataError
from gpt.evaluation.ngrams import kneser_ney_losses
from gpt.evaluation.plots import loss_picture
from gpt.evaluation.scoring import (
    TokenScores,
    bits_per_byte,
    bits_per_byte_interval,
    block_windows,
    calibration,
    crop_losses,
    expected_calibration_error,
    half_block_windows,
    loss_by_class,
    loss_by_position,
    random_crops,
    token_scores,
)
from gpt.files import write_json
from gpt.model_source import count_parameters
from gpt.tokenizers.base import Ids
from repro import run_stage as stage
from repro.tracking.run import Row
from stages.params import (
    CALIBRATION,
    CURVE,
    EVALUATE_METRICS,
    LOSS_PICTURE,
    MODEL,
    POSITIONS,
    TOKENS,
    Params,
)

GAP_TOKENS = 32_768
CROP_TOKENS = 32_768
ORDERS = 6
# The ladder counts at most the last so many tokens of the training split, and compresses at most
# the first so many bytes: seconds, whatever the corpus.
COUNTED_TOKENS = 2_000_000
COMPRESSED_BYTES = 4_000_000


def evaluate(params: Params, row: Row) -> None:
    trained = load_model(MODEL, params.model_source)
    tokens = manifest(TOKENS)
    for split, sha256 in trained.record.data.items():
        if split in tokens["splits"] and tokens["splits"][split]["sha256"] != sha256:
            raise DataError(f"{TOKENS}/{split}.npy: not what {MODEL} was trained with; dvc repro")
    vocab_size, block_size = trained.record.vocab_size, trained.model.config.block_size
    ids = {split: open_tokens(TOKENS, split, vocab_size)[:] for split in ("val", "test")}
    counted = open_tokens(TOKENS, "train", vocab_size)[-COUNTED_TOKENS:]
    # For the gap to the validation split a part of the training split will do.
    ids["train"] = counted[-GAP_TOKENS:]
    metrics: dict[str, Any] = {"parameters": count_parameters(trained.model)}
    splits = [split for split in ("val", "test", "train") if len(ids[split]) > 1]
    # Windows overlap by half, so that twice as many tokens go through the model as are scored.
    total = CROP_TOKENS + 2 * sum(len(ids[split]) - 1 for split in splits)
    with tqdm(desc="evaluate", total=total, unit="tok", unit_scale=True, disable=None) as bar:

        def advance(tokens: int) -> None:
            bar.update(tokens)

        for split in splits:
            halves, blocks = token_scores(
                trained.model,
                ids[split],
                [cut(len(ids[split]), block_size) for cut in (half_block_windows, block_windows)],
                trained.device,
                batch_tokens=params.evaluate.batch_tokens,
                progress=advance,
            )
            metrics[split] = scores(trained, ids[split], halves, blocks)
            if split == "val":
                metrics[split] |= crop_scores(trained, ids[split], params, advance)
                metrics[split] |= details(trained, ids[split], halves, blocks)
    metrics["gap"] = round(metrics["val"]["loss"] - metrics["train"]["loss"], 6)
    for split in ("val", "test"):
        facts = tokens["splits"][split]
        if split in metrics and "information_bits" in facts:
            floor = facts["information_bits"] / facts["bytes"]
            metrics[split]["floor_bits_per_byte"] = round(floor, 6)
            metrics[split]["above_floor"] = round(metrics[split]["bits_per_byte"] - floor, 6)
    metrics["ladder"] = ladder(trained, counted, ids["val"])
    write_json(EVALUATE_METRICS, metrics)
    loss_picture(LOSS_PICTURE, pd.read_csv(CURVE), levels(metrics), "Loss while training")
    print(summary(metrics))


def scores(
    trained: TrainedModel, ids: Ids, halves: TokenScores, blocks: TokenScores
) -> dict[str, Any]:
    """The figures of a split: losses in nats a token, and what they are as bits per byte."""
    loss = float(np.mean(halves.losses))
    token_bytes = trained.tokenizer.token_bytes()
    low, high = bits_per_byte_interval(halves.losses, ids, token_bytes)
    return {
        "loss": round(loss, 6),
        "loss_blocks": round(float(np.mean(blocks.losses)), 6),
        "bits_per_byte": round(bits_per_byte(halves.losses, ids, token_bytes), 6),
        "bits_per_byte_low": round(low, 6),
        "bits_per_byte_high": round(high, 6),
        "perplexity": round(math.exp(loss), 6),
        "tokens": len(ids) - 1,
    }


def crop_scores(
    trained: TrainedModel, ids: Ids, params: Params, advance: Callable[[int], None]
) -> dict[str, float]:
    """The figure that peers print while they train, and the standard error it has by its crops."""
    block_size = trained.model.config.block_size
    # Two at least, since one has no spread.
    crops = random_crops(len(ids), block_size, max(2, CROP_TOKENS // block_size))
    means = crop_losses(
        trained.model,
        ids,
        crops,
        trained.device,
        batch_tokens=params.evaluate.batch_tokens,
        progress=advance,
    )
    error = float(means.std(ddof=1)) / math.sqrt(len(means))
    return {"loss_crops": round(float(means.mean()), 6), "loss_crops_error": round(error, 6)}


def details(
    trained: TrainedModel, ids: Ids, halves: TokenScores, blocks: TokenScores
) -> dict[str, Any]:
    """Calibration and the loss by class; by position and by confidence as curves of their own."""
    bins = calibration(halves)
    POSITIONS.parent.mkdir(parents=True, exist_ok=True)
    positions = loss_by_position(blocks.losses, trained.model.config.block_size)
    table = pd.DataFrame({"position": np.arange(1, len(positions) + 1), "loss": positions})
    table.round(6).to_csv(POSITIONS, index=False, lineterminator="\n")
    pd.DataFrame(bins).round(6).to_csv(CALIBRATION, index=False, lineterminator="\n")
    classes = loss_by_class(halves.losses, ids, trained.tokenizer)
    return {
        "accuracy": round(float(np.mean(halves.correct)), 6),
        "calibration_error": round(expected_calibration_error(bins), 6),
        "by_class": {
            name: {key: round(value, 6) for key, value in facts.items()}
            for name, facts in classes.items()
        },
    }


def ladder(trained: TrainedModel, train: Ids, val: Ids) -> dict[str, float]:
    """Bits per byte of the validation split without any network.

    `uniform` guesses among the ids; `ngram_1` to `ngram_6` (Kneser-Ney) count in the training
    split; gzip and xz, at their best, see the validation text alone.
    """
    vocab_size, token_bytes = trained.record.vocab_size, trained.tokenizer.token_bytes()
    steps = {"uniform": np.full(len(val) - 1, math.log(vocab_size))}
    for n, losses in enumerate(kneser_ney_losses(train, val, vocab_size, ORDERS), start=1):
        steps[f"ngram_{n}"] = losses
    found = {name: bits_per_byte(losses, val, token_bytes) for name, losses in steps.items()}
    text = trained.tokenizer.decode(val).encode()[:COMPRESSED_BYTES]
    found["gzip"] = 8 * len(gzip.compress(text, 9, mtime=0)) / max(1, len(text))
    found["xz"] = 8 * len(lzma.compress(text, preset=9)) / max(1, len(text))
    return {name: round(value, 6) for name, value in found.items()}


def levels(metrics: dict[str, Any]) -> dict[str, float]:
    """The ladder as horizontal lines in the picture of the loss, in nats a token."""
    val, steps = metrics["val"], metrics["ladder"]
    a_bit_per_byte = val["loss"] / val["bits_per_byte"]
    best = min((name for name in steps if name.startswith("ngram")), key=lambda name: steps[name])
    named = {
        "guessing": steps["uniform"],
        "1-gram": steps["ngram_1"],
        "2-gram": steps["ngram_2"],
        "3-gram": steps["ngram_3"],
        f"{best.removeprefix('ngram_')}-gram, the best": steps[best],
        "gzip": steps["gzip"],
        "xz": steps["xz"],
        "the model, on the whole split": val["bits_per_byte"],
    }
    if "floor_bits_per_byte" in val:
        named["floor: the text's own information"] = val["floor_bits_per_byte"]
    return {name: level * a_bit_per_byte for name, level in named.items()}


def summary(metrics: dict[str, Any]) -> str:
    """What the stage prints."""
    val, steps = metrics["val"], metrics["ladder"]
    best = min((name for name in steps if name.startswith("ngram")), key=lambda name: steps[name])
    line = (
        f"validation: loss {val['loss']:.4f}, {val['bits_per_byte']:.4f} bits per byte "
        f"({val['bits_per_byte_low']:.4f} to {val['bits_per_byte_high']:.4f} on other such texts)"
    )
    if "above_floor" in val:
        line += f", {val['above_floor']:.4f} above the floor of {val['floor_bits_per_byte']:.4f}"
    return (
        f"{line}; random crops say {val['loss_crops']:.3f} +- {val['loss_crops_error']:.3f}\n"
        f"beside it, bits per byte: best n-gram {steps[best]:.3f} (n = {best[-1]}), "
        f"xz {steps['xz']:.3f}, gzip {steps['gzip']:.3f}"
    )


if __name__ == "__main__":
    stage.main("evaluate", evaluate)
