"""`gpt submit`, `gpt verify`, `gpt leaderboard`: poems that compete, each with its submission."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from commands import retraining
from commands.root import at_root
from commands.submission import NAME, Submission, submit, verify
from gpt.errors import GptError, SubmissionError
from gpt.generation import printable
from repro.errors import UserError
from stages.params import SampleParams, check, load

Refusal = tuple[str, str]  # folder, reason

app = typer.Typer(add_completion=False)


@app.command("submit")
def submit_poem(
    author: Annotated[str, typer.Option(help="Who submits.")],
    prompt: Annotated[str | None, typer.Option(help="What the poem continues.")] = None,
    candidates: Annotated[int | None, typer.Option(help="How many to generate.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens of each.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0: the most likely token.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same poems.")] = None,
    choose: Annotated[int | None, typer.Option(help="Which one; else you are asked.")] = None,
    out: Annotated[Path, typer.Option(help="The folder to write.", resolve_path=True)] = Path(
        "submission"
    ),
) -> None:
    """Generate poems as params.yaml says, or as these options, choose one, and submit it."""

    def ask(texts: list[str]) -> int:
        if choose is not None:
            return choose
        for index, text in enumerate(texts):
            print(f"--- {index}\n{printable(text)}")
        return int(typer.prompt("---\nWhich one", type=int))

    options = {
        "prompt": prompt,
        "num_samples": candidates,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    with at_root():
        changes = {key: value for key, value in options.items() if value is not None}
        sample = check(SampleParams, "sample", {**load().sample.model_dump(), **changes})
        submission = submit(out, author, sample, ask)
        print(f"{printable(submission.poem)}\n\n{out / NAME}: gpt verify checks it")


@app.command("verify")
def verify_submission(
    file: Annotated[
        Path, typer.Argument(help=f"{NAME}, or the folder that holds it.", resolve_path=True)
    ],
    retrain: Annotated[bool, typer.Option(help="Train the model again, and compare.")] = False,
) -> None:
    """Check that a submission is what it says it is."""
    folder = file.parent if file.name == NAME else file
    with at_root():
        submission = verify(folder)
        print(
            f"consistent: hashes, lineage and scores agree, and the model wrote the poem again, as "
            f"number {submission.chosen} of {len(submission.candidates)}, byte for byte"
        )
        if retrain:
            print(retraining.retrain(folder))
        else:
            print("this does not prove that the weights came from this training; --retrain does")


@app.command("leaderboard")
def rank_submissions(
    folder: Annotated[
        Path, typer.Argument(help="It holds a folder for each submission.", resolve_path=True)
    ],
) -> None:
    """Verify the submissions in a folder, and rank them by their stated scores."""
    with at_root():
        print(table(*leaderboard(folder)))


def leaderboard(
    folder: Path, check: Callable[[Path], Submission] = verify
) -> tuple[list[tuple[str, Submission]], list[Refusal]]:
    """The consistent submissions of `folder`, one folder each, and the refused with the reason.

    Sorted by corpus (by its hash), then by bits per byte, the lowest first. Raises SubmissionError
    if there are none.
    """
    ranked, refused = list[tuple[str, Submission]](), list[Refusal]()
    folders = sorted(path.parent for path in folder.glob(f"*/{NAME}"))
    if not folders:
        raise SubmissionError(f"{folder}: holds no folder with a {NAME}")
    for entry in folders:
        try:
            ranked.append((entry.name, check(entry)))
        except (GptError, UserError) as error:
            refused.append((entry.name, str(error)))
    ranked.sort(key=lambda pair: (pair[1].hashes["corpus"], pair[1].scores["bits_per_byte"]))
    return ranked, refused


def table(ranked: list[tuple[str, Submission]], refused: list[Refusal]) -> str:
    """The leaderboard as text: ranks within each corpus, then what was refused, and why."""
    lines: list[str] = []
    for corpus, entries in groupby(ranked, lambda pair: pair[1].hashes["corpus"]):
        lines.append(f"corpus {corpus[:8]}: bits per byte, as stated")
        for rank, (name, submission) in enumerate(entries, 1):
            text = submission.poem[len(submission.decoding.prompt) :].strip()
            line, score = _plain(text.partition("\n")[0])[:40], submission.scores["bits_per_byte"]
            author = _plain(submission.author)
            lines.append(f"{rank:3}  {score:.4f}  {author:20}  {_plain(name):20}  {line}")
    if refused:
        lines.append("refused:")
        lines += [f"     {_plain(name)}: {reason}" for name, reason in refused]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A stranger's text in one line, without what would steer a terminal."""
    return " ".join(printable(text).split())
