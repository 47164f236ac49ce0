"""The four parts of the course: starts the learner's files and checks them."""

import shutil
from importlib import import_module
from pathlib import Path

from tqdm import trange

from verse.play import write_play
from workshop.checking import Checklist, Result, WorkshopError

# The learner's file of each part, and the module that checks it: imported with the part, since
# part 1 needs no PyTorch.
PARTS = {
    1: ("tokenizer.py", "workshop.tokenizer_checks"),
    2: ("model.py", "workshop.model_checks"),
    3: ("train.py", "workshop.train_loop_checks"),
    4: ("generate.py", "workshop.generate_checks"),
}
SKELETONS = Path(__file__).parent / "skeletons"
PLAYS = 100  # about a megabyte


def start(folder: Path) -> list[Path]:
    """Copies the skeletons into `folder`. Raises WorkshopError if one would be overwritten."""
    files = [file for file, _ in PARTS.values()]
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


def checklist(number: int) -> Checklist:
    """The checks of part `number` of the course."""
    checks: Checklist = import_module(PARTS[number][1]).CHECKS
    return checks


def check(number: int, folder: Path) -> list[Result]:
    """Runs the checks of part `number` on the file in `folder`."""
    return checklist(number).run(folder / PARTS[number][0])
