"""The file that the model is built from: gpt/model.py, or one that somebody wrote.

`model.source` of params.yaml names a Python file with a class `GPT`: ids (b, t) in, logits
(b, t, v) out. It is code and is run, so its name comes from params.yaml alone: what a checkpoint
says of it is compared, never imported.
"""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gpt.config import OUR_SOURCE, ModelConfig
from gpt.errors import ParamsError
from gpt.model import GPT


@contextmanager
def without_weights() -> Iterator[None]:
    """In it modules are made without memory for their weights (on the device "meta").

    Nor is anything drawn for them: PyTorch would load its compiler for that, which takes a second.
    """
    with torch.device("meta"), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__name__", "") in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def make_model(
    config: ModelConfig, vocab_size: int, seed: int = 0, line_breaks: Sequence[int] = ()
) -> GPT:
    """The model of `config.source`, with its initial weights.

    Another file than ours is asked for less, `GPT(config, vocab_size)` whose initial weights draw
    from torch's own generator, and what it makes is called with ids alone. Raises ParamsError where
    there is no such file or no such class in it.
    """
    if config.source == OUR_SOURCE:
        return GPT(config, vocab_size, seed, line_breaks)
    made = _class_of(Path(config.source))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = made(config, vocab_size)
    # What else is asked of a model; most set it themselves.
    ours = cast(GPT, model)
    ours.config, ours.vocab_size = config, vocab_size
    return ours


def count_parameters(model: nn.Module) -> int:
    """All trained numbers, position embeddings included; a tied head counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _class_of(path: Path) -> type[nn.Module]:
    """The class `GPT` of a file. What the file raises by itself is its author's to read."""
    spec = importlib.util.spec_from_file_location("model_of_" + path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ParamsError(f"model.source {path}: no such Python file; see gpt workshop start")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = getattr(module, "GPT", None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ParamsError(f"model.source {path}: has no class GPT(nn.Module)")
    return found
