"""Train your own GPT: the library. It knows tensors and text; nothing of DVC, MLflow, params.yaml,
the command line or the environment.

Read in this order, a file each:

    micro        the whole idea in plain Python, without a library
    model        token ids in, logits out: three architectures
    kv_cache     keys and values of what was read, so that the next token costs one position
    optim        Muon, and the parameters each optimizer gets
    batches      inputs and targets of a step, a pure function of (seed, step)
    trainer      one update, the learning-rate schedule, and the loop around both
    callbacks    what a stage adds to the loop: the curve, dead units, a progress bar, samples
    generation   tokens out of logits: sampling, prompts, stop strings
    checkpoint   a model folder: safetensors, config.json, tokenizer.json
    training_state
                 the states from which a killed training resumes
    distributed  several processes that train one model
    device       cpu, cuda or mps; precision and threads
    device_report
                 what the owner of a GPU sends: python -m gpt.device
    config       the typed shape of a model and of a training
    presets      their values by name
    errors       what a user can fix, as one tree

and behind it packages: corpus (text in), tokenizers, decoding, kernels, evaluation, interop.

Shapes stand in names, x_btd for (b, t, d): b sequence, t position, s attended position, d model,
h head, e element of a head, v vocabulary. `k` is then keys, never a size.

    from gpt import GPT, Trainer, generate, load_model, load_tokenizer
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt.checkpoint import load_model
    from gpt.generation import generate
    from gpt.model import GPT
    from gpt.tokenizers.file import load_tokenizer
    from gpt.trainer import Trainer

__all__ = ["GPT", "Trainer", "generate", "load_model", "load_tokenizer"]

_MODULES = {
    "GPT": "gpt.model",
    "Trainer": "gpt.trainer",
    "generate": "gpt.generation",
    "load_model": "gpt.checkpoint",
    "load_tokenizer": "gpt.tokenizers.file",
}


def __getattr__(name: str) -> Any:
    """Imported at first use, so that reading params.yaml does not import torch."""
    if name not in _MODULES:
        raise AttributeError(f"module 'gpt' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
