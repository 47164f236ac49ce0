"""Types that several modules share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Ids = NDArray[np.integer[Any]]  # token ids, (n,), of the tokenizer's dtype


@dataclass(frozen=True)
class ParameterGroups:
    """Every parameter of a model once, by how it is trained."""

    hidden_matrices: list[tuple["Tensor", int]]  # the blocks'; each with how many it fuses
    embeddings: list["Tensor"]  # all other matrices, the head too; decayed like those above
    vectors: list["Tensor"]  # biases and gains of norms; never decayed
