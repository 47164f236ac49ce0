"""The four parts of the course: starts the learner's files and checks them."""

import shutil
from pathlib import Path

from workshop import generate_checks, model_checks, tokenizer_checks, train_loop_checks
from workshop.checking import Result, WorkshopError

CHECKLISTS = {
    1: tokenizer_checks.CHECKS,
    2: model_checks.CHECKS,
    3: train_loop_checks.CHECKS,
    4: generate_checks.CHECKS,
}
SKELETONS = Path(__file__).parent / "skeletons"


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


def check(number: int, folder: Path) -> list[Result]:
    """Runs the checks of part `number` of the course on the file in `folder`."""
    return CHECKLISTS[number].run(folder)
