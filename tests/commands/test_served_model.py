"""What a served model needs is what its environment is given."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from saved_models import change_config, saved_model
from trial_repository import REPOSITORY

from commands.promote import REQUIREMENTS, _own_code, save
from gpt.errors import CheckpointError, DataError

GENERATE = """
import sys
from pathlib import Path
from gpt.checkpoint import load_model
from gpt.generation import Sampling, generate
trained = load_model(Path("tests/fixtures/version_0_1/model_bpe"))
sampling = Sampling(max_new_tokens=3, temperature=0.7)
generate(trained.model, trained.tokenizer, "The", sampling, seed=1)
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_every_dependency_that_generation_loads_is_required_of_the_server() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GENERATE], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = {re.split(r"[^\w-]", dependency)[0] for dependency in project["dependencies"]}
    loaded = ours & set(done.stdout.split())
    assert {"torch", "tiktoken"} <= loaded <= set(REQUIREMENTS)


OWN = """
from gpt.model import GPT as Ours

class GPT(Ours):
    pass
"""


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_its_own_code_is_served_with_the_code_that_was_promoted_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, code = tmp_path / "model", tmp_path / "source.py"
    code.write_text(OWN, encoding="utf-8")
    saved_model(model)
    change_config(model, "model", source="own.py")
    save(tmp_path / "served", model, code)
    artifacts = {path.name: str(path) for path in (tmp_path / "served/artifacts").iterdir()}
    assert artifacts.keys() == {"model", "source.py"}
    served = import_module("commands.served_model").TextModel()
    served.load_context(
        SimpleNamespace(artifacts={"model": artifacts["model"], "source": artifacts["source.py"]})
    )
    prompts = pd.DataFrame({"prompt": ["abc"]})
    assert served.predict(None, prompts, {"max_new_tokens": 5})[0].startswith("abc")
    # Code that merely lies where config.json says is not what was promoted.
    monkeypatch.chdir(tmp_path)
    code.rename("own.py")
    with pytest.raises(CheckpointError, match=r"its weights are of model.source=own.py"):
        served.load_context(SimpleNamespace(artifacts={"model": artifacts["model"]}))


def test_the_code_of_an_experiments_own_model_is_what_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = SimpleNamespace(model_source="own.py")
    experiment: Any = SimpleNamespace(name="workspace", params=params)
    with pytest.raises(DataError, match=r"workspace: model.source = own.py is not in its commit"):
        _own_code(experiment, tmp_path)
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    code = _own_code(experiment, tmp_path)
    assert code is not None
    assert code.read_text(encoding="utf-8") == OWN
    params.model_source = "gpt/model.py"
    assert _own_code(experiment, tmp_path) is None
