"""AdamW with weight decay where it belongs, and the learning rate at every step."""

import math

import torch
from torch import nn

from gpt.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig, device: str) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); only matrices and embeddings decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        # One kernel for all parameters, where the device has it.
        fused=device.startswith(("cpu", "cuda")),
    )


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then half a cosine from the peak to `min_learning_rate` at the last step.

    The schedule of nanoGPT: step 0 already learns, and a warm-up longer than the run ends with it.
    """
    warmup = min(config.warmup_steps, config.steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, config.steps - warmup)
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
    return config.min_learning_rate + share * (config.learning_rate - config.min_learning_rate)
