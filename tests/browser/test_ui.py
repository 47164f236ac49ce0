"""The pages that `gpt ui` opens, in a real browser: three rows, two of them compared, one chart."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trial_repository import CURVE, REPOSITORY, TrialRepository
from waiting import answers, wait_for

from repro.tracking.store import Store
from stages.params import PROJECT

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PATIENCE = 60_000  # milliseconds; two busy cores are slow


@dataclass
class Pages:
    """A served store: the address that `gpt ui` printed, and the rows, the newest first."""

    address: str
    rows: list[Any]

    @property
    def server(self) -> str:
        return self.address.partition("/#")[0]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DVC_", "MLFLOW_")):
                patch.delenv(name)
        trial = TrialRepository(tmp_path_factory.mktemp("ui") / "repository")
        patch.chdir(trial.folder)
        trial.run_all()
        for name, layers in (("calm-fox", 2), ("brave-owl", 6)):
            patch.setenv("DVC_EXP_NAME", name)
            trial.set(n_layer=layers)
            trial.model = name
            trial.run_all()
        patch.delenv("DVC_EXP_NAME")
        rows = Store(PROJECT).search("", limit=9)
        with serve(trial.folder) as address:
            yield Pages(address, rows)


class serve:
    """`gpt ui --port 0` until it answers; its address; its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> str:
        self.process = gpt(self.folder, "ui", "--port", "0", start_new_session=True)
        assert self.process.stdout is not None
        shown = ""
        for line in self.process.stdout:
            shown += line
            if line.startswith("http"):
                break
        assert "http" in shown, shown
        address = line.strip()
        try:
            wait_for(
                lambda: answers(address.partition("/#")[0]),
                running=lambda: self.process.poll() is None,
                told=lambda: f"{address} does not answer",
            )
        except AssertionError:
            self.__exit__()
            raise
        return address

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.communicate(timeout=60)


def gpt(folder: Path, *arguments: str, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "commands.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1900, "height": 1000})
    opened.set_default_timeout(PATIENCE)
    yield opened
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(":")[2].split()[0]
        opened.screenshot(path=Path(folder) / f"{test}.png", full_page=True)
    opened.close()


def test_the_table_shows_each_row_with_its_scores_and_params(pages: Pages, page: Any) -> None:
    page.goto(pages.address)
    for name in ("workspace", "calm-fox", "brave-owl"):
        page.get_by_role("link", name=name).first.wait_for()
    for column in ("evaluate/val/bits_per_byte", "time/train_s", "model.n_layer", "preset"):
        page.locator(".ag-header-cell").get_by_text(column, exact=True).first.wait_for()
    cells = page.locator(".ag-center-cols-container [col-id='params.`model.n_layer`']")
    cells.first.wait_for()
    assert cells.all_inner_texts() == [run.data.params["model.n_layer"] for run in pages.rows]


def test_two_rows_can_be_compared(pages: Pages, page: Any) -> None:
    runs = json.dumps([run.info.run_id for run in pages.rows[:2]])
    query = urllib.parse.urlencode({"runs": runs, "experiments": '["1"]'})
    page.goto(f"{pages.server}/#/compare-runs?{query}")
    page.get_by_text("Comparing 2 Runs").wait_for()
    for text in ("brave-owl", "calm-fox", "model.n_layer", "evaluate/val/bits_per_byte"):
        page.get_by_text(text, exact=True).first.wait_for()
    layers = page.get_by_role("row").filter(has_text=re.compile(r"^model\.n_layer"))
    assert re.findall(r"\d+", layers.first.inner_text()) == ["6", "2"]


def test_the_loss_of_a_training_is_drawn_as_a_curve(pages: Pages, page: Any) -> None:
    page.goto(f"{pages.server}/#/experiments/1/runs/{pages.rows[0].info.run_id}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("train/loss")
    page.wait_for_function(
        "count => document.querySelectorAll('.js-plotly-plot .point').length >= count",
        arg=len(CURVE),
    )
    line = page.locator(".js-plotly-plot path.js-line").first.get_attribute("d")
    assert line.count("L") > 3  # a line of straight pieces, more than from corner to corner


def test_the_samples_are_shown_as_a_table(pages: Pages, page: Any) -> None:
    run = pages.rows[0].info.run_id
    page.goto(f"{pages.server}/#/experiments/1/runs/{run}/artifacts/samples.json")
    page.get_by_text("Thou art.").first.wait_for()


@pytest.mark.fault(25)
def test_the_server_answers_on_loopback_only(pages: Pages) -> None:
    port = urllib.parse.urlparse(pages.server).port
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), port)}
    for host in others - {"127.0.0.1", "127.0.1.1", "::1"}:
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            socket.create_connection((str(host), port), timeout=2)


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    trial = TrialRepository(tmp_path / "repository")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = gpt(trial.folder, "ui", "--port", str(port))
        shown = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert (
        shown == f"gpt: --port {port}: Address already in use; take a free one: gpt ui --port 0\n"
    )
