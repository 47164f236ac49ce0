"""The workshop's command: makes the files to write, and checks them part by part."""

import shutil
from pathlib import Path

from workshop import part_1, part_2, part_3, part_4
from workshop.checking import Result, WorkshopError

PARTS = {1: part_1.PART, 2: part_2.PART, 3: part_3.PART, 4: part_4.PART}
SKELETONS = Path(__file__).parent / "skeletons"


def start(folder: Path) -> list[Path]:
    """Puts the skeletons into `folder`. Raises WorkshopError where one would be overwritten."""
    files = [part.file for part in PARTS.values()]
    for name in files:
        if (folder / name).exists():
            raise WorkshopError(
                f"{folder / name}: is there already, and what you wrote is not overwritten; move "
                "it, or name another folder with --folder"
            )
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(SKELETONS / name, folder / name)) for name in files]


def check(number: int, folder: Path) -> list[Result]:
    """The results of a part's checks on the file in `folder`."""
    return PARTS[number].run(folder)
