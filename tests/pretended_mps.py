"""Apple's GPU, pretended: tensors that say that they are elsewhere, while the CPU computes them.

The code takes the path of every device but the CPU, and a Recorder notes its operators. "meta"
stands for "mps", since a torch that was built without Apple's GPU differentiates nothing there.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import torchgen
import yaml
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

ELSEWHERE, HERE = torch.device("meta"), torch.device("cpu")
# copy_ has a case for each device, in one function; the rest only give memory another shape.
LEAVES = {"copy_", "detach", "alias", "_unsafe_view"}
IMPLICIT = "CompositeImplicitAutograd"
COMPOSITE = {IMPLICIT, "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"}
ATTENTION = "_scaled_dot_product_attention_math_for_mps"


class Recorder(TorchDispatchMode):
    """What ran on the device, by the operators' names in PyTorch's table.

    `float64` are those with a tensor of that type, which Apple's GPUs lack, and `to_host` counts
    copies to the CPU; a `_local_scalar_dense` is one more, as `item()` makes it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.float64: set[str] = set()
        self.to_host = 0
        self._taken_apart: set[str] = set()

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, leaves = kwargs or {}, tree_leaves((args, kwargs))
        if not any(_is_elsewhere(x) for x in leaves):
            return operator(*args, **kwargs)
        name = operator.name().removeprefix("aten::")
        if any(x is torch.float64 or getattr(x, "dtype", None) is torch.float64 for x in leaves):
            self.float64.add(name)
        composite = backends(name) & COMPOSITE
        if "MPS" not in backends(name) and composite and name not in LEAVES | self._taken_apart:
            # Written in terms of others, which are recorded in its place; once, since it is slow.
            self._taken_apart |= {name} - {"_to_copy"}
            with torch._C.DisableTorchFunction(), self:
                key = getattr(torch._C.DispatchKey, min(composite))
                return operator._op_dk(key, *args, **kwargs)
        self.operators[name] += 1
        self.to_host += name == "copy_" and not _is_elsewhere(args[0])
        result = operator(
            *_with_tensors(operator, tree_map(_here, args)), **tree_map(_here, kwargs)
        )
        if name == "copy_" and not _is_elsewhere(args[0]):
            return args[0]
        result = tree_map_only(Tensor, _Pretended, result)
        return return_and_correct_aliasing(operator, args, kwargs, result)


@contextlib.contextmanager
def pretended_mps() -> Iterator[Recorder]:
    """While it is entered, the device "mps" is here."""
    with (
        # The thread of another device would not see the recorder.
        torch.autograd.set_multithreading_enabled(False),
        # In inference mode operators are not taken apart; their numbers are the same.
        mock.patch("torch._C._InferenceMode", lambda mode: torch.no_grad()),
        mock.patch(
            "torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: ["meta", "cpu"]
        ),
        warnings.catch_warnings(),
        Recorder() as recorder,
        _FunctionMode(recorder),
    ):
        warnings.filterwarnings("ignore", ".*copying from a non-meta parameter")
        yield recorder


class _Pretended(Tensor):
    """A tensor of the CPU, `computed`, that says that it is elsewhere."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, computed: Tensor) -> "_Pretended":
        return Tensor._make_wrapper_subclass(
            cls,
            computed.size(),
            strides=computed.stride(),
            storage_offset=computed.storage_offset(),
            dtype=computed.dtype,
            device=ELSEWHERE,
        )

    def __init__(self, computed: Tensor) -> None:
        self.computed = computed

    @classmethod
    def __torch_dispatch__(cls, operator: Any, *arguments: Any) -> Any:
        raise RuntimeError(f"{operator} of a pretended tensor without a recorder")


class _FunctionMode(TorchFunctionMode):
    """Names the device, and chooses an attention as a torch for Apple's GPU does."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map_only(str, _named, (args, kwargs or {}))
        if function is torch.tensor and kwargs.get("device") == ELSEWHERE:
            return torch.tensor(*args, **kwargs | {"device": HERE}).to(ELSEWHERE)
        if function is not F.scaled_dot_product_attention or not _is_elsewhere(args[0]):
            return function(*args, **kwargs)
        if not (kwargs["dropout_p"] or torch.is_grad_enabled()):
            self.recorder.operators[ATTENTION] += 1
        return torch.ops.aten._scaled_dot_product_attention_math(*args, **kwargs)[0]


def _named(x: str) -> str | torch.device:
    return ELSEWHERE if x == "mps" else x


def _is_elsewhere(x: Any) -> bool:
    return isinstance(x, _Pretended) or (isinstance(x, torch.device) and x == ELSEWHERE)


def _here(x: Any) -> Any:
    return (x.computed if isinstance(x, _Pretended) else HERE) if _is_elsewhere(x) else x


def _with_tensors(operator: Any, args: tuple[Any, ...]) -> list[Any]:
    """PyTorch hands a number to a mode where the operator takes a tensor."""
    return [
        torch.tensor(x) if isinstance(x, int | float) and "Tensor" in str(argument.type) else x
        for x, argument in zip(args, operator._schema.arguments, strict=False)
    ]


# --- PyTorch's table ------------------------------------------------------------------------------


@cache
def _table() -> dict[str, set[str]]:
    """Of each operator the backends that have a kernel, from what PyTorch is generated from."""
    folder = Path(torchgen.__file__).parent / "packaged/ATen/native"
    text = (folder / "native_functions.yaml").read_text(encoding="utf-8")
    entries = {
        entry["func"].partition("(")[0]: entry for entry in yaml.load(text, yaml.CSafeLoader)
    }
    table = {}
    for name, entry in entries.items():
        kernels = entries[entry.get("structured_delegate", name)].get("dispatch", {IMPLICIT: ""})
        # What only makes an output, empty, is as its form that is given one.
        out = entries.get(f"{name}.out", {}).get("dispatch", {})
        table[name] = set(", ".join([*kernels, *out]).split(", "))
    return table


def backends(name: str) -> set[str]:
    """The dispatch keys for which the operator has a kernel."""
    return _table().get(name, set())


def without_kernel(operators: Counter[str]) -> set[str]:
    """Those that Apple's GPU has no kernel for, nor PyTorch a form in terms of others."""
    return {
        name
        for name in operators
        if not (name in LEAVES or "MPS" in backends(name) or backends(name) & COMPOSITE)
    }
