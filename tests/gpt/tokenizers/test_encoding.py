"""Token files, and the warning about rare ids. Shards: tests/pipeline/test_shards.py."""

from pathlib import Path

import numpy as np
import pytest

from gpt.tokenizers.encoding import rare_ids_warning, write_ids


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
@pytest.mark.parametrize("sizes", [[], [0], [5], [1, 0, 2], [100_000, 1]], ids=repr)
def test_arrays_of_ids_are_written_as_one_that_numpy_reads(
    tmp_path: Path, dtype: str, sizes: list[int]
) -> None:
    arrays = [np.arange(size).astype(np.uint16) for size in sizes]
    count = write_ids(tmp_path / "a.npy", iter(arrays), np.dtype(dtype))
    read = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert (read.dtype, read.shape, count) == (np.dtype(dtype), (sum(sizes),), sum(sizes))
    assert np.array_equal(read, np.concatenate([np.empty(0, np.uint16), *arrays]))


def test_the_warning_suggests_a_vocabulary_that_the_text_can_teach() -> None:
    assert rare_ids_warning(np.array([10] * 5 + [9] * 5)) == ""
    line = rare_ids_warning(np.array([10] * 1500 + [9] * 2500))
    assert "2,500 of 4,000 ids occur fewer than 10 times" in line
    assert "tokenizer.vocab_size=1024" in line
