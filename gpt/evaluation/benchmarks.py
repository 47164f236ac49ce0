"""Zero-shot benchmarks: multiple choice, last words, and well-known texts.

    hellaswag              which of four endings continues a text (Zellers et al. 2019)
    lambada                the last word of a passage (Paperno et al. 2016), as OpenAI prepared it
    wikitext-2, -103, ptb  perplexity per word (Merity et al. 2016; Marcus et al. 1993, as Mikolov
                           prepared it) of the detokenized text
    enwik8, text8          bits per byte (Hutter) of the last 5 %

Files are read as their authors publish them. Choices are scored as in EleutherAI's harness, so that
scores compare: the sum of the log-probabilities of a choice's tokens after the context (`acc`), and
that sum divided by the choice's length in characters (`acc_norm`).

Shapes: n choices, t positions, v vocabulary, c tokens of one choice.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from gpt.checkpoint import TrainedModel
from gpt.errors import DataError, unreadable
from gpt.evaluation.scoring import Progress, Scorer, half_block_windows

WORD_TASKS = ("wikitext-2", "wikitext-103", "ptb")  # scores per word, in texts split into words
TEST_BYTES = 5_000_000  # of enwik8 and text8: the last ones are the usual test split
# The text within the archive that its authors publish.
MEMBERS = {
    "wikitext-2": "wikitext-2/wiki.test.tokens",
    "wikitext-103": "wikitext-103/wiki.test.tokens",
    "enwik8": "enwik8",
    "text8": "text8",
}
MAX_MEMBER_BYTES = 2**30  # far above any of them; a crafted archive may expand to anything


@dataclass(frozen=True)
class Question:
    """A context, possible continuations, and the index of the right one."""

    context: str
    choices: tuple[str, ...]
    answer: int


# --- reading --------------------------------------------------------------------------------------


def read_hellaswag(path: Path) -> Iterator[Question]:
    """The questions of hellaswag_val.jsonl. Raises DataError that names the line."""
    for number, item in _json_lines(path):
        try:
            activity, label = item["activity_label"], int(item["label"])
            context = f"{activity}: {item['ctx_a']} {item['ctx_b'].capitalize()}"
            choices = tuple(f" {_without_brackets(ending)}" for ending in item["endings"])
            if not 0 <= label < len(choices):
                raise ValueError(label)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}:{number}: not a question of HellaSwag ({error!r})") from None
        yield Question(_without_brackets(context), choices, label)


def read_lambada(path: Path) -> Iterator[Question]:
    """The passages of lambada_test.jsonl, each with its last word as the only choice."""
    for number, item in _json_lines(path):
        text = item.get("text")
        context, space, word = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
        if not (context and word):
            raise DataError(f"{path}:{number}: not a passage of LAMBADA; it needs a text of words")
        yield Question(context, (space + word,), 0)


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                item = json.loads(line)
                if not isinstance(item, dict):
                    raise ValueError("no object")
                yield number, item
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError):
        raise DataError(f"{path}:{number}: not a line of JSON") from None


def _without_brackets(text: str) -> str:
    """Removes what WikiHow left in HellaSwag: [title] and other words in brackets."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def read_text(path: Path, task: str) -> str:
    """The text of `task`, of enwik8 and text8 the test split; `path` may be the published archive.

    Raises DataError.
    """
    content = _read_member(path, task)
    if task not in WORD_TASKS:
        content = content[-TEST_BYTES:]
        while content and content[0] & 0xC0 == 0x80:  # the middle of a character
            content = content[1:]
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8; unpack it first") from None


def _read_member(path: Path, task: str) -> bytes:
    try:
        if task not in MEMBERS or not zipfile.is_zipfile(path):
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(MEMBERS[task]).file_size
            if size > MAX_MEMBER_BYTES:
                raise DataError(f"{path}: {MEMBERS[task]} would be {size:,} bytes; not this text")
            return archive.read(MEMBERS[task])
    except OSError as error:
        raise unreadable(path, error) from None
    except (KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(
            f"{path}: {MEMBERS[task]} is missing from it or damaged ({error}); download it again"
        ) from None


def detokenize(text: str) -> str:
    """Undoes the splitting into words of WikiText or the Penn Treebank.

    GPT-2's authors did the same with rules that they did not publish. Hyphens, commas and points
    within numbers are written ` @-@ `, ` @,@ `, ` @.@ `, and there are spaces around punctuation
    and lines. Only spaces and these signs are removed.
    """
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{$£]) ", r"\1", text)
    text = re.sub(r" (n't|'(?:s|re|ve|ll|d|m)\b)", r"\1", text)
    # After the s of a longer word, `the players ' union`; elsewhere it begins a quotation.
    text = re.sub(r"(?<=\w{4}s) '(?= )", "'", text)
    # Quotation marks come in pairs: the first joins the text after it, the second the text before.
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r"(?<= )' ([^'\n]*?) '(?!\w)", r"'\1'", text)
    # Headings: ` = = Name = = `.
    text = re.sub(r"(?<==) (?==)", "", text)
    return re.sub(r"(?m)^ +| +$", "", text)


# --- scoring --------------------------------------------------------------------------------------


@torch.inference_mode()
def choice_scores(
    trained: TrainedModel, question: Question
) -> tuple[NDArray[np.float64], list[bool]]:
    """For each choice the sum of its tokens' log-probabilities, shape (n,), and whether each of its
    tokens was the most likely one. A context too long for a block loses its beginning.

    Raises TokenizerError for a character outside the vocabulary, DataError for a choice that leaves
    no room for any context.
    """
    tokenizer, block_size = trained.tokenizer, trained.model.config.block_size
    num_context = len(tokenizer.encode(question.context))
    sequences: list[tuple[list[int], int]] = []  # ids, and how many of the last ones are scored
    for choice in question.choices:
        ids = tokenizer.encode(question.context + choice).tolist()
        scored = len(ids) - num_context
        if num_context == 0 and tokenizer.bos is not None:
            ids = [tokenizer.bos, *ids]
        kept = ids[-(block_size + 1) :]
        if scored < 1 or len(kept) <= scored:
            raise DataError(
                f"{choice!r:.80} leaves no room for its context in a block of {block_size} tokens; "
                "use a model with a larger model.block_size"
            )
        sequences.append((kept, scored))
    # Padding comes last, so that causal attention never sees it.
    inputs_nt = pad_sequence([torch.tensor(ids[:-1]) for ids, _ in sequences], batch_first=True)
    with trained.device.autocast:
        logits_ntv = trained.model(inputs_nt.to(trained.device.name)).float()
    sums, most_likely = np.empty(len(sequences)), []
    for i, (ids, scored) in enumerate(sequences):
        # Apple's GPUs have no float64.
        logits_cv = logits_ntv[i, len(ids) - 1 - scored : len(ids) - 1].cpu()
        targets_c = torch.tensor(ids[-scored:])
        sums[i] = -float(F.cross_entropy(logits_cv.double(), targets_c, reduction="none").sum())
        most_likely.append(bool((logits_cv.argmax(dim=-1) == targets_c).all()))
    return sums, most_likely


def score_hellaswag(
    trained: TrainedModel, questions: Iterable[Question], progress: Progress = lambda done: None
) -> dict[str, float]:
    """How often the right choice has the highest score, in total and per character."""
    correct = correct_norm = count = 0
    for question in questions:
        sums, _ = choice_scores(trained, question)
        lengths = np.array([len(choice) - 1 for choice in question.choices])  # without the space
        correct += int(sums.argmax()) == question.answer
        correct_norm += int((sums / lengths).argmax()) == question.answer
        count += 1
        progress(1)
    _check_not_empty(count)
    acc = correct / count
    return {
        "questions": count,
        "acc": acc,
        "acc_norm": correct_norm / count,
        "acc_stderr": math.sqrt(acc * (1 - acc) / max(1, count - 1)),
    }


def score_lambada(
    trained: TrainedModel, questions: Iterable[Question], progress: Progress = lambda done: None
) -> dict[str, float]:
    """How often the last word is the most likely continuation, and the perplexity per word."""
    correct, total, count = 0, 0.0, 0
    for question in questions:
        sums, most_likely = choice_scores(trained, question)
        correct += most_likely[0]
        total -= float(sums[0])
        count += 1
        progress(1)
    _check_not_empty(count)
    return {"passages": count, "acc": correct / count, "perplexity": math.exp(total / count)}


def score_text(
    trained: TrainedModel, task: str, text: str, batch_tokens: int, progress: Progress
) -> dict[str, float]:
    """Perplexity per word, or bits per byte (enwik8, text8), both of the text as published."""
    per_word = task in WORD_TASKS
    ids = trained.tokenizer.encode(detokenize(text) if per_word else text)
    windows = half_block_windows(len(ids), trained.model.config.block_size) if len(ids) > 1 else []
    scorer = Scorer(trained.model, trained.device, batch_tokens, progress)
    (scores,) = scorer.token_scores(ids, [windows])
    total = float(scores.losses.sum())
    if per_word:
        words = len(text.split()) + text.count("\n")
        return {"words": words, "tokens": len(ids), "perplexity": math.exp(total / words)}
    num_bytes = len(text.encode())
    bits = total / math.log(2)
    return {"bytes": num_bytes, "tokens": len(ids), "bits_per_byte": bits / num_bytes}


def _check_not_empty(count: int) -> None:
    if not count:
        raise DataError("the file holds no question; use the one that its authors publish")
