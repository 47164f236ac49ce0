"""One MLflow run per execution of the pipeline; what the stages see of it.

    with tracking.stage(project, "train", params) as run:
        run.log_metrics({"train/loss": 2.1}, step=100)
        run.log_text("Enter ROMEO ...", "samples/step_00000250.txt")

Each stage finds the run of its execution, or begins it, and completes it from the files of the
stages that DVC did not need to run (contents.py says with what, stage_run.py does it).
Tracking warns once and never stops or changes a stage: whatever fails here becomes one line on
stderr. It installs no signal handlers, starts no threads but the one that reads system metrics
while the model is made, and logs nothing of the environment.
"""

import os
import re
import sys
import textwrap
import time
import urllib.parse
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

from repro.errors import Interrupted, UserError
from repro.project import AnyParams, Project
from repro.tracking import mlflow_internals

if TYPE_CHECKING:
    from repro.tracking.stage_run import StageRun

# Points are sent in batches: one alone costs 6 to 23 ms, 1,000 of them 0.15 s.
SEND_AFTER_POINTS = 300
SEND_AFTER_SECONDS = 5.0


class Run:
    """The run of this execution; where tracking is off or broken, one that does nothing."""

    def __init__(self) -> None:
        self._stage: StageRun | None = None
        self._points: list[tuple[str, int, float]] = []
        self._sent_at = time.monotonic()

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Points of curves. A step that the run has already (a resumed training) is dropped."""
        if self._stage is None:
            return
        self._points += [(name, step, float(value)) for name, value in metrics.items()]
        waited = time.monotonic() - self._sent_at
        if len(self._points) >= SEND_AFTER_POINTS or waited >= SEND_AFTER_SECONDS:
            self._send()

    def log_text(self, text: str, path: str) -> None:
        """A text as an artifact of the run."""
        self._try(lambda stage: stage.log_text(text, path))

    def _send(self) -> None:
        points, self._points = self._points, []
        self._sent_at = time.monotonic()
        self._try(lambda stage: stage.log_points(points))

    def _begin(self, project: Project[AnyParams], name: str, params: AnyParams) -> None:
        def begin() -> None:
            # Seconds, of which MLflow takes most to be imported.
            with tqdm(desc="opening MLflow ...", bar_format="{desc}", leave=False, disable=None):
                # Imported here: a stage without tracking must not pay for MLflow.
                from repro.tracking.stage_run import StageRun

                self._stage = StageRun(project, name, params)

        self._guard(begin)

    def _end(self, state: str) -> None:
        self._send()
        self._try(lambda stage: stage.end(state))

    def _try(self, action: Callable[["StageRun"], None]) -> None:
        stage = self._stage
        if stage is not None:
            self._guard(lambda: action(stage))

    def _guard(self, action: Callable[[], None]) -> None:
        """Runs `action`; after a first failure warns and tracks no more in this stage.

        The next stage, or `gpt ui`, fills in from the files what is then missing.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                action()
        except Exception as error:
            self._stage = None
            print(f"tracking: {reason(error)}; the stage continues untracked", file=sys.stderr)


@contextmanager
def stage(project: Project[AnyParams], name: str, params: AnyParams) -> Iterator[Run]:
    """The run of one execution of a stage; exceptions propagate and mark it failed."""
    run = Run()
    if params.tracking:
        run._begin(project, name, params)
    try:
        yield run
    except BaseException as error:
        run._end("interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed")
        raise
    run._end("done")


def reason(error: Exception) -> str:
    """One line of why, without the pages of SQL that SQLAlchemy adds."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "mlflow").partition(".")[0]
        # What a server of a team needs is an extra.
        what = "-c constraints.txt -e '.[team]'" if package in ("boto3", "psycopg2") else package
        return f"{package} is not installed; pip install {what}"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or '').lower()}"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    server = urllib.parse.urlsplit(os.environ.get("MLFLOW_TRACKING_URI", ""))
    # Without the user and password that may stand before the host.
    address = f"MLFLOW_TRACKING_URI {server.scheme}://{server.netloc.rpartition('@')[2]}"
    if re.match(r"API request to https?://.* failed with exception", lines[0]):
        return f"{address} does not answer"
    if version := mlflow_internals.other_version(error):
        from repro.tracking.store import other_version  # what it imports, a stage mostly has not

        return other_version(version, address, '"$MLFLOW_TRACKING_URI"')
    return textwrap.shorten(lines[0], 200)
