"""Rows that begin where documents begin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt.batches import Part, ShardedIds
from gpt.errors import DataError
from gpt.packing import PackedBatches, document_starts
from gpt.presets import resolve
from gpt.tokenizers.char import CharTokenizer
from stages.train import make_batches

BOS = 0


def split_of(lengths: list[int]) -> np.ndarray:
    """Documents of so many ids, each its own number, after a bos; a last bos ends them."""
    ids: list[int] = []
    for number, length in enumerate(lengths, start=1):
        ids += [BOS, *[number] * length]
    return np.array([*ids, BOS], np.uint16)


def packed(lengths: list[int], **changes: object) -> PackedBatches:
    shapes = {"bos": BOS, "block_size": 9, "batch_size": 4, "seed": 1} | changes
    return PackedBatches(split_of(lengths), **shapes)


LENGTHS = [1, 2, 3, 4, 5, 6, 7, 30]


def rows_of(batches: PackedBatches, step: int = 0) -> torch.Tensor:
    inputs_bt, targets_bt = batches.batch(step)
    assert torch.equal(inputs_bt[:, 1:], targets_bt[:, :-1])
    return torch.cat([inputs_bt, targets_bt[:, -1:]], dim=1)


def test_documents_start_at_each_bos_but_the_last() -> None:
    assert document_starts(split_of([2, 1, 3]), BOS).tolist() == [0, 3, 5]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 25), min_size=3, max_size=30), st.integers(0, 5))
def test_every_row_is_documents_from_their_beginning_only_its_last_cut(
    lengths: list[int], step: int
) -> None:
    if sum(min(length + 1, 10) for length in lengths) < 10:
        return
    for row in rows_of(packed(lengths), step).tolist():
        assert row[0] == BOS
        documents = "".join(map(chr, row)).split(chr(BOS))[1:]
        for number, document in enumerate(documents):
            ids = {ord(c) for c in document}
            assert len(ids) <= 1
            if ids and number < len(documents) - 1:
                # Whole, but for what a row has no room for, which then ends the row.
                assert len(document) == min(lengths[ids.pop() - 1], 9)


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    one, same, other = packed(LENGTHS), packed(LENGTHS), packed(LENGTHS, seed=2)
    rows = rows_of(one, 3)
    rows_of(one, 7)
    assert torch.equal(rows, rows_of(one, 3))
    assert torch.equal(rows, rows_of(same, 3))
    assert not torch.equal(rows, rows_of(other, 3))


def test_documents_are_drawn_alike_whatever_their_length() -> None:
    """A packer that takes what fits best first would hardly show the others."""
    batches = packed([3] * 5 + [6] * 5)
    seen = np.zeros(11, int)
    for step in range(400):
        rows = rows_of(batches, step)
        starts = torch.where(rows[:, :-1] == BOS)
        seen += np.bincount(rows[starts[0], starts[1] + 1].numpy(), minlength=11)
    short, long = seen[1:6].sum(), seen[6:11].sum()
    assert 0.8 < short / long < 1.25


def test_the_share_beyond_a_row_is_told() -> None:
    assert packed([9, 19]).unseen == pytest.approx(10 / 30)
    assert packed([3, 4, 5]).unseen == 0


def test_sources_have_the_share_of_tokens_that_their_weights_ask_for() -> None:
    lengths = [4] * 20 + [8] * 20
    ids = split_of(lengths)
    parts = [Part("a", 100, 3.0), Part("b", len(ids) - 100, 1.0)]
    batches = packed(lengths, parts=parts, batch_size=16)
    rows = torch.cat([rows_of(batches, step) for step in range(60)])
    of_first = ((rows > 0) & (rows <= 20)).sum() / (rows > 0).sum()
    assert 0.68 < of_first < 0.82


def test_a_corpus_of_one_document_is_refused_with_the_way_out() -> None:
    with pytest.raises(DataError, match=r"set train\.packing=stream"):
        packed([30], bos=None)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"model\.block_size"):
        packed([1, 1, 1])


def test_rows_come_from_several_files_as_from_one() -> None:
    ids = split_of(LENGTHS)
    sharded = ShardedIds([ids[:13], ids[13:14], ids[14:]])
    whole = PackedBatches(ids, bos=BOS, block_size=9, batch_size=4, seed=1)
    pieces = PackedBatches(sharded, bos=BOS, block_size=9, batch_size=4, seed=1)
    assert all(torch.equal(rows_of(whole, step), rows_of(pieces, step)) for step in range(5))


def test_epochs_of_weighted_sources_are_refused_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weighted = {
        "weights": {"own": 3.0, "names": 1.0},
        "splits": {
            "train": {"shards": [{"corpus": name, "tokens": 50} for name in ("own", "names")]}
        },
    }
    monkeypatch.setattr("stages.train.manifest", lambda folder: weighted)
    tokenizer = CharTokenizer("ab", has_bos=False)
    for packing in ("stream", "epochs"):
        model, config, _ = resolve("tiny", {"block_size": 8}, {"packing": packing})
        if packing == "stream":
            make_batches(np.zeros(100, np.uint16), model, config, tokenizer, seed=0)
            continue
        with pytest.raises(DataError, match=r"data\.weights=\[\] or train\.packing=stream"):
            make_batches(np.zeros(100, np.uint16), model, config, tokenizer, seed=0)
