"""A ZIP download has no .git, and its machine perhaps no git: what works, and what says so."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pipeline_clone import Clone, assert_complete, stages_run, tracked_runs
from run_make import copy_makefile, run_make


@pytest.mark.slow
def test_without_git_the_pipeline_runs_and_is_tracked(make_clone: Callable[..., Clone]) -> None:
    clone = make_clone(tokens=True, runtime__tracking="true")
    shutil.rmtree(clone.folder / ".git")
    no_git = {"PATH": str(Path(sys.executable).parent)}
    assert "is not a git repository" in clone.dvc("repro", check=False, **no_git)
    clone.dvc("config", "core.no_scm", "true")  # as README says
    assert stages_run(clone.dvc("repro", **no_git)) == ["train", "evaluate", "sample"]
    # MLflow's runs hold copies of dvc.yaml, which are no pipelines of this repository.
    assert clone.dvc("status", **no_git).strip() == "Data and pipelines are up to date."
    (run,) = tracked_runs(clone)
    assert_complete(run)
    assert "mlflow.source.git.commit" not in run["tags"]
    for command in ("compare", "report", "sample --prompt A --max-new-tokens 5"):
        clone.run("gpt", *command.split(), **no_git)
    page = (clone.folder / "report.html").read_text(encoding="utf-8")
    assert "git checkout" not in page
    assert "core.no_scm false" in clone.dvc("exp", "run", check=False, **no_git)


def test_make_run_says_what_a_zip_download_lacks(tmp_path: Path) -> None:
    copy_makefile(tmp_path)
    # Nothing to install: the first thing that `run` needs is what is tested.
    make = partial(run_make, tmp_path, "repository", check=False)
    done = make()
    assert done.returncode != 0
    line = f"{tmp_path}: not a git repository"
    assert [text for text in done.stdout.splitlines() if text.startswith(line)] == [
        f"{line}; make it one: git init && git add -A && git commit -m start"
    ]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert make().returncode == 0
    shutil.rmtree(tmp_path / ".git")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n", encoding="utf-8")
    assert make().returncode == 0
