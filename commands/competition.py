"""`gpt submit`, `gpt verify`, `gpt leaderboard`: poems that compete, each with its submission."""

import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from commands import retraining
from commands.retraining import refuse_to_download
from commands.root import at_root
from commands.submission import NAME, Verified, refuse_to_run, submit, verify
from gpt.errors import GptError, SubmissionError
from gpt.generation import printable
from repro.repository import WorkingFolder
from stages.params import CORPUS, SampleParams, check, load

Refusal = tuple[str, str]  # folder, reason
Entry = tuple[str, Verified]  # folder

MAX_CODE_BYTES = 2**18
RUN_CODE = "Run the code of models of their own, which you have read."

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
    within_noise: Annotated[
        bool, typer.Option(help="With --retrain: accept another machine's bits, a weaker proof.")
    ] = False,
    run_code: Annotated[bool, typer.Option(help=RUN_CODE)] = False,
    download: Annotated[
        bool, typer.Option(help="With --retrain: download the corpus that its params name.")
    ] = False,
) -> None:
    """Check that a submission is what it says it is."""
    folder = file.parent if file.name == NAME else file
    with at_root():
        verified = verify(folder, allow_code=allow if run_code else ask_to_run)
        submission, score = verified.submission, verified.bits_per_byte
        print(
            f"consistent: hashes, lineage and scores agree, and the model wrote the poem again, as "
            f"number {submission.chosen} of {len(submission.candidates)}, byte for byte"
        )
        if score is None:
            print(f"its score is only stated: its text is not the one in {CORPUS} here")
        else:
            print(f"{score:.4f} bits per byte, computed here")
        if retrain:
            allow_download = allow if download else ask_to_download
            print(retraining.retrain(folder, within_noise, allow_download=allow_download))
        else:
            print("this does not prove that the weights came from this training; --retrain does")


@app.command("leaderboard")
def rank_submissions(
    folder: Annotated[
        Path, typer.Argument(help="It holds a folder for each submission.", resolve_path=True)
    ],
    run_code: Annotated[bool, typer.Option(help=RUN_CODE)] = False,
) -> None:
    """Verify the submissions in a folder, and rank them by scores that are computed here."""
    with at_root():
        allow_code = allow if run_code else ask_to_run
        print(table(*leaderboard(folder, partial(verify, allow_code=allow_code))))


def allow(what: object) -> None:
    """What --run-code and --download answer."""


def ask_to_run(code: Path) -> None:
    """Shows the code, and asks. Raises SubmissionError where it is not to be run."""
    if code.stat().st_size > MAX_CODE_BYTES:
        raise SubmissionError(f"{code}: larger than {MAX_CODE_BYTES} bytes, too long to be read")
    if not sys.stdin.isatty():
        refuse_to_run(code)
    print(f"--- {code}\n{printable(code.read_bytes().decode(errors='replace'))}\n---")
    if not typer.confirm("The model's own code, by a stranger. Run it with your rights"):
        refuse_to_run(code)


def ask_to_download(what: str) -> None:
    """Says what a stranger's params download, and asks. Raises SubmissionError without a yes."""
    if not sys.stdin.isatty() or not typer.confirm(f"Its corpus is {what}. Download it"):
        refuse_to_download(what)


def leaderboard(
    folder: Path, check: Callable[[Path, WorkingFolder], Verified] = verify
) -> tuple[list[Entry], list[Refusal]]:
    """The consistent submissions of `folder`, one folder each, and the refused with the reason.

    The best score is first; those whose text is not here have none, and are last. Raises
    SubmissionError if there are none at all.
    """
    entries, refused = list[Entry](), list[Refusal]()
    folders = sorted(path.parent for path in folder.glob(f"*/{NAME}"))
    if not folders:
        raise SubmissionError(f"{folder}: holds no folder with a {NAME}")
    here = WorkingFolder()
    for entry in tqdm(folders, desc="verify", disable=None):
        try:
            entries.append((entry.name, check(entry, here)))
        except GptError as error:
            refused.append((entry.name, str(error)))
    entries.sort(key=lambda entry: entry[1].bits_per_byte or math.inf)
    return entries, refused


def table(entries: list[Entry], refused: list[Refusal]) -> str:
    """The leaderboard as text: the ranks, what has none, and what was refused, and why."""
    lines: list[str] = []
    ranked = [entry for entry in entries if entry[1].bits_per_byte is not None]
    if ranked:
        corpus = ranked[0][1].submission.hashes["corpus"]
        lines.append(
            f"corpus {corpus[:8]}: bits per byte, computed here; proof: gpt verify --retrain"
        )
    for rank, (name, verified) in enumerate(ranked, 1):
        submission = verified.submission
        text = submission.poem[len(submission.decoding.prompt) :].strip()
        line, author = _plain(text.partition("\n")[0])[:40], _plain(submission.author)
        score = f"{verified.bits_per_byte:.4f}"
        own = "  (by its own code)" if verified.by_own_code else ""
        lines.append(f"{rank:3}  {score}  {author:20}  {_plain(name):20}  {line}{own}")
    if len(ranked) < len(entries):
        lines.append(f"no score: their text is not the one in {CORPUS} here, so none was computed")
        lines += [
            f"     {_plain(name)}: {_plain(verified.submission.author)}"
            for name, verified in entries[len(ranked) :]
        ]
    if refused:
        lines.append("refused:")
        lines += [f"     {_plain(name)}: {_plain(reason)}" for name, reason in refused]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """A stranger's text in one line, without what would steer a terminal."""
    return " ".join(printable(text).split())
