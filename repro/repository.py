"""The repository: its root, paths from the environment, and its files now or in a commit.

Stages run in the repository, or in a copy of it under .dvc/tmp/exps (`dvc exp run --temp`, the
queue). Params, inputs and outputs are relative to the working folder, so that each copy has its
own. What all copies share (the tracking store, saved training states, downloads) lies under the
root of the main repository. `git rev-parse --show-toplevel` would name the copy instead.
"""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Protocol

from repro import dvc_internals
from repro.dvc_internals import folder_md5
from repro.errors import UserError


def root() -> Path:
    """The main repository: DVC_ROOT, else the nearest parent folder that holds .dvc."""
    dvc_root = os.environ.get(dvc_internals.ROOT)
    if dvc_root and (Path(dvc_root) / ".dvc").is_dir():
        return Path(dvc_root).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise UserError(f"{here}: not inside a DVC repository; change to the folder with dvc.yaml")


def anchored(location: str) -> str:
    """A folder or URL; a relative folder is meant from the root."""
    if "://" in location:
        return location
    return str((root() / Path(location).expanduser()).resolve())


def location(variable: str) -> str | None:
    """The folder or URL that an environment variable names; None where it is not set."""
    value = os.environ.get(variable)
    return anchored(value) if value else None


def scratch() -> Path:
    """Untracked folder for downloads and saved training states, shared by all experiments."""
    return root() / ".cache"


def refuse_repository_inside(path: Path) -> None:
    """Raises UserError for a git clone in `path` that lies in this repository: git keeps no file
    of it."""
    if not path.resolve().is_relative_to(Path.cwd()):
        return
    if inside := next(path.rglob(".git"), None):
        raise UserError(
            f"{inside.parent}: a git repository inside this one, which git cannot keep; move it "
            "elsewhere and set data.path to it, or delete its .git"
        )


def git(*arguments: str) -> bytes | None:
    """What git prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


class Files(Protocol):
    """A state of the repository: the working folder, or a commit."""

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; None where there is none."""

    def md5(self, path: str) -> str | None:
        """The hash that DVC gives to a file or folder; None where there is none."""

    def size(self, path: str) -> int | None:
        """The bytes in a file or folder, in total."""


class WorkingFolder:
    """The files as they are now, relative to the working folder; each is hashed once."""

    def __init__(self) -> None:
        self._md5s: dict[str, str | None] = {}

    def read(self, path: str) -> bytes | None:
        try:
            return Path(path).read_bytes()
        except OSError:
            return None

    def md5(self, path: str) -> str | None:
        if path not in self._md5s:
            self._md5s[path] = self._hash(Path(path))
        return self._md5s[path]

    def _hash(self, path: Path) -> str | None:
        if path.is_file():
            return _file_md5(path)
        if path.is_dir():
            return folder_md5((str(f.relative_to(path)), _file_md5(f)) for f in _files_in(path))
        return None

    def size(self, path: str) -> int | None:
        file = Path(path)
        if file.is_file():
            return file.stat().st_size
        return sum(f.stat().st_size for f in _files_in(file)) if file.is_dir() else None


class Commit:
    """The files that git keeps of a commit."""

    def __init__(self, commit: str) -> None:
        self.commit = commit

    def read(self, path: str) -> bytes | None:
        # From the working folder, which may be part of a larger repository.
        return git("show", f"{self.commit}:./{path}")

    def md5(self, path: str) -> str | None:
        content = self.read(path)
        return None if content is None else hashlib.md5(content, usedforsecurity=False).hexdigest()

    def size(self, path: str) -> int | None:
        content = self.read(path)
        return None if content is None else len(content)


def _files_in(folder: Path) -> list[Path]:
    # Of what .dvcignore names, only __pycache__ may lie in an input or output.
    return [f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts]


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
