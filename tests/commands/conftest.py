"""A submission that the real stages made, in a second, once for all tests."""

import shutil
from pathlib import Path

import pytest
from forged_submissions import gpt
from small_training import SmallTraining

from commands.lineage import STAGES


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the pipeline has run, and the submission that was made there."""
    training = SmallTraining(tmp_path_factory.mktemp("competition") / "repository")
    folder = training.folder
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        training.finish(STAGES)
        words = ["submit", "--author", "Ada", "--candidates", "3", "--max-new-tokens", "60"]
        code, output = gpt(*words, "--seed", "5", "--choose", "1", "--out", "submission")
        assert code == 0, output
    return folder


@pytest.fixture
def submission(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the submission, in the repository that verifies it."""
    monkeypatch.chdir(trained)
    shutil.copytree(trained / "submission", tmp_path / "field/ada")
    return tmp_path / "field/ada"
