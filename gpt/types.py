"""Types that several modules share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.integer[Any]]  # token ids, (n,), of the tokenizer's dtype
