"""A model's own code without the overhead of nn.Module: for one token, calls cost more than
arithmetic.

    inference_view   the same weights and forward methods; submodules and weights are plain
                     attributes, and calls go straight to forward

It knows no architecture, so a model with modules of its own gains as ours does. Not here: what is
computed (gpt/model.py).
"""

from functools import cache
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def inference_view(module: M) -> M:
    """A view of `module` for torch.inference_mode.

    It shares the weights: they may change in place, but not be replaced or moved.
    """
    hooked = module._forward_hooks or module._forward_pre_hooks
    kind: Any = type(module)
    view: M = object.__new__(kind if hooked else _view_class(kind))
    children = {name: child and inference_view(child) for name, child in module._modules.items()}
    # Attributes in __dict__ are found before nn.Module.__getattr__ is asked; `_modules` is what
    # iterating over a ModuleList reads.
    view.__dict__ = module.__dict__ | module._parameters | module._buffers | children
    view.__dict__["_modules"] = children
    return view


@cache
def _view_class(kind: type[nn.Module]) -> type[Any]:
    """`kind`, but calls go straight to forward."""
    return type(kind.__name__, (kind,), {"__call__": kind.forward})
