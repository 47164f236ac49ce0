"""Batches of token files in three orders, validation batches, and token files that are refused."""

import hashlib
import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt.batches import (
    BatchSource,
    BestFit,
    Epochs,
    RandomCrops,
    ShardedIds,
    WeightedSource,
    document_starts,
    make_batches,
    open_tokens,
    val_batches,
    weighted_sources,
)
from gpt.errors import DataError
from gpt.presets import resolve

IDS = np.arange(100, dtype=np.uint16)


def crops(
    ids: np.ndarray = IDS, block_size: int = 8, batch_size: int = 4, seed: int = 0
) -> RandomCrops:
    return RandomCrops(ids, block_size=block_size, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize("ends", [[100], [1, 100], [30, 31, 90, 100], [0, 50, 50, 100]])
def test_several_files_read_as_one_does(ends: list[int]) -> None:
    edges = [0, *ends]
    sharded = ShardedIds([IDS[a:b] for a, b in pairwise(edges)])
    assert (len(sharded), sharded.dtype) == (100, IDS.dtype)
    for index in (slice(None), slice(-7, None), slice(20, 95), slice(5, 5), slice(90, 300)):
        assert sharded[index].tolist() == IDS[index].tolist()
    offsets = np.array([[99, 0, 31], [30, 29, 90]])
    assert sharded[offsets].tolist() == IDS[offsets].tolist()
    assert torch.equal(crops(sharded).batch(2)[0], crops(IDS).batch(2)[0])


def test_crops_stay_within_a_source_and_have_its_weight() -> None:
    sources = [WeightedSource("a", 30, 3.0), WeightedSource("b", 70, 1.0)]
    of = RandomCrops(IDS, block_size=8, batch_size=64, seed=0, sources=sources)
    first = starts(of, 50)
    in_a = first < 30
    assert first[in_a].max() == 30 - 8 - 1
    assert (first[~in_a].min(), first[~in_a].max()) == (30, 100 - 8 - 1)
    assert 0.72 < in_a.mean() < 0.78


def test_a_source_shorter_than_a_block_is_named() -> None:
    sources = [WeightedSource("a", 92, 1.0), WeightedSource("b", 8, 1.0)]
    with pytest.raises(DataError, match="of b has 8 tokens"):
        RandomCrops(IDS, block_size=8, batch_size=1, seed=0, sources=sources)


def starts(of: BatchSource, steps: int) -> np.ndarray:
    """The first id of every crop; of IDS, which count up, that is where it starts."""
    return torch.cat([of.batch(step)[0][:, 0] for step in range(steps)]).numpy()


# --- random crops ---------------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    torch.manual_seed(1)
    forward = [crops().batch(step)[0] for step in range(5)]
    torch.manual_seed(2)
    of = crops()
    backward = [of.batch(step)[0] for step in reversed(range(5))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))


def test_a_batch_takes_nothing_from_the_random_generators_of_torch_and_numpy() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    crops().batch(3)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


@pytest.mark.parametrize(
    ("seed", "step", "micro_step"),
    [(1, 0, 0), (2**62, 0, 0), (0, 1, 0), (0, 0, 1), (0, 2**40, 0)],
)
def test_another_seed_step_or_micro_step_gives_another_batch(
    seed: int, step: int, micro_step: int
) -> None:
    changed = crops(seed=seed).batch(step, micro_step)[0]
    assert not torch.equal(changed, crops().batch(0)[0])


def test_targets_are_inputs_moved_by_one() -> None:
    inputs_bt, targets_bt = crops().batch(7)
    assert inputs_bt.shape == targets_bt.shape == (4, 8)
    assert torch.equal(targets_bt, inputs_bt + 1)
    assert torch.equal(inputs_bt, inputs_bt[:, :1] + torch.arange(8))


def test_batches_are_pinned() -> None:
    # Sampled by a counter, so the same on every machine. Changed on purpose? Every training of
    # every user changes with it: say so in CHANGELOG.md.
    sampled = [
        starts(crops(seed=1337), 2).tolist(),
        crops(seed=1337).batch(5, 1)[0][:, 0].tolist(),
    ]
    assert sampled == [[66, 84, 88, 90, 78, 29, 58, 86], [65, 1, 36, 60]]


def test_every_start_is_sampled_with_equal_probability() -> None:
    num_starts = len(IDS) - 8
    counts = np.bincount(starts(crops(batch_size=500), 40), minlength=num_starts)
    assert len(counts) == num_starts, "the last start, and none beyond it"
    expected = counts.sum() / num_starts
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 91 degrees of freedom: mean 91, standard deviation 13.5. The seed is fixed.
    assert 50 < chi_square < 140


@pytest.mark.fault(16, planted=planted.EXACT_TEXT_REFUSED)
def test_a_text_of_one_block_and_one_token_is_enough() -> None:
    inputs_bt, targets_bt = crops(IDS[:9]).batch(0)
    assert inputs_bt.tolist() == [list(range(8))] * 4
    assert targets_bt.tolist() == [list(range(1, 9))] * 4


@pytest.mark.fault(16, planted=planted.SHORT_TEXT_TAKEN)
def test_a_text_one_token_shorter_is_refused_with_the_numbers() -> None:
    with pytest.raises(DataError, match=r"has 8 tokens, and a block of 8 needs 9; "):
        crops(IDS[:8])


# --- epochs ---------------------------------------------------------------------------------------


def epochs(ids: np.ndarray = IDS, **changed: int) -> Epochs:
    shape = {"block_size": 8, "batch_size": 4, "seed": 0} | changed
    return Epochs(ids, **shape)  # type: ignore[arg-type]


@given(
    count=st.integers(9, 300),
    batch_size=st.integers(1, 7),
    micro_steps=st.integers(1, 3),
    data=st.data(),
)
def test_an_epoch_reads_each_token_once_but_those_at_the_ends(
    count: int, batch_size: int, micro_steps: int, data: st.DataObject
) -> None:
    of = epochs(np.arange(count, dtype=np.uint16), batch_size=batch_size, micro_steps=micro_steps)
    blocks = max(1, (count - 1) // 8 - 1)
    epoch = data.draw(st.integers(0, 3))
    met = []
    for number in range(epoch * blocks, (epoch + 1) * blocks):
        step, rest = divmod(number, batch_size * micro_steps)
        inputs_bt, targets_bt = of.batch(step, rest // batch_size)
        sequence = rest % batch_size
        met += targets_bt[sequence].tolist()
        assert torch.equal(targets_bt[sequence], inputs_bt[sequence] + 1)
    assert len(met) == len(set(met)) == 8 * blocks
    assert max(met) - min(met) == 8 * blocks - 1, "side by side"


def test_an_epoch_has_an_offset_and_an_order_of_its_own() -> None:
    blocks = 100 // 8 - 1
    of = epochs(batch_size=blocks)
    orders = [of.batch(epoch)[0][:, 0] for epoch in range(20)]
    begins = {int(order.min()) for order in orders}
    assert len(begins) > 4 and max(begins) < 8
    assert len({tuple((order // 8).tolist()) for order in orders}) == 20


def test_a_batch_of_epochs_is_a_function_of_seed_and_step_alone() -> None:
    forward = [epochs().batch(step)[0] for step in range(9)]
    of = epochs()
    backward = [of.batch(step)[0] for step in reversed(range(9))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not torch.equal(epochs(seed=1).batch(0)[0], forward[0])


def test_two_micro_batches_of_half_the_sequences_are_one_batch() -> None:
    halves = epochs(batch_size=2, micro_steps=2)
    for step in range(7):
        micro_batches = [halves.batch(step, micro_step)[0] for micro_step in range(2)]
        assert torch.equal(torch.cat(micro_batches), epochs().batch(step)[0])


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


# --- best fit -------------------------------------------------------------------------------------

BOS = 0


def split_of(lengths: list[int]) -> np.ndarray:
    """Documents of these lengths after a bos each, their ids their number; a bos ends the last."""
    ids: list[int] = []
    for number, length in enumerate(lengths, start=1):
        ids += [BOS, *[number] * length]
    return np.array([*ids, BOS], np.uint16)


def best_fit(lengths: list[int], **changes: object) -> BestFit:
    shapes = {"bos": BOS, "block_size": 9, "batch_size": 4, "seed": 1} | changes
    return BestFit(split_of(lengths), **shapes)


LENGTHS = [1, 2, 3, 4, 5, 6, 7, 30]


def sequences_of(batches: BestFit, step: int = 0) -> torch.Tensor:
    inputs_bt, targets_bt = batches.batch(step)
    assert torch.equal(inputs_bt[:, 1:], targets_bt[:, :-1])
    return torch.cat([inputs_bt, targets_bt[:, -1:]], dim=1)


def test_documents_start_at_each_bos_but_the_last() -> None:
    assert document_starts(split_of([2, 1, 3]), BOS).tolist() == [0, 3, 5]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 25), min_size=3, max_size=30), st.integers(0, 5))
def test_every_sequence_is_documents_from_their_beginning_with_only_the_last_cut(
    lengths: list[int], step: int
) -> None:
    if sum(min(length + 1, 10) for length in lengths) < 10:
        return
    for sequence in sequences_of(best_fit(lengths), step).tolist():
        assert sequence[0] == BOS
        documents = "".join(map(chr, sequence)).split(chr(BOS))[1:]
        for number, document in enumerate(documents):
            ids = {ord(c) for c in document}
            assert len(ids) <= 1
            if ids and number < len(documents) - 1:
                # Complete, but for one that does not fit, which then ends the sequence.
                assert len(document) == min(lengths[ids.pop() - 1], 9)


def test_a_best_fit_batch_is_a_function_of_seed_and_step() -> None:
    first, same, reseeded = best_fit(LENGTHS), best_fit(LENGTHS), best_fit(LENGTHS, seed=2)
    sequences = sequences_of(first, 3)
    sequences_of(first, 7)
    assert torch.equal(sequences, sequences_of(first, 3))
    assert torch.equal(sequences, sequences_of(same, 3))
    assert not torch.equal(sequences, sequences_of(reseeded, 3))


def test_documents_are_sampled_with_equal_probability_whatever_their_length() -> None:
    """A packer that takes what fits best first would hardly show the others."""
    batches = best_fit([3] * 5 + [6] * 5)
    seen = np.zeros(11, int)
    for step in range(400):
        sequences = sequences_of(batches, step)
        starts = torch.where(sequences[:, :-1] == BOS)
        seen += np.bincount(sequences[starts[0], starts[1] + 1].numpy(), minlength=11)
    short, long = seen[1:6].sum(), seen[6:11].sum()
    assert 0.8 < short / long < 1.25


def test_the_fraction_beyond_a_sequence_is_told() -> None:
    assert best_fit([9, 19]).unseen == pytest.approx(10 / 30)
    assert best_fit([3, 4, 5]).unseen == 0


def test_sources_have_the_fraction_of_tokens_that_their_weights_ask_for() -> None:
    lengths = [4] * 20 + [8] * 20
    ids = split_of(lengths)
    sources = [WeightedSource("a", 100, 3.0), WeightedSource("b", len(ids) - 100, 1.0)]
    batches = best_fit(lengths, sources=sources, batch_size=16)
    sequences = torch.cat([sequences_of(batches, step) for step in range(60)])
    of_first = ((sequences > 0) & (sequences <= 20)).sum() / (sequences > 0).sum()
    assert 0.68 < of_first < 0.82


def test_a_corpus_of_one_document_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"set train\.packing=stream"):
        best_fit([30], bos=None)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"model\.block_size"):
        best_fit([1, 1, 1])


def test_sequences_come_from_several_files_as_from_one() -> None:
    ids = split_of(LENGTHS)
    sharded = ShardedIds([ids[:13], ids[13:14], ids[14:]])
    single = BestFit(ids, bos=BOS, block_size=9, batch_size=4, seed=1)
    several = BestFit(sharded, bos=BOS, block_size=9, batch_size=4, seed=1)
    assert all(
        torch.equal(sequences_of(single, step), sequences_of(several, step)) for step in range(5)
    )


def test_epochs_of_weighted_sources_are_refused_with_the_way_out() -> None:
    shards = [{"corpus": name, "tokens": 50} for name in ("own", "names")]
    weighted = {"weights": {"own": 3.0, "names": 1.0}, "splits": {"train": {"shards": shards}}}
    ids, sources = np.zeros(100, np.uint16), weighted_sources(weighted)
    for packing in ("stream", "epochs"):
        _, config, _ = resolve("tiny", {"block_size": 8}, {"packing": packing})
        if packing == "stream":
            made = make_batches(ids, sources, config, block_size=8, seed=0, bos=None)
            assert isinstance(made, RandomCrops)
            continue
        with pytest.raises(DataError, match=r"data\.weights=\[\] or train\.packing=stream"):
            make_batches(ids, sources, config, block_size=8, seed=0, bos=None)


# --- validation batches ---------------------------------------------------------------------------


@given(count=st.integers(2, 200), block_size=st.integers(1, 20), tokens=st.integers(1, 300))
def test_validation_batches_are_whole_blocks_that_do_not_overlap(
    count: int, block_size: int, tokens: int
) -> None:
    ids = np.arange(count, dtype=np.uint16)
    batches = val_batches(ids, block_size=block_size, tokens=tokens, batch_size=3)
    block_size = min(block_size, count - 1)
    targets = torch.cat([targets_bt for _, targets_bt in batches])
    assert targets.shape[1] == block_size
    assert len(targets.unique()) == targets.numel() <= max(tokens, block_size)
    assert all(torch.equal(inputs_bt + 1, targets_bt) for inputs_bt, targets_bt in batches)
    assert all(len(inputs_bt) <= 3 for inputs_bt, _ in batches)


def test_validation_batches_cover_everything_where_there_are_tokens_enough() -> None:
    batches = val_batches(IDS, block_size=9, tokens=99, batch_size=4)
    targets = torch.cat([targets_bt.flatten() for _, targets_bt in batches])
    assert targets.tolist() == list(range(1, 100))


def test_validation_batches_are_at_equal_distances_in_the_split() -> None:
    ids = np.arange(10_001, dtype=np.uint16)
    batches = val_batches(ids, block_size=10, tokens=100, batch_size=100)
    gaps = batches[0][0][:, 0].diff()
    assert batches[0][0].shape == (10, 10)
    assert gaps.tolist() == [1000] * 9


@pytest.mark.parametrize("count", [0, 1])
def test_a_validation_split_without_a_target_is_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"has {count} tokens"):
        val_batches(IDS[:count], block_size=8, tokens=8, batch_size=1)


# --- token files ----------------------------------------------------------------------------------


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def token_file(folder: Path, raw: bytes, tokens: int = 100) -> Path:
    """A split `train` of the bytes `raw`, with a manifest that vouches for them."""
    (folder / "train.npy").write_bytes(raw)
    metadata = {"tokens": tokens, "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "tokens.json").write_text(
        json.dumps({"splits": {"train": metadata}}), encoding="utf-8"
    )
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
