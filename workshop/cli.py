"""`gpt workshop start`, `gpt workshop text` and `gpt workshop check`."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gpt.errors import GptError
from workshop import course

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Write it yourself: docs/index.md is the course.",
)
Folder = Annotated[Path, typer.Option(help="Where your files are.")]
SCRATCHPAD = Path("scratchpad")


@app.command()
def start(folder: Folder = SCRATCHPAD) -> None:
    """Make the four files to write: signatures and what they should do, nothing solved."""
    try:
        paths = course.start(folder)
    except (GptError, OSError) as error:
        _fail_for(error)
    for path in paths:
        print(path)
    print("\nBegin with docs/1-tokenization.md; then: gpt workshop check 1")


@app.command()
def text(folder: Folder = SCRATCHPAD) -> None:
    """Write input.txt, plays for train.py to train on; needs no network."""
    try:
        print(course.write_text(folder))
    except (GptError, OSError) as error:
        _fail_for(error)


@app.command()
def check(
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[PART]", help="1 tokenizer, 2 model, 3 train, 4 generate; all.", min=1, max=4
        ),
    ] = None,
    folder: Folder = SCRATCHPAD,
) -> None:
    """Check what you wrote, property by property, with a hint for each that does not hold."""
    all_passed = True
    for part_number in course.PARTS if number is None else (number,):
        try:
            results = course.check(part_number, folder)
        except GptError as error:
            _fail(str(error))
        print(f"Part {part_number}, {folder / course.PARTS[part_number][0]}")
        for result in results:
            print(f"  {'✗' if result.hint else '✓'} {result.name}")
            if result.hint:
                print(f"      {result.hint}")
        passed = sum(not result.hint for result in results)
        print(f"part {part_number}: {passed} of {len(results)}\n")
        all_passed = all_passed and passed == len(results)
    if not all_passed:
        raise typer.Exit(1)


def _fail_for(error: GptError | OSError) -> NoReturn:
    if isinstance(error, OSError):
        _fail(f"{error.filename}: {(error.strerror or '').lower()}; choose another --folder")
    _fail(str(error))


def _fail(reason: str) -> NoReturn:
    print(f"gpt: {reason}", file=sys.stderr)
    raise typer.Exit(2)
