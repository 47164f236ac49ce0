"""What the owner of a GPU sends in a report:  python -m gpt.device

Versions, the device that `auto` chooses, and the preset `quick` on it for a few updates and tokens,
compared with the CPU. Nothing is written. Not here: speed (benchmarks/).
"""

import argparse
import platform
import sys
import warnings
from functools import partial
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from gpt.batches import RandomCrops, val_batches
from gpt.decoding.decoder import KVCacheDecoder
from gpt.device import DTYPES, Device, choose_device
from gpt.model import GPT
from gpt.presets import resolve
from gpt.trainer import Trainer

VOCAB_SIZE, LINE_BREAKS = 65, (0,)
UPDATES = 5  # the first loss is that of a uniform guess, whatever the device
TOKENS = 32


def main() -> None:
    """Prints the report; exit code 1 where something did not work."""
    description = (__doc__ or "").splitlines()[0]
    argparse.ArgumentParser("python -m gpt.device", description=description).parse_args()
    device = choose_device()
    print(f"repro-gpt on {platform.platform()}, Python {platform.python_version()}")
    print(f"torch {device.torch}, device {device.name}: {_hardware(device.name)}")
    device.apply()
    trials = {dtype: partial(_training, choose_device(device.name, dtype)) for dtype in DTYPES}
    failed = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, trial in {**trials, "generation": partial(_generation, device)}.items():
            try:
                result = trial()
            except Exception as error:  # whatever it is belongs in the report
                failed, result = True, f"{type(error).__name__}: {_first_line(error)}"
            print(f"{name:<11} {result}")
    for line in sorted({_first_line(warning.message) for warning in caught}) or ["none"]:
        print(f"{'warning':<11} {line}")
    sys.exit(failed)


def _training(device: Device) -> str:
    losses = _train(device)[0]
    line = f"loss {losses[0]:.4f}, after {UPDATES} updates {losses[-1]:.6f}"
    if device.name == "cpu":
        return line
    expected = _train(choose_device("cpu", device.dtype))[0][-1]
    return f"{line}, on the CPU {expected:.6f} (difference {losses[-1] - expected:+.1e})"


def _generation(device: Device) -> str:
    cpu = choose_device("cpu", "float32")
    _, weights = _train(cpu)
    logits_tv, line = _generate(weights, device), f"{TOKENS} tokens"
    if device.name == "cpu":
        return line
    apart = (logits_tv - _generate(weights, cpu)).abs().max().item()
    return f"{line}, logits at most {apart:.1e} from the CPU's"


def _train(device: Device) -> tuple[list[float], dict[str, Tensor]]:
    """The loss of each update of `quick`, and the weights after them, on the CPU."""
    shape, config, _ = resolve("quick", {}, {"steps": UPDATES})
    ids = (np.arange(2000) ** 2 % VOCAB_SIZE).astype(np.uint16)  # something to learn
    sizes: dict[str, Any] = {"block_size": shape.block_size, "batch_size": config.batch_size}
    batches = RandomCrops(ids, seed=1, **sizes)
    val = val_batches(ids, tokens=config.eval_tokens, **sizes)
    model = GPT(shape, VOCAB_SIZE, seed=1, line_breaks=LINE_BREAKS)
    trainer = Trainer(model, batches, val, config, device, seed=1)
    return [trainer.train_step(step).loss for step in range(UPDATES)], trainer.weights()


@torch.inference_mode()
def _generate(weights: dict[str, Tensor], device: Device) -> Tensor:
    """The logits (t, v) of `TOKENS` tokens read one by one, as generation does."""
    shape, _, _ = resolve("quick", {}, {})
    model = GPT(shape, VOCAB_SIZE, line_breaks=LINE_BREAKS)
    model.load_state_dict(weights)
    decoder = KVCacheDecoder(model.eval().to(device.name))
    ids_t = torch.arange(TOKENS)
    return torch.cat([decoder.read(id_.view(1, 1).to(device.name)).cpu() for id_ in ids_t])


def _hardware(name: str) -> str:
    """The processor and its memory."""
    if name.startswith("cuda"):
        properties = torch.cuda.get_device_properties(name)
        return f"{properties.name}, {properties.total_memory / 1e9:.1f} GB"
    memory = f"{psutil.virtual_memory().total / 1e9:.1f} GB"
    if name == "mps":
        most = torch.mps.recommended_max_memory() / 1e9
        return f"{torch.backends.mps.get_name()}, {memory}, of it for the GPU {most:.1f} GB"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{capability}, {torch.get_num_threads()} threads, {memory}"


def _first_line(error: BaseException | str) -> str:
    return next(iter(str(error).splitlines()), "")
