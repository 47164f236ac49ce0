"""What can go wrong through a user's input, as one tree of errors with GptError at its root.

The message is one line, `where = value: what is wrong; what to do`. It may quote a file of somebody
else: control characters are escaped, and its length is limited. Faults of our own stay plain Python
exceptions, with their traceback.
"""

from pathlib import Path

MAX_CHARACTERS = 800


def one_line(message: str) -> str:
    """`message` without what would steer a terminal, and not too long."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)
    if len(line) > MAX_CHARACTERS:
        # Where it is wrong is at the beginning, what to do at the end.
        line = f"{line[: MAX_CHARACTERS // 2]} ... {line[-MAX_CHARACTERS // 2 :]}"
    return line


class GptError(Exception):
    """A fault that the user can fix; shown as one line, without a traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ParamsError(GptError):
    """A value in params.yaml or on the command line is unknown, missing or impossible."""


class DataError(GptError):
    """A corpus, a source text, a download or a token file is missing, broken or too small."""


class TokenizerError(GptError):
    """Text that the tokenizer cannot encode, or a tokenizer file that cannot be used."""


class CheckpointError(GptError):
    """A model or checkpoint is damaged, of another version, or of another configuration."""


class TrainingError(GptError):
    """Training cannot continue: a non-finite loss or gradient, or too little memory."""


class SubmissionError(GptError):
    """A submission is not what it says it is, or cannot be checked here."""


def unreadable(path: Path, error: OSError) -> DataError:
    """Returns the error for an input file that the system, or its compression, cannot read."""
    # pyarrow's errors have a message and no number.
    reason = error.strerror or " ".join(str(error).split())
    return DataError(f"{path}: {reason}; check the path and its permissions")


def damaged(path: Path, what: str) -> DataError:
    """Returns the error for an input of a stage that is not what the stage before wrote."""
    # DVC trusts its cache without hashing it again, so the copy there has to go as well.
    return DataError(f"{path}: {what}; delete .dvc/cache/files and {path.parent}, then: dvc repro")
