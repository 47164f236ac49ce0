"""`gpt harness`: a trained model on the tasks of EleutherAI's lm-evaluation-harness.

The harness asks, and `Harness` answers, through the interface that it has for models of any kind:
how likely is a text after another one (`loglikelihood`), how likely is a whole text
(`loglikelihood_rolling`), how does a text go on (`generate_until`). The tasks, their prompts and
their figures are the harness's own; it fetches their data from Hugging Face, unless a task of your
own (`--include-path`) names a file.

This module needs the extra `harness`; import it late.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows
from tqdm import tqdm

from gpt.checkpoint import TrainedModel, load_model
from gpt.errors import DataError
from gpt.generation import Sampling, first_ids, generate
from gpt.zeroshot import Progress, continuation_scores
from stages.params import load

# Ids of which the last so many are scored, as gpt.zeroshot.continuation_scores takes them.
Row = tuple[list[int], int]
# Texts drawn anew for the error of a perplexity; the harness's own 100,000 take minutes.
RESAMPLES = 1000
MAX_NEW_TOKENS = 256  # where a task does not say, as in the harness's own models


class Harness(LM):  # type: ignore[misc]  # lm_eval has no types
    """A trained model as the harness asks models. About `batch_tokens` tokens go through at once.

    Contexts too long for a block lose their beginning. Texts too long for one are read in several
    windows, each token once. A text without context follows the document's start (`bos`), or a
    line break where the model knows no documents, as in `generate`.
    """

    def __init__(
        self, trained: TrainedModel, batch_tokens: int, progress: Progress = lambda done: None
    ) -> None:
        super().__init__()
        self._trained = trained
        self._size = trained.model.config.block_size
        self._batch_tokens = batch_tokens
        self._progress = progress

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of pairs (context, continuation) the log-probability in nats of the continuation, and
        whether greedy writing would give it.

        Raises TokenizerError for characters that the model does not know, DataError for a
        continuation that is no token of its own.
        """
        return self._scores([list(self._after_context(*one.args)) for one in requests])

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The log-probability in nats of each text (text,), in the windows of the harness's own
        models: blocks side by side, of which the last reaches back to be whole."""
        texts = []
        for one in requests:
            windows = get_rolling_token_windows(
                token_list=self._encode(one.args[0]),
                prefix_token=self._start(),
                max_seq_len=self._size,
                context_len=1,
            )
            texts.append([([*read, own[-1]], len(own)) for read, own in windows])
        return [total for total, _ in self._scores(texts)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """How each of (context, settings) goes on, up to the first of the strings `until`; greedy
        unless the settings say `do_sample`. One after the other."""
        texts = []
        for number, one in enumerate(requests):
            context, settings = one.args
            until = settings.get("until") or []
            until = [until] if isinstance(until, str) else [stop for stop in until if stop]
            sampling = Sampling(
                max_new_tokens=int(settings.get("max_gen_toks") or MAX_NEW_TOKENS),
                temperature=float(settings.get("temperature", 1.0))
                if settings.get("do_sample")
                else 0.0,
                top_k=int(settings.get("top_k", 0)),
                top_p=float(settings.get("top_p", 1.0)),
                stop=until[0] if until else None,
            )
            (sample,) = generate(
                self._trained.model,
                self._trained.tokenizer,
                context,
                sampling,
                seed=0,
                indices=(number,),
            )
            text = sample.text[len(context) :]
            # `generate` knows one stop string, which can only have come after all that is left.
            for stop in until[1:]:
                text = text.partition(stop)[0]
            texts.append(text)
            self._progress(1)
        return texts

    def _encode(self, text: str) -> list[int]:
        return [int(token) for token in self._trained.tokenizer.encode(text)]

    def _start(self) -> int:
        return first_ids(self._trained.tokenizer, "")[-1]

    def _after_context(self, context: str, continuation: str) -> Iterator[Row]:
        # A blank belongs to the word after it, as the harness's own models have it: byte pairs
        # that were learned so never end with one.
        kept = context.rstrip()
        if kept:
            context, continuation = kept, context[len(kept) :] + continuation
        ids, begun = self._encode(context + continuation), len(self._encode(context))
        own = len(ids) - begun
        if own < 1:
            raise DataError(
                f"{continuation!r:.80} after {context[-40:]!r} is no token of its own; begin it "
                "with a blank, or use a model with another tokenizer"
            )
        if begun == 0:
            ids = [self._start(), *ids]
        if own <= self._size:
            yield ids[-(self._size + 1) :], own
            return
        # By half blocks, so that every token has half a block of context, where there is so much.
        stride = max(1, self._size // 2)
        for start in range(len(ids) - own, len(ids), stride):
            stop = min(start + stride, len(ids))
            yield ids[max(0, stop - self._size - 1) : stop], stop - start

    def _scores(self, texts: list[list[Row]]) -> list[tuple[float, bool]]:
        """The sum over the rows of each text, and whether all were the likeliest."""
        rows = [(row, number) for number, of_text in enumerate(texts) for row in of_text]
        # Long ones first: little is filled up, and too little memory shows at once.
        rows.sort(key=lambda item: len(item[0][0]), reverse=True)
        totals, likeliest = [0.0] * len(texts), [True] * len(texts)
        at = 0
        while at < len(rows):
            room = max(1, self._batch_tokens // len(rows[at][0][0]))
            batch = rows[at : at + room]
            sums, greedy = continuation_scores(self._trained, [row for row, _ in batch])
            for (_, number), total, one_greedy in zip(batch, sums, greedy, strict=True):
                totals[number] += float(total)
                likeliest[number] &= one_greedy
            at += len(batch)
            self._progress(len(batch))
        return list(zip(totals, likeliest, strict=True))


def run(
    tasks: list[str],
    model: Path,
    *,
    include_path: Path | None = None,
    limit: int = 0,
    num_fewshot: int | None = None,
) -> dict[str, dict[str, float | int | str]]:
    """The figures of each task, and of each group of them, as the harness computes them.

    `include_path` is a folder with tasks of one's own, `limit` asks only the first so many
    questions of each (0: all). Raises DataError for tasks that are unknown or cannot be had.
    """
    params = load()
    trained = load_model(model, params.model_source)
    # Else it starts processes for it, which a process that computes with threads should not.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    # The harness prints; what is on stdout is ours alone.
    # disable=None: quiet where the output is not a terminal.
    with redirect_stdout(sys.stderr), tqdm(desc="harness", disable=None) as bar:

        def progress(done: int) -> None:
            bar.update(done)

        manager = TaskManager(include_path=None if include_path is None else str(include_path))
        try:
            loaded = manager.load(tasks)
        except Exception as error:  # whatever YAML, Hugging Face and its network come up with
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"{', '.join(tasks)}: cannot be loaded ({reason}); lm-eval ls tasks lists the "
                "names, --include-path takes a folder of your own, data comes from Hugging Face"
            ) from None
        inner = {name for names in loaded["group_map"].values() for name in names}
        built = {**loaded["groups"], **loaded["tasks"]}
        found = simple_evaluate(
            model=Harness(trained, params.evaluate.batch_tokens, progress),
            tasks=[one for name, one in built.items() if name not in inner],
            task_manager=manager,
            limit=limit or None,
            num_fewshot=num_fewshot,
            bootstrap_iters=RESAMPLES,
            log_samples=False,
        )
    return {name: _figures(figures) for name, figures in sorted(found["results"].items())}


def _figures(found: dict[str, Any]) -> dict[str, float | int | str]:
    """Without the harness's `,none` after a figure that no filter made, and without blanks."""
    return {
        name.removesuffix(",none"): round(value, 6) if isinstance(value, float) else value
        for name, value in found.items()
        if name != "alias" and value not in ("N/A", " ")
    }
