"""Tests that were not trained for: endings to choose among, last words, and well-known texts.

    hellaswag              which of four endings goes on from a text (Zellers et al. 2019)
    lambada                the last word of a passage (Paperno et al. 2016), as OpenAI prepared it
    wikitext-2, -103, ptb  perplexity of a word (Merity et al. 2016; Marcus et al. 1993, as Mikolov
                           prepared it), the text put back as it was written
    enwik8                 bits of a byte (Hutter), the last 5 % as test
    text8                  bits of a character, the same

Each file is read as its authors publish it. A choice is scored as EleutherAI's harness does it, so
that figures can be laid beside theirs: the sum of the log-probabilities of its tokens after the
context (`acc`), and the same over its length in characters (`acc_norm`).

Shapes: n choices or windows, t positions.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from gpt.checkpoint import TrainedModel
from gpt.errors import DataError, unreadable

Progress = Callable[[int], None]
# Of enwik8 and text8, their last part is what others test on.
TEST_BYTES = 5_000_000
# Texts cut into words, of which the perplexity is stated; they are put back as they were written.
OF_WORDS = ("wikitext-2", "wikitext-103", "ptb")
# What is read of the archives that some are published as.
MEMBERS = {
    "wikitext-2": "wikitext-2/wiki.test.tokens",
    "wikitext-103": "wikitext-103/wiki.test.tokens",
    "enwik8": "enwik8",
    "text8": "text8",
}
# Far above any of them; an archive may say what it likes.
LARGEST = 2**30


@dataclass(frozen=True)
class Question:
    """A text, ways to go on from it, and which of them is right."""

    context: str
    choices: tuple[str, ...]
    answer: int


# --- reading --------------------------------------------------------------------------------------


def read_hellaswag(path: Path) -> Iterator[Question]:
    """The questions of hellaswag_val.jsonl. Raises DataError that names the line."""
    for number, row in _rows(path):
        try:
            activity, label = row["activity_label"], int(row["label"])
            context = f"{activity}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
            choices = tuple(f" {_plain(ending)}" for ending in row["endings"])
            if not 0 <= label < len(choices):
                raise ValueError(label)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}:{number}: not a question of HellaSwag ({error!r})") from None
        yield Question(_plain(context), choices, label)


def read_lambada(path: Path) -> Iterator[Question]:
    """The passages of lambada_test.jsonl, each with its last word as the only choice."""
    for number, row in _rows(path):
        text = row.get("text")
        context, blank, word = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
        if not (context and word):
            raise DataError(f"{path}:{number}: not a passage of LAMBADA; it needs a text of words")
        yield Question(context, (blank + word,), 0)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("no object")
                yield number, row
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}:{number}: not a line of JSON") from None


def _plain(text: str) -> str:
    """Without what WikiHow left in HellaSwag: [title] and other words in brackets."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def as_written(text: str) -> str:
    """A text of WikiText or the Penn Treebank as it was before it was cut into words.

    Hyphens, commas and points inside numbers stand as ` @-@ `, ` @,@ `, ` @.@ `, and blanks around
    punctuation and lines; GPT-2's authors undid that with rules of their own, which they did not
    publish. Nothing but blanks and these signs is taken away.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{$£]) ", r"\1", text)
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m)\b)", r"\1", text)
    # After the s of a longer word: `the players ' union`; what else there is begins a quotation.
    text = re.sub(r"(?<=\w{4}s) '(?= )", "'", text)
    # Quotation marks come in pairs: the first clings to what follows it, the second to what was.
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r"(?<= )' ([^'\n]*?) '(?!\w)", r"'\1'", text)
    # Headings: ` = = Name = = `.
    text = re.sub(r"(?<==) (?==)", "", text)
    return re.sub(r"(?m)^ +| +$", "", text)


# --- scoring --------------------------------------------------------------------------------------


def choice_scores(
    trained: TrainedModel, question: Question
) -> tuple[NDArray[np.float64], list[bool]]:
    """For each choice the sum of its tokens' log-probabilities, shape (n,), and whether all of
    them were the likeliest. A context too long for a block loses its beginning.

    Raises TokenizerError where the tokenizer does not know a character, DataError where there is
    nothing to go on from.
    """
    tokenizer, size = trained.tokenizer, trained.model.config.block_size
    begun = len(tokenizer.encode(question.context))
    rows: list[tuple[list[int], int]] = []
    for choice in question.choices:
        ids = tokenizer.encode(question.context + choice).tolist()
        own = len(ids) - begun
        if begun == 0 and tokenizer.bos is not None:
            ids = [tokenizer.bos, *ids]
        kept = ids[-(size + 1) :]
        if own < 1 or len(kept) <= own:
            raise DataError(
                f"{choice!r:.80} leaves no room for what stands before it in a block of {size} "
                "tokens; use a model with a larger model.block_size"
            )
        rows.append((kept, own))
    return continuation_scores(trained, rows)


@torch.inference_mode()
def continuation_scores(
    trained: TrainedModel, rows: list[tuple[list[int], int]]
) -> tuple[NDArray[np.float64], list[bool]]:
    """Of rows (ids, own) the sum of the log-probabilities of the last `own` ids, shape (n,), and
    whether each of them was the likeliest. All rows go through the model at once.

    A row has at most block_size + 1 ids, of which the first is never scored.
    """
    longest = max(len(ids) for ids, _ in rows)
    # What is filled up stands at the end, where nothing before it looks.
    inputs_nt = torch.zeros((len(rows), longest - 1), dtype=torch.int64)
    for row, (ids, _) in zip(inputs_nt, rows, strict=True):
        row[: len(ids) - 1] = torch.tensor(ids[:-1])
    with trained.device.autocast:
        logits_ntv = trained.model(inputs_nt.to(trained.device.name)).float()
    sums, likeliest = np.empty(len(rows)), []
    for number, (ids, own) in enumerate(rows):
        logits_ov = logits_ntv[number, len(ids) - 1 - own : len(ids) - 1]
        targets_o = torch.tensor(ids[-own:], device=logits_ov.device)
        losses_o = F.cross_entropy(logits_ov.double(), targets_o, reduction="none")
        sums[number] = -float(losses_o.sum())
        likeliest.append(bool((logits_ov.argmax(dim=-1) == targets_o).all()))
    return sums, likeliest


def answers(
    trained: TrainedModel, questions: Iterator[Question], progress: Progress = lambda done: None
) -> dict[str, float]:
    """HellaSwag: the share of questions whose right choice scored best, and so by character."""
    right = right_by_length = count = 0
    for question in questions:
        sums, _ = choice_scores(trained, question)
        # Without the blank before it.
        lengths = np.array([len(choice) - 1 for choice in question.choices])
        right += int(sums.argmax()) == question.answer
        right_by_length += int((sums / lengths).argmax()) == question.answer
        count += 1
        progress(1)
    _some(count)
    return {
        "questions": count,
        "acc": right / count,
        "acc_norm": right_by_length / count,
        # A share of so many has this error by chance alone.
        "acc_stderr": math.sqrt(right / count * (1 - right / count) / max(1, count - 1)),
    }


def last_words(
    trained: TrainedModel, questions: Iterator[Question], progress: Progress = lambda done: None
) -> dict[str, float]:
    """LAMBADA: how often the word is the likeliest text, and the perplexity of a word."""
    right, total, count = 0, 0.0, 0
    for question in questions:
        sums, likeliest = choice_scores(trained, question)
        right += likeliest[0]
        total -= float(sums[0])
        count += 1
        progress(1)
    _some(count)
    return {"passages": count, "acc": right / count, "perplexity": math.exp(total / count)}


def read_text(path: Path, task: str) -> str:
    """A text to score; of enwik8 and text8 the last five million bytes. Raises DataError.

    `path` may be the archive that the authors publish.
    """
    content = _unpacked(path, task)
    if task not in OF_WORDS:
        content = content[-TEST_BYTES:]
        while content and content[0] & 0xC0 == 0x80:  # not from the middle of a character on
            content = content[1:]
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; unpack it first") from None


def _unpacked(path: Path, task: str) -> bytes:
    try:
        if task not in MEMBERS or not zipfile.is_zipfile(path):
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(MEMBERS[task]).file_size
            if size > LARGEST:
                raise DataError(f"{path}: {MEMBERS[task]} would be {size:,} bytes; not this text")
            return archive.read(MEMBERS[task])
    except OSError as error:
        raise unreadable(path, error) from None
    except (KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: {MEMBERS[task]} is not in it whole ({error})") from None


def _some(count: int) -> None:
    if not count:
        raise DataError("there is no question in the file; use the one that its authors publish")
