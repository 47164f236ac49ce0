"""Builds the model that `model.source` names: gpt/model.py, or a file that somebody wrote.

The file has a class `GPT(config, vocab_size)`: ids (b, t) in, logits (b, t, v) out. It is code
and is run, so its name comes from params.yaml alone: what a checkpoint says of it is compared,
never imported.
"""

import importlib.util
import inspect
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
    """Modules built inside take no memory for weights (device "meta") and draw no random numbers.

    Drawing on that device would make PyTorch import its compiler, which takes a second.
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
    config: ModelConfig,
    vocab_size: int,
    seed: int = 0,
    line_breaks: Sequence[int] = (),
    file: Path | None = None,
) -> GPT:
    """The model of `config.source` with its initial weights, which `seed` decides.

    The class of another file is called as `GPT(config, vocab_size)`, with `seed` and `line_breaks`
    too where it has such arguments, and may draw initial weights from torch's global generator.
    `file` is where the code lies if not at the path `config.source`.
    Raises ParamsError where there is no such file or no such class in it.
    """
    if config.source == OUR_SOURCE:
        return GPT(config, vocab_size, seed, line_breaks)
    model_class = _class_of(file or Path(config.source))
    names = inspect.signature(model_class).parameters
    options = {"seed": seed, "line_breaks": line_breaks}
    options = {name: value for name, value in options.items() if name in names}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # To the library it is a GPT: what a model lacks is asked for where it is needed.
        model = cast(GPT, model_class(config, vocab_size, **options))
    model.config, model.vocab_size = config, vocab_size
    return model


def count_parameters(model: nn.Module) -> int:
    """Trained parameters, position embeddings included; a tied head counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _class_of(path: Path) -> type[nn.Module]:
    """The class `GPT` of a file. Exceptions of the file itself pass through, for its author."""
    spec = importlib.util.spec_from_file_location("model_of_" + path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ParamsError(f"model.source = {path}: no such Python file; see gpt workshop start")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses find their module by its name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    model_class = getattr(module, "GPT", None)
    if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
        raise ParamsError(f"model.source = {path}: has no class GPT(nn.Module); name yours GPT")
    return model_class
