"""An architecture of a file of its own goes through the whole pipeline: nothing in the library
knows the names of the three that gpt/model.py has.
"""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from small_training import REPOSITORY, SmallTraining

from gpt.checkpoint import load_model
from gpt.config import ModelConfig
from gpt.errors import ParamsError
from gpt.model_source import make_model

# Attention and MLP side by side on one normalized input, as in GPT-J.
PARALLEL = """
from torch import nn

from gpt import model
from gpt.model import MLP, CausalSelfAttention, gelu


class ParallelBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm = nn.LayerNorm(config.n_embd)
        self.attention, self.mlp = CausalSelfAttention(config), MLP(config, gelu)

    def init_weights(self, rng):
        self.attention.init_weights(0.02, 0.01, rng)
        self.mlp.init_weights(0.02, 0.01, rng)

    def forward(self, x_btd, rope, cache=None):
        y_btd = self.norm(x_btd)
        return x_btd + self.attention(y_btd, cache=cache) + self.mlp(y_btd)


class GPT(model.GPT):
    def make_block(self, config):
        return ParallelBlock(config)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "parallel.py"
    path.write_text(PARALLEL, encoding="utf-8")
    return path


def config(source: Path) -> ModelConfig:
    return ModelConfig(source=str(source), n_layer=2, n_head=2, n_embd=8, block_size=8)


def test_it_states_its_parameters_and_its_seed_decides_them(source: Path) -> None:
    model, same, different = (make_model(config(source), 9, seed) for seed in (1, 1, 2))
    groups = model.parameter_groups()
    assert [fused for _, fused in groups.hidden_matrices] == [3, 1, 1, 1] * 2
    assert len(model.mlp_down_projections()) == 2
    weight = model.blocks[0].mlp.up.weight
    assert torch.equal(weight, same.blocks[0].mlp.up.weight)
    assert not torch.equal(weight, different.blocks[0].mlp.up.weight)


def test_a_matrix_that_is_in_no_optimizer_group_is_named(source: Path) -> None:
    added = PARALLEL.replace(
        "        return ParallelBlock",
        "        self.gate = nn.Linear(8, 8)\n        return ParallelBlock",
    )
    source.write_text(added, encoding="utf-8")
    with pytest.raises(ParamsError, match=r"gate\.weight: is in 0 optimizer groups"):
        make_model(config(source), 9).parameter_groups()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_trains_resumes_scores_and_samples(
    tmp_path: Path, source: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SmallTraining(tmp_path / "training")
    training.set(model__source=str(source), train__optimizer=optimizer, train__steps=12)
    training.set(runtime__keep_scratch=True, sample__num_samples=1, sample__max_new_tokens=30)
    training.make_tokens()
    assert training.run().end() == 0
    expected = training.hashes()

    resumed = training.clone(tmp_path / "resumed")
    states = training.folder / ".cache"
    states.rename(resumed.folder / ".cache")
    shutil.rmtree(resumed.states()[-1])
    run = resumed.run()
    assert run.end() == 0 and re.search(r"from step 11\b", run.output()), run.output()
    assert resumed.hashes() == expected

    (resumed.folder / "data/prompt.txt").touch()
    for stage in ("evaluate", "sample"):
        run = resumed.run(stage)
        assert run.end() == 0, run.output()
    scores = json.loads((resumed.folder / "metrics/evaluate.json").read_text(encoding="utf-8"))
    assert 0 < scores["val"]["loss"] < 5
    samples = (resumed.folder / "data/samples/samples.jsonl").read_text(encoding="utf-8")
    assert json.loads(samples.splitlines()[0])["new_tokens"] == 30
    monkeypatch.chdir(resumed.folder)
    model = load_model(resumed.folder / "data/model", str(source)).model
    assert type(model.blocks[0]).__name__ == "ParallelBlock"


def test_only_the_model_and_its_config_ask_for_the_architecture() -> None:
    asking = set()
    for folder in ("gpt", "stages", "repro", "commands", "verse"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Compare) and "architecture" in ast.unparse(node):
                    asking.add(file.relative_to(REPOSITORY).as_posix())
    assert asking == {"gpt/model.py", "gpt/config.py"}
