"""Where things are: the repository root, and paths that the environment gives.

Stages run in the repository, or in a copy of it under .dvc/tmp/exps (`dvc exp run --temp`, the
queue). Params, inputs and outputs are relative to the working folder, so that each copy has its
own. What all copies share (the tracking store, saved training states, downloads) lies under the
root of the main repository, which is what this module finds. `git rev-parse --show-toplevel`
would name the copy instead.
"""

import os
from pathlib import Path

import yaml

from gpt.errors import ParamsError


def root() -> Path:
    """The main repository: DVC_ROOT, else the nearest parent folder that holds .dvc."""
    given = os.environ.get("DVC_ROOT")
    if given and (Path(given) / ".dvc").is_dir():
        return Path(given).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / ".dvc").is_dir():
            return folder
    raise ParamsError(f"{here}: not inside a DVC repository; change to the folder with dvc.yaml")


def anchored(location: str) -> str:
    """A folder or URL from the environment; a relative folder is meant from the root."""
    if "://" in location:
        return location
    return str((root() / Path(location).expanduser()).resolve())


def mirror() -> str | None:
    """GPT_MIRROR, a folder or URL that is tried before the public address of a download."""
    given = os.environ.get("GPT_MIRROR")
    return anchored(given) if given else None


def scratch() -> Path:
    """Untracked folder for downloads and saved training states, shared by all experiments."""
    return root() / ".cache"


def code_files(stage: str, model_source: str) -> list[Path]:
    """The source files that dvc.yaml lists as what the results of `stage` depend on."""
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))
    deps = pipeline["stages"][stage]["deps"]
    named = (str(dep).replace("${model.source}", model_source) for dep in deps)
    return [Path(dep) for dep in named if dep.endswith(".py")]
