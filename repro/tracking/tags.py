"""What names a run and says where it was made: its execution, clone, commit, machine, versions."""

import os
import platform
import sys
import time
from importlib import metadata
from uuid import uuid4

import psutil
from filelock import FileLock

from repro import repository, reproduce
from repro.lockfile import Pipeline
from repro.project import Params
from repro.repository import Files, git

SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ash", "ksh", "cmd", "powershell", "pwsh"}


def execution_id() -> str:
    """The process that runs the stages one after another: `dvc`, or who started one by hand."""
    try:
        for process in psutil.Process().parents():
            shell = process.name().lower().removesuffix(".exe") in SHELLS
            # In an environment on Windows, python.exe starts the Python that does the work.
            launcher = sys.platform == "win32" and process.exe() == sys.executable
            if not shell and not launcher:
                return f"{process.pid}-{process.create_time():.2f}"
    except psutil.Error:
        pass
    return f"{os.getpid()}-{time.time():.2f}"


def is_alive(execution: str) -> bool:
    """Whether the process of an `execution_id` of this machine still runs."""
    pid, _, created = execution.partition("-")
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == created
    except psutil.Error:
        return False


def clone_id() -> str:
    """What tells this clone of the repository from all others, on whichever machine it is used.

    The file also holds its own inode, which a moved folder keeps and a copied one does not: a copy
    is another clone.
    """
    file = repository.scratch() / "clone"
    file.parent.mkdir(parents=True, exist_ok=True)
    with (
        FileLock(f"{file}.lock", timeout=60),
        file.open("a+", encoding="utf-8", newline="\n") as opened,
    ):
        inode = str(os.fstat(opened.fileno()).st_ino)
        opened.seek(0)
        words = opened.read().split()
        # Of an earlier version it holds no inode.
        if not words or words[1:] not in ([], [inode]):
            words = [uuid4().hex]
        if words[1:] != [inode]:
            opened.truncate(0)
            opened.write(f"{words[0]} {inode}")
        return words[0]


def tags_of_run(
    params: Params, experiment: str | None, files: Files, base: str = "HEAD"
) -> dict[str, str]:
    """What names a run, for people and for MLflow's pages; `base`: the commit it started from."""
    commands = reproduce.commands(files, base)
    if len(commands) > 4000:  # MLflow would cut it, and what is left would give another result
        commit = commands.partition("\n")[0]
        commands = f"{commit}\n# copy this run's params.yaml here\ndvc exp run"
    tags = {
        "mlflow.runName": (experiment or f"workspace {params.title}")[:120],
        "mlflow.note.content": f"{params.title}\n\n```\n{commands}\n```",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.name": "dvc exp run" if experiment else "dvc repro",
    }
    return tags | ({"dvc.exp_name": experiment} if experiment else {})


def tags_of_machine(pipeline: Pipeline) -> dict[str, str]:
    """The code's commit, the machine and the versions that this process runs under."""
    tags = {"host": platform.node(), "version.python": platform.python_version()}
    for package in ("torch", "dvc", "mlflow"):
        try:
            tags[f"version.{package}"] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = git("rev-parse", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit.decode().strip()
        # params.yaml and dvc.lock change with every experiment: only code makes it dirty.
        deps = {dep for stage in pipeline.stages for dep in pipeline.deps(stage)}
        code = sorted(dep for dep in deps if dep.endswith(".py"))
        changed = git("status", "--porcelain", "--", "dvc.yaml", *code)
        tags["git.dirty"] = "true" if changed else "false"
    return tags
