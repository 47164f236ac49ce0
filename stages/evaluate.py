"""Stage `evaluate`: score every validation and test token once.  python -m stages.evaluate

Reads data/model, data/tokens, metrics/curves/train.csv and the params `evaluate`. Writes
metrics/evaluate.json and metrics/pictures/loss.png.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from gpt.checkpoint import TrainedModel, load_model
from gpt.corpus import write_json
from gpt.dataset import manifest, open_tokens
from gpt.errors import DataError
from gpt.pictures import loss_picture
from gpt.scoring import bits_per_byte, block_windows, half_block_windows, token_losses
from gpt.tokenizer import Ids
from stages import stage
from stages.params import Params
from stages.tracking import Row

TOKENS = Path("data/tokens")
MODEL = Path("data/model")
CURVE = Path("metrics/curves/train.csv")
GAP_TOKENS = 32_768
PICTURE = Path("metrics/pictures/loss.png")


def evaluate(params: Params, row: Row) -> None:
    trained = load_model(MODEL)
    tokens = manifest(TOKENS)
    for split, sha256 in trained.record.data.items():
        if split in tokens["splits"] and tokens["splits"][split]["sha256"] != sha256:
            raise DataError(f"{TOKENS}/{split}.npy: not what {MODEL} was trained with; dvc repro")
    vocab_size = trained.record.vocab_size
    ids = {split: open_tokens(TOKENS, split, vocab_size) for split in ("train", "val", "test")}
    # For the gap to the validation split a part of the training split will do.
    ids["train"] = ids["train"][-GAP_TOKENS:]
    metrics: dict[str, Any] = {"parameters": trained.model.parameter_count()}
    scored = [split for split in ("val", "test", "train") if len(ids[split]) > 1]
    total = sum(len(ids[split]) - 1 for split in scored)
    # Windows overlap by half, so that twice as many tokens go through the model as are scored.
    with tqdm(desc="evaluate", total=2 * total, unit="tok", unit_scale=True, disable=None) as bar:
        for split in scored:
            metrics[split] = score(trained, ids[split], params.evaluate.batch_tokens, bar)
    metrics["gap"] = round(metrics["val"]["loss"] - metrics["train"]["loss"], 6)
    for split in ("val", "test"):
        facts = tokens["splits"][split]
        if split in metrics and "information_bits" in facts:
            floor = facts["information_bits"] / facts["bytes"]
            metrics[split]["floor_bits_per_byte"] = round(floor, 6)
            metrics[split]["above_floor"] = round(metrics[split]["bits_per_byte"] - floor, 6)
    write_json(Path("metrics/evaluate.json"), metrics)
    val = metrics["val"]
    loss_picture(PICTURE, pd.read_csv(CURVE), levels(trained, tokens, val), "Loss while training")
    line = f"validation: loss {val['loss']:.4f}, {val['bits_per_byte']:.4f} bits per byte"
    if "above_floor" in val:
        line += f", {val['above_floor']:.4f} above the floor of {val['floor_bits_per_byte']:.4f}"
    print(line)


def score(trained: TrainedModel, ids: Ids, batch_tokens: int, bar: Any) -> dict[str, float]:
    """loss, loss_blocks, bits_per_byte and perplexity of a split."""
    block_size = trained.model.config.block_size
    ways = [cut(len(ids), block_size) for cut in (half_block_windows, block_windows)]
    losses, blocks = token_losses(
        trained.model,
        ids,
        ways,
        trained.device,
        batch_tokens=batch_tokens,
        progress=bar.update,
    )
    loss = float(np.mean(losses))
    token_bytes = trained.tokenizer.token_bytes()
    return {
        "loss": round(loss, 6),
        "loss_blocks": round(float(np.mean(blocks)), 6),
        "bits_per_byte": round(bits_per_byte(losses, ids, token_bytes), 6),
        "perplexity": round(math.exp(loss), 6),
        "tokens": len(ids) - 1,
    }


def levels(
    trained: TrainedModel, tokens: dict[str, Any], val: dict[str, float]
) -> dict[str, float]:
    """Horizontal lines that tell what a loss means, in nats a token."""
    lines = {"every token alike": math.log(trained.record.vocab_size)}
    lines["scored on the whole split"] = val["loss"]
    facts = tokens["splits"]["val"]
    if "information_bits" in facts:
        lines["floor: the text's own information"] = (
            facts["information_bits"] * math.log(2) / val["tokens"]
        )
    return lines


if __name__ == "__main__":
    stage.main("evaluate", evaluate)
