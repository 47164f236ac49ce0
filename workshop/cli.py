"""`gpt workshop start` and `gpt workshop check`.

What needs torch is imported inside, so that `gpt workshop --help` stays quick.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from gpt.errors import GptError

app = typer.Typer(no_args_is_help=True, help="Write it yourself: docs/index.md is the course.")
Folder = Annotated[Path, typer.Option(help="Where your files are.")]
SCRATCHPAD = Path("scratchpad")


@app.command()
def start(folder: Folder = SCRATCHPAD) -> None:
    """Make the four files to write: signatures and what they should do, nothing solved."""
    from workshop import check

    try:
        made = check.start(folder)
    except GptError as error:
        _fail(str(error))
    for path in made:
        print(path)
    print("\nBegin with docs/1-tokenization.md; then: gpt workshop check 1")


@app.command("check")
def check_parts(
    part: Annotated[
        int | None,
        typer.Argument(help="1 tokenizer, 2 model, 3 train, 4 generate; all.", min=1, max=4),
    ] = None,
    folder: Folder = SCRATCHPAD,
) -> None:
    """Check what you wrote, property by property, with a hint for each that does not hold."""
    from workshop import check

    held = True
    for number in check.PARTS if part is None else (part,):
        try:
            results = check.check(number, folder)
        except GptError as error:
            _fail(str(error))
        print(f"Part {number}, {folder / check.PARTS[number].file}")
        for result in results:
            print(f"  {'✗' if result.hint else '✓'} {result.name}")
            if result.hint:
                print(f"      {result.hint}")
        passed = sum(not result.hint for result in results)
        print(f"part {number}: {passed} of {len(results)}\n")
        held = held and passed == len(results)
    if not held:
        raise typer.Exit(1)


def _fail(reason: str) -> NoReturn:
    print(f"gpt: {reason}", file=sys.stderr)
    raise typer.Exit(2)
