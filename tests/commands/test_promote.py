"""The champion: promoted only beyond noise, and served by MLflow as text."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from course_solutions import SOLUTIONS
from small_training import SmallTraining
from typer.testing import CliRunner
from waiting import answers, wait_for

from commands import experiments
from commands import promote as champion
from commands.cli import app
from commands.lineage import STAGES
from gpt.checkpoint import load_model
from gpt.config import OUR_SOURCE
from gpt.generation import Sampling, generate
from repro.tracking.store import Store, store_uri
from stages.params import PROJECT

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def source() -> str:
    """The file of the model, which a test may name in a parameter."""
    return OUR_SOURCE


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> Path:
    """One in which the pipeline has run."""
    training = SmallTraining(tmp_path / "repository", model__source=source)
    monkeypatch.chdir(training.folder)
    if source != OUR_SOURCE:
        Path(source).parent.mkdir()
        Path(source).write_text(SOLUTIONS["model.py"], encoding="utf-8")
    training.finish(STAGES)
    return training.folder


def promote(name: str = "workspace") -> tuple[int, str]:
    done = CliRunner().invoke(app, ["promote", name])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.mark.loopback
def test_a_server_that_does_not_answer_is_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    why = (
        "the tracking store cannot be used: MLFLOW_TRACKING_URI http://127.0.0.1:9 does not answer"
    )
    assert promote() == (2, f"gpt: {why}\n")
    done = CliRunner().invoke(app, ["ui", "--no-serve"])
    assert (done.exit_code, done.output) == (2, f"gpt: {why}\n")


def test_only_what_is_better_beyond_noise_is_promoted(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = experiments.read("workspace")

    def planted(name: str, steps: int, seed: int, bits: float) -> experiments.Experiment:
        train = base.params.train.model_copy(update={"steps": steps})
        params = base.params.model_copy(update={"train": train, "seed": seed})
        return replace(base, name=name, params=params, metrics={"val": {"bits_per_byte": bits}})

    known = {
        each.name: each
        for each in [
            *(planted(f"base-{seed}", 30, seed, 2.0 + seed / 100) for seed in (1, 2, 3)),
            *(planted(f"luck-{s}", 31, s, 2.0 + (s + (-1) ** s) / 100) for s in (1, 2, 3)),
            *(planted(f"good-{s}", 32, s, 1.9 + s / 100 + s**2 / 1000) for s in (1, 2, 3)),
            planted("alone", 33, 1, 1.0),
        ]
    }
    monkeypatch.setattr(experiments, "names", lambda: list(known))
    monkeypatch.setattr(experiments, "read", lambda name: known[name])
    monkeypatch.setattr(champion, "_model_of", lambda name, folder: Path("data/model"))
    code, output = promote("base-1")
    assert (code, "models:/repro-gpt-verse@champion is version 1" in output) == (0, True), output
    code, output = promote("luck-1")
    assert (code, "within noise" in output, "not promoted" in output) == (1, True, True)
    code, output = promote("alone")
    assert (code, "noise is known from two seeds on" in output) == (1, True)
    code, output = promote("good-2")
    assert (code, "better (p = 0.0" in output, "version 2" in output) == (0, True, True), output
    code, output = promote("base-1")
    assert (code, "worse" in output) == (1, True)
    store = Store(PROJECT)
    version = store.client.get_model_version_by_alias("repro-gpt-verse", "champion")
    assert (version.version, version.tags["experiment"]) in ((2, "good-2"), ("2", "good-2"))
    assert set(json.loads(version.tags["seeds"])) == {"1", "2", "3"}
    # Another text is no match.
    data = base.params.data.model_copy(update={"verse_bytes": 40_000})
    params = base.params.model_copy(update={"data": data})
    known["other"] = replace(base, name="other", params=params)
    code, output = promote("other")
    assert (code, "data.verse_bytes is 40000, the champion's 30000" in output) == (2, True), output


# --- served ---------------------------------------------------------------------------------------


NO_INSTALLED_GPT = """
import importlib.util, sys
from pathlib import Path

sys.path[:] = [folder for folder in sys.path if not Path(folder, "gpt").is_dir()]
sys.meta_path[:] = [f for f in sys.meta_path if "Editable" not in getattr(f, "__name__", "")]
if importlib.util.find_spec("gpt"):
    sys.exit("gpt is installed in a way that this test does not know")
"""


@pytest.fixture
def served(repository: Path, tmp_path: Path) -> Iterator[str]:
    """The address of MLflow's server with the champion."""
    code, output = promote()
    assert code == 0, output
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", "models:/repro-gpt-verse@champion", "-p", str(port)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MLFLOW_TRACKING_URI": store_uri()}
    # Its own copy of gpt/ has to be enough.
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(NO_INSTALLED_GPT, encoding="utf-8")
    environment["PYTHONPATH"] = str(hidden)
    with (repository / "served.log").open("wb") as log:
        server = subprocess.Popen(
            command,
            env=environment,
            cwd=repository.parent,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(
            lambda: answers(f"http://127.0.0.1:{port}/ping"),
            running=lambda: server.poll() is None,
            told=(repository / "served.log").read_text,
        )
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def ask(address: str, **body: Any) -> Any:
    answer = requests.post(address, json=body, timeout=60)
    answer.raise_for_status()
    return answer.json()["predictions"]


@pytest.mark.loopback
@pytest.mark.parametrize("source", [OUR_SOURCE, "scratchpad/model.py"])
def test_the_champion_answers_with_text(served: str, repository: Path, source: str) -> None:
    params = {"temperature": 0.8, "max_new_tokens": 40, "seed": 7}
    (text,) = ask(served, inputs={"prompt": ["ROMEO:"]}, params=params)
    trained = load_model(repository / "data/model", source)
    sampling = Sampling(max_new_tokens=40, temperature=0.8, top_p=0.9)
    (ours,) = generate(trained.model, trained.tokenizer, "ROMEO:", sampling, seed=7)
    assert text == ours.text
    # As a list, several at a time, and each as it would be alone.
    assert ask(served, inputs=["ROMEO:", "To"], params=params)[0] == text
    (changed,) = ask(served, inputs={"prompt": ["ROMEO:"]}, params=params | {"seed": 8})
    assert changed != text
    assert len(ask(served, inputs={"prompt": ["To"]})[0]) > 100
    with pytest.raises(requests.HTTPError, match="400"):
        ask(served, inputs={"prompt": ["To"]}, params={"max_new_tokens": 10**9})
    with pytest.raises(requests.HTTPError, match="400"):
        ask(served, inputs={"prompt": ["To"]}, params={"seed": "seven"})
    files = [path.suffix for path in (repository / "mlartifacts").rglob("*") if path.is_file()]
    assert ".safetensors" in files
    assert not {".pkl", ".pickle", ".pt"} & set(files)
