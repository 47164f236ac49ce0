"""The cell magic of docs/workshop.ipynb: runs a cell and saves it as a piece of one of your files.

    %load_ext workshop.cells
    %%piece scratchpad/model.py 2

A notebook defines things cell by cell; `gpt workshop check` and the pipeline read files. This cell
becomes the second piece of the file. Run again, it replaces that piece and no other.
"""

import re
from pathlib import Path

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

from workshop.checking import WorkshopError
from workshop.course import SKELETONS

MARK = re.compile(r"^# piece (\d+)\n", re.M)


def save_piece(path: Path, number: int, code: str) -> None:
    """Saves `code` as piece `number` of the file, between the pieces before and after it.

    The first piece replaces a skeleton. Raises WorkshopError if the file has any other content.
    """
    code_of: dict[int, str] = {}
    if path.exists():
        content = path.read_text(encoding="utf-8")
        before, *marked = MARK.split(content)
        if before and content != (SKELETONS / path.name).read_text(encoding="utf-8"):
            raise WorkshopError(
                f"{path}: was written without this notebook, and is not overwritten; move it away, "
                "or continue in the file"
            )
        code_of = dict(zip(map(int, marked[::2]), marked[1::2], strict=True))
    code_of[number] = code.strip() + "\n\n\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"# piece {number}\n{code_of[number]}" for number in sorted(code_of))
    path.write_text(content, encoding="utf-8", newline="\n")


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Registers %%piece; IPython calls this for %load_ext."""

    def piece(line: str, cell: str) -> None:
        """%%piece FILE NUMBER: runs the cell and saves it as this piece of the file."""
        arguments = re.fullmatch(r"(\S+\.py) (\d+)", line.strip())
        if not arguments:
            raise UsageError(f"%%piece {line}: write a file and a number, as %%piece my.py 1")
        path, number = Path(arguments[1]), int(arguments[2])
        shell.user_ns["__name__"] = path.stem  # as if imported: the file's main() does not run here
        try:
            success = shell.run_cell(cell).success
        finally:
            shell.user_ns["__name__"] = "__main__"
        if not success:
            raise UsageError(f"{path}: not changed, since piece {number} does not run")
        try:
            save_piece(path, number, cell)
        except WorkshopError as error:
            raise UsageError(str(error)) from None

    shell.register_magic_function(piece, magic_kind="cell", magic_name="piece")
