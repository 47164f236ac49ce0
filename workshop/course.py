"""The four parts of the course: starts the learner's files and checks them."""

import shutil
from pathlib import Path

from tqdm import trange

from verse.play import write_play
from workshop import generate_checks, model_checks, tokenizer_checks, train_loop_checks
from workshop.checking import Result, WorkshopError

CHECKLISTS = {
    1: tokenizer_checks.CHECKS,
    2: model_checks.CHECKS,
    3: train_loop_checks.CHECKS,
    4: generate_checks.CHECKS,
}
SKELETONS = Path(__file__).parent / "skeletons"
PLAYS = 100  # about a megabyte


def start(folder: Path) -> list[Path]:
    """Copies the skeletons into `folder`. Raises WorkshopError if one would be overwritten."""
    files = [checklist.file for checklist in CHECKLISTS.values()]
    for name in files:
        if (folder / name).exists():
            raise WorkshopError(
                f"{folder / name}: exists already and is not overwritten; move it, or name another "
                "folder with --folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(SKELETONS / name, folder / name)) for name in files]


def write_text(folder: Path) -> Path:
    """Writes input.txt, a megabyte of plays. Raises WorkshopError if it would be overwritten."""
    path = folder / "input.txt"
    if path.exists():
        raise WorkshopError(f"{path}: exists already and is not overwritten; delete it first")
    plays = [write_play(0, index).text for index in trange(PLAYS, desc=path.name, disable=None)]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(plays), encoding="utf-8", newline="\n")
    return path


def check(number: int, folder: Path) -> list[Result]:
    """Runs the checks of part `number` of the course on the file in `folder`."""
    return CHECKLISTS[number].run(folder)
