"""Batches and windows of token files, and token files that are refused."""

import hashlib
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt.batches import Batches, EpochBatches, Part, ShardedIds, even_windows, open_tokens
from gpt.errors import DataError

IDS = np.arange(100, dtype=np.uint16)


def batches(
    ids: np.ndarray = IDS, block_size: int = 8, batch_size: int = 4, seed: int = 0
) -> Batches:
    return Batches(ids, block_size=block_size, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize("ends", [[100], [1, 100], [30, 31, 90, 100], [0, 50, 50, 100]])
def test_several_files_read_like_one(ends: list[int]) -> None:
    edges = [0, *ends]
    sharded = ShardedIds([IDS[a:b] for a, b in pairwise(edges)])
    assert (len(sharded), sharded.dtype) == (100, IDS.dtype)
    for wanted in (slice(None), slice(-7, None), slice(20, 95), slice(5, 5), slice(90, 300)):
        assert sharded[wanted].tolist() == IDS[wanted].tolist()
    places = np.array([[99, 0, 31], [30, 29, 90]])
    assert sharded[places].tolist() == IDS[places].tolist()
    one, other = (Batches(ids, block_size=8, batch_size=4, seed=0) for ids in (IDS, sharded))
    assert torch.equal(one.batch(2)[0], other.batch(2)[0])


def test_crops_stay_within_a_source_and_have_its_share() -> None:
    parts = [Part("a", 30, 3.0), Part("b", 70, 1.0)]
    of = Batches(IDS, block_size=8, batch_size=64, seed=0, parts=parts)
    first = starts(of, 50)
    in_a = first < 30
    assert first[in_a].max() == 30 - 8 - 1
    assert (first[~in_a].min(), first[~in_a].max()) == (30, 100 - 8 - 1)
    assert 0.72 < in_a.mean() < 0.78


def test_a_source_shorter_than_a_block_is_named() -> None:
    with pytest.raises(DataError, match="of b has 8 tokens"):
        Batches(
            IDS, block_size=8, batch_size=1, seed=0, parts=[Part("a", 92, 1.0), Part("b", 8, 1.0)]
        )


def starts(of: Batches, steps: int) -> np.ndarray:
    """The first id of every crop; of IDS, which count up, that is where it starts."""
    return torch.cat([of.batch(step)[0][:, 0] for step in range(steps)]).numpy()


# --- batches --------------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    torch.manual_seed(1)
    forward = [batches().batch(step)[0] for step in range(5)]
    torch.manual_seed(2)
    one = batches()
    backward = [one.batch(step)[0] for step in reversed(range(5))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_a_batch_draws_nothing_from_the_random_generators_of_torch_and_numpy() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    batches().batch(3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"seed": 2**62}, {"step": 1}, {"part": 1}, {"step": 2**40}], ids=repr
)
def test_another_seed_step_or_part_gives_another_batch(other: dict[str, int]) -> None:
    seed = other.pop("seed", 0)
    changed = batches(seed=seed).batch(**({"step": 0} | other))[0]
    assert not torch.equal(changed, batches().batch(0)[0])


def test_targets_are_inputs_moved_by_one() -> None:
    inputs_bt, targets_bt = batches().batch(7)
    assert inputs_bt.shape == targets_bt.shape == (4, 8)
    assert torch.equal(targets_bt, inputs_bt + 1)
    assert torch.equal(inputs_bt, inputs_bt[:, :1] + torch.arange(8))


def test_batches_are_pinned() -> None:
    # Drawn by a counter, so the same on every machine. Changed on purpose? Every training of
    # every user changes with it: say so in CHANGELOG.md.
    drawn = [
        starts(batches(seed=1337), 2).tolist(),
        batches(seed=1337).batch(5, 1)[0][:, 0].tolist(),
    ]
    assert drawn == [[66, 84, 88, 90, 78, 29, 58, 86], [65, 1, 36, 60]]


def test_every_start_is_drawn_and_with_equal_chance() -> None:
    places = len(IDS) - 8
    counts = np.bincount(starts(batches(batch_size=500), 40), minlength=places)
    assert len(counts) == places, "the last start, and none beyond it"
    expected = counts.sum() / places
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 91 degrees of freedom: mean 91, standard deviation 13.5. The seed is fixed.
    assert 50 < chi_square < 140


@pytest.mark.fault(16, planted=planted.EXACT_TEXT_REFUSED)
def test_a_text_of_one_block_and_one_token_is_enough() -> None:
    inputs_bt, targets_bt = batches(IDS[:9]).batch(0)
    assert inputs_bt.tolist() == [list(range(8))] * 4
    assert targets_bt.tolist() == [list(range(1, 9))] * 4


@pytest.mark.fault(16, planted=planted.SHORT_TEXT_TAKEN)
def test_a_text_one_token_shorter_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"has 8 tokens, and a block of 8 needs 9; "):
        batches(IDS[:8])


# --- epochs ---------------------------------------------------------------------------------------


def epochs(ids: np.ndarray = IDS, **changed: int) -> EpochBatches:
    shape = {"block_size": 8, "batch_size": 4, "seed": 0} | changed
    return EpochBatches(ids, **shape)  # type: ignore[arg-type]


@given(
    count=st.integers(9, 300),
    batch_size=st.integers(1, 7),
    passes=st.integers(1, 3),
    data=st.data(),
)
def test_an_epoch_meets_each_token_once_but_those_at_the_ends(
    count: int, batch_size: int, passes: int, data: st.DataObject
) -> None:
    of = epochs(np.arange(count, dtype=np.uint16), batch_size=batch_size, passes=passes)
    blocks = max(1, (count - 1) // 8 - 1)
    epoch = data.draw(st.integers(0, 3))
    met = []
    for number in range(epoch * blocks, (epoch + 1) * blocks):
        step, rest = divmod(number, batch_size * passes)
        inputs_bt, targets_bt = of.batch(step, rest // batch_size)
        row = rest % batch_size
        met += targets_bt[row].tolist()
        assert torch.equal(targets_bt[row], inputs_bt[row] + 1)
    assert len(met) == len(set(met)) == 8 * blocks
    assert max(met) - min(met) == 8 * blocks - 1, "side by side"


def test_an_epoch_begins_at_a_place_and_takes_an_order_of_its_own() -> None:
    blocks = 100 // 8 - 1
    of = epochs(batch_size=blocks)
    orders = [of.batch(epoch)[0][:, 0] for epoch in range(20)]
    begins = {int(order.min()) for order in orders}
    assert len(begins) > 4 and max(begins) < 8
    assert len({tuple((order // 8).tolist()) for order in orders}) == 20


def test_a_batch_of_epochs_is_a_function_of_seed_and_step_alone() -> None:
    forward = [epochs().batch(step)[0] for step in range(9)]
    one = epochs()
    backward = [one.batch(step)[0] for step in reversed(range(9))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not torch.equal(epochs(seed=1).batch(0)[0], forward[0])


def test_two_passes_of_half_the_rows_are_one_batch() -> None:
    halves = epochs(batch_size=2, passes=2)
    for step in range(7):
        parts = [halves.batch(step, part)[0] for part in range(2)]
        assert torch.equal(torch.cat(parts), epochs().batch(step)[0])


def test_batches_of_epochs_are_pinned() -> None:
    # As those of random crops, above.
    assert epochs(seed=1337).batch(5)[0][:, 0].tolist() == [78, 14, 83, 51]


def test_an_epoch_of_a_text_of_one_block_and_one_token_is_enough() -> None:
    inputs_bt, targets_bt = epochs(IDS[:9]).batch(0)
    assert inputs_bt.tolist() == [list(range(8))] * 4
    assert targets_bt.tolist() == [list(range(1, 9))] * 4


def test_an_epoch_of_a_text_one_token_shorter_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"has 8 tokens, and a block of 8 needs 9; "):
        epochs(IDS[:8])


# --- validation windows ---------------------------------------------------------------------------


@given(count=st.integers(2, 200), block_size=st.integers(1, 20), tokens=st.integers(1, 300))
def test_validation_windows_are_whole_blocks_that_do_not_overlap(
    count: int, block_size: int, tokens: int
) -> None:
    ids = np.arange(count, dtype=np.uint16)
    windows = even_windows(ids, block_size=block_size, tokens=tokens, batch_size=3)
    block_size = min(block_size, count - 1)
    targets = torch.cat([targets_bt for _, targets_bt in windows])
    assert targets.shape[1] == block_size
    assert len(targets.unique()) == targets.numel() <= max(tokens, block_size)
    assert all(torch.equal(inputs_bt + 1, targets_bt) for inputs_bt, targets_bt in windows)
    assert all(len(inputs_bt) <= 3 for inputs_bt, _ in windows)


def test_validation_windows_cover_everything_where_there_are_tokens_enough() -> None:
    windows = even_windows(IDS, block_size=9, tokens=99, batch_size=4)
    targets = torch.cat([targets_bt.flatten() for _, targets_bt in windows])
    assert targets.tolist() == list(range(1, 100))


def test_validation_windows_are_spread_over_the_whole_split() -> None:
    ids = np.arange(10_001, dtype=np.uint16)
    windows = even_windows(ids, block_size=10, tokens=100, batch_size=100)
    gaps = windows[0][0][:, 0].diff()
    assert windows[0][0].shape == (10, 10)
    assert gaps.tolist() == [1000] * 9


@pytest.mark.parametrize("count", [0, 1])
def test_a_validation_split_without_a_target_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"has {count} tokens"):
        even_windows(IDS[:count], block_size=8, tokens=8, batch_size=1)


# --- token files ----------------------------------------------------------------------------------


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def token_file(folder: Path, raw: bytes, tokens: int = 100) -> Path:
    """A split `train` of the bytes `raw`, with a manifest that vouches for them."""
    (folder / "train.npy").write_bytes(raw)
    facts = {"tokens": tokens, "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "tokens.json").write_text(json.dumps({"splits": {"train": facts}}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_token_file_gives_its_ids(tmp_path: Path, dtype: type, count: int) -> None:
    ids = np.arange(count, dtype=dtype)
    opened = open_tokens(token_file(tmp_path, npy(ids), count), "train", vocab_size=100)
    assert opened.dtype == dtype
    assert opened.tolist() == ids.tolist()


def test_a_token_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    assert isinstance(open_tokens(token_file(tmp_path, npy(IDS)), "train", 100), np.memmap)


@pytest.mark.fault(14, planted=planted.CACHE_TRUSTED)
@pytest.mark.parametrize("at", [0, 8, 60, 128, -1])
def test_one_flipped_bit_in_a_token_file_is_caught(tmp_path: Path, at: int) -> None:
    raw = bytearray(npy(IDS))
    token_file(tmp_path, bytes(raw))
    raw[at] ^= 1
    (tmp_path / "train.npy").write_bytes(raw)
    with pytest.raises(DataError, match=r"train\.npy: its sha256"):
        open_tokens(tmp_path, "train", 100)


@pytest.mark.fault(19, planted=planted.ID_TOO_LARGE_TAKEN)
def test_an_id_of_the_vocabularys_size_is_refused_and_one_less_is_not(tmp_path: Path) -> None:
    folder = token_file(tmp_path, npy(IDS))
    assert len(open_tokens(folder, "train", 100)) == 100
    with pytest.raises(DataError, match=r"train\.npy: id 99 is outside the vocabulary of 99"):
        open_tokens(folder, "train", 99)


REFUSED = {
    "a missing half token": npy(IDS)[:-1],
    "a missing token": npy(IDS[:-1]),
    "no header": IDS.tobytes(),
    "empty": b"",
    "signed ids": npy(IDS.astype(np.int32)),
    "wide ids": npy(IDS.astype(np.int64)),
    "big-endian ids": npy(IDS.astype(">u2")),
    "fractions": npy(IDS.astype(np.float32)),
    "two dimensions": npy(IDS[:, None]),
    "no dimension": npy(np.uint16(5)),
    "a header of absurd length": npy(IDS).replace(b"(100,), }  ", b"(9999999999,), }"),
}


@pytest.mark.fault(19, planted=planted.ANY_TOKEN_DTYPE_TAKEN)
@pytest.mark.parametrize("name", REFUSED)
def test_a_token_file_of_another_form_is_refused_even_if_its_hash_is_right(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(DataError, match=r"train\.npy: .*; delete \.dvc/cache/files"):
        open_tokens(token_file(tmp_path, REFUSED[name]), "train", 2**16)


class Payload:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.fault(24, planted=planted.PICKLED_TOKENS_RUN)
@pytest.mark.parametrize("tokens", [0, 1])  # an empty file is read, others are mapped
def test_a_pickle_in_a_token_file_is_refused_and_not_run(tmp_path: Path, tokens: int) -> None:
    mark = tmp_path / "ran"
    array = np.empty(1, dtype=object)
    array[0] = Payload(mark)
    raw = npy(array, allow_pickle=True)
    np.load(io.BytesIO(raw), allow_pickle=True)
    assert mark.exists(), "the payload works where pickles are loaded"
    mark.unlink()
    with pytest.raises(DataError, match=r"train\.npy"):
        open_tokens(token_file(tmp_path, raw, tokens), "train", 100)
    assert not mark.exists()


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    token_file(tmp_path, npy(IDS))
    (tmp_path / "train.npy").unlink()
    with pytest.raises(DataError, match=r"train\.npy: No such file"):
        open_tokens(tmp_path, "train", 100)


@pytest.mark.parametrize("manifest", ["", "{}", '{"splits": {}}', '{"splits": {"train": 1}}'])
def test_a_damaged_manifest_of_tokens_is_refused_in_one_line(tmp_path: Path, manifest: str) -> None:
    token_file(tmp_path, npy(IDS))
    (tmp_path / "tokens.json").write_text(manifest, encoding="utf-8")
    with pytest.raises(DataError, match=r"tokens\.json"):
        open_tokens(tmp_path, "train", 100)
