"""What a served model needs is what its environment is given."""

import re
import subprocess
import sys
import tomllib

from trial_repository import REPOSITORY

from commands.promote import REQUIREMENTS

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
