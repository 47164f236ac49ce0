"""A model that somebody else wrote, in the place of ours."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pipeline_clone import Clone, stages_run
from saved_models import TOKENIZER, change_config, saved_model, sha256

from gpt.checkpoint import RunConfig, load_model, save_model
from gpt.config import ModelConfig, TrainConfig
from gpt.device import Device
from gpt.errors import CheckpointError, ParamsError
from gpt.files import write_json
from gpt.generation import Sampling, generate
from gpt.model_source import make_model

# As a learner might write it: other names, a mask that is stored, one matrix under two names.
THEIRS = """
import torch
from torch import nn

class GPT(nn.Module):
    def __init__(self, config, vocab_size):
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, config.n_embd)
        self.places = nn.Embedding(config.block_size, config.n_embd)
        size = config.block_size
        self.register_buffer("mask", torch.tril(torch.ones(size, size, dtype=torch.bool)))
        self.register_buffer("hidden", torch.zeros(1), persistent=False)
        self.mix = nn.Linear(config.n_embd, config.n_embd)
        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids_bt):
        t = ids_bt.shape[1]
        x_btd = self.tokens(ids_bt) + self.places.weight[:t]
        share_tt = self.mask[:t, :t] / self.mask[:t, :t].sum(1, keepdim=True)
        return self.head(x_btd + torch.relu(self.mix(share_tt @ x_btd))) + self.hidden
"""


def shape_of(source: Path) -> ModelConfig:
    return ModelConfig(source=str(source), n_layer=1, n_head=1, n_embd=8, block_size=6)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "model.py"
    path.write_text(THEIRS, encoding="utf-8")
    return path


def saved(folder: Path, source: Path) -> torch.nn.Module:
    tokenizer_file = folder.parent / "tokenizer.json"
    write_json(tokenizer_file, TOKENIZER.spec())
    model = make_model(shape_of(source), TOKENIZER.vocab_size, seed=3)
    config = RunConfig(
        model=shape_of(source),
        vocab_size=TOKENIZER.vocab_size,
        train=TrainConfig(steps=1, batch_size=1, learning_rate=1.0, min_learning_rate=0.0),
        seed=3,
        data={"train": "0" * 64},
        code_sha256="0" * 64,
        device=Device(name="cpu", dtype="float32", threads=1, cpu_capability="any", torch="any"),
        tokenizer_sha256=sha256(tokenizer_file),
    )
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_model(folder, weights, tokenizer_file, config)
    return model


def test_its_weights_are_those_of_the_seed_and_disturb_no_other_draw(theirs: Path) -> None:
    before = torch.random.get_rng_state()
    first, same, second = (make_model(shape_of(theirs), 9, seed) for seed in (1, 1, 2))
    assert torch.equal(first.mix.weight, same.mix.weight)
    assert not torch.equal(first.mix.weight, second.mix.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_loaded_as_it_was_saved_with_what_is_no_weight(tmp_path: Path, theirs: Path) -> None:
    model = saved(tmp_path / "model", theirs)
    loaded = load_model(tmp_path / "model", str(theirs)).model
    ids_bt = torch.tensor([[1, 2, 3, 0]])
    assert torch.equal(loaded(ids_bt), model(ids_bt))
    assert loaded.head.weight is loaded.tokens.weight


def test_it_writes_what_it_would_write_read_as_a_whole(tmp_path: Path, theirs: Path) -> None:
    model = saved(tmp_path / "model", theirs)
    (written,) = generate(model, TOKENIZER, "a", Sampling(max_new_tokens=20, temperature=0), seed=0)
    ids = [int(i) for i in TOKENIZER.encode("a")]
    context = list(ids)
    while len(ids) < 21:
        if len(context) == 6 + 1:
            # The last half of a block is read again.
            context = context[-3:]
        token = int(model(torch.tensor([context]))[0, -1].argmax())
        ids.append(token)
        context.append(token)
    assert written.text == TOKENIZER.decode(ids)


def test_what_a_checkpoint_names_is_never_run(tmp_path: Path) -> None:
    evil, ran = tmp_path / "evil.py", tmp_path / "ran"
    evil.write_text(f"open({str(ran)!r}, 'w')", encoding="utf-8")
    folder = tmp_path / "model"
    saved_model(folder)
    change_config(folder, "model", source=str(evil))
    with pytest.raises(CheckpointError, match=re.escape(str(evil))):
        load_model(folder)
    assert not ran.exists()


def test_weights_of_one_source_are_not_loaded_into_another(tmp_path: Path, theirs: Path) -> None:
    saved_model(tmp_path / "model")
    with pytest.raises(CheckpointError, match="dvc repro"):
        load_model(tmp_path / "model", str(theirs))


def test_weights_of_another_shape_are_refused(tmp_path: Path, theirs: Path) -> None:
    saved(tmp_path / "model", theirs)
    theirs.write_text(THEIRS.replace("self.mix = nn.Linear(", "self.blend = nn.Linear("), "utf-8")
    with pytest.raises(CheckpointError, match=r"is not as config\.json describes"):
        load_model(tmp_path / "model", str(theirs))


def test_a_file_that_is_missing_or_has_no_gpt_is_named(tmp_path: Path) -> None:
    for content in (None, "", "GPT = 3", "class GPT: pass"):
        path = tmp_path / "model.py"
        if content is not None:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(ParamsError, match=re.escape(str(path))):
            make_model(shape_of(path), 9)


@pytest.mark.slow
def test_the_pipeline_trains_scores_and_samples_it_beside_ours(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(tokens=True)
    clone.dvc("repro")
    ours = clone.metrics("evaluate")
    path = clone.folder / "scratchpad/model.py"
    path.parent.mkdir()
    path.write_text(textwrap.dedent(THEIRS), encoding="utf-8")
    settings = ("-S", "model.source=scratchpad/model.py", "-S", "train.optimizer=adamw")
    changed = clone.dvc("exp", "run", *settings)
    assert stages_run(changed) == ["train", "evaluate", "sample"]
    theirs = clone.metrics("evaluate")
    assert theirs["val"]["loss"] != ours["val"]["loss"]
    assert theirs["parameters"] != ours["parameters"]
    # An edit of it runs them again; ours has no part in it.
    path.write_text(path.read_text(encoding="utf-8").replace("relu", "tanh"), encoding="utf-8")
    assert stages_run(clone.dvc("repro")) == ["train", "evaluate", "sample"]
    assert "model.source" in clone.dvc("params", "diff")
