"""The magic of docs/workshop.ipynb: a cell that is run, and is a piece of one of your files too.

    %load_ext workshop.cells
    %%piece scratchpad/model.py 2

A notebook defines things cell by cell; `gpt workshop check` and the pipeline read files. So the
cell becomes the second piece of the file. Run again, it takes its own place there and no other's.
"""

import re
from pathlib import Path

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from workshop.check import SKELETONS
from workshop.checking import WorkshopError

MARK = re.compile(r"^# piece (\d+)\n", re.M)


def keep(path: Path, number: int, text: str) -> None:
    """Makes `text` piece `number` of the file, between the pieces before and after it.

    A skeleton gives way to the first piece. Raises WorkshopError for a file that has anything else.
    """
    pieces: dict[int, str] = {}
    if path.exists():
        written = path.read_text(encoding="utf-8")
        before, *rest = MARK.split(written)
        if before and written != (SKELETONS / path.name).read_text(encoding="utf-8"):
            raise WorkshopError(
                f"{path}: was written without this notebook, and is not overwritten; move it away, "
                "or go on in the file"
            )
        numbers, texts = rest[::2], rest[1::2]
        pieces = {int(number): text for number, text in zip(numbers, texts, strict=True)}
    pieces[number] = text.strip() + "\n\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = "".join(f"# piece {number}\n{pieces[number]}" for number in sorted(pieces))
    path.write_text(whole, encoding="utf-8")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Registers %%piece; IPython calls this for %load_ext."""

    def piece(line: str, cell: str) -> None:
        """%%piece FILE NUMBER: runs the cell, and keeps it as this piece of the file."""
        found = re.fullmatch(r"(\S+\.py) (\d+)", line.strip())
        if not found:
            raise UsageError(f"%%piece {line}: write a file and a number, as %%piece my.py 1")
        path, number = Path(found[1]), int(found[2])
        if not shell.run_cell(cell).success:
            raise UsageError(f"{path}: left as it was, since piece {number} does not run")
        try:
            keep(path, number, cell)
        except WorkshopError as error:
            raise UsageError(str(error)) from None

    shell.register_magic_function(piece, magic_kind="cell", magic_name="piece")
