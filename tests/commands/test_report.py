"""The report: everything in one page, and nothing from a network."""

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from trial_repository import STAGES, TrialRepository, commit_all
from typer.testing import CliRunner

from commands.cli import app
from stages import params

EVIL = "</script><script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"
VAL = {
    "bits_per_byte": 1.5,
    "bits_per_byte_low": 1.4,
    "bits_per_byte_high": 1.6,
    "loss": 1.04,
    "by_class": {"letter": {"loss": 1.2, "share": 0.8}, "line_break": {"loss": 0.1, "share": 0.2}},
}
NEW = {f"{n:02}": n / 20 for n in range(4, 17)}
NGRAMS = {f"ngram_{n}": 5 - n / 2 for n in range(1, 7)}
BASELINES = {"uniform": 6.0, **NGRAMS, "gzip": 2.8, "xz": 2.5}
NOVELTY = {
    **{"longest_shared_run": 41, "new_ngrams": NEW},
    "validation": {"longest_shared_run": 48, "new_ngrams": NEW},
    **{"distinct_1": 0.4, "distinct_2": 0.8, "rouge_2_train": 0.1, "rouge_2_among": None},
}


def write_results(trial: TrialRepository, text: str = "Thou art.") -> None:
    """All that the report reads, small."""
    for stage in STAGES:
        trial.results(stage)
    metrics = {"parameters": 1000, "steps": 40, "tokens": 400, "best_val_loss": 3.7}
    trial.write("metrics/train.json", json.dumps(metrics))
    trial.write("metrics/evaluate.json", json.dumps({"val": VAL, params.BASELINES: BASELINES}))
    trial.write("metrics/sample.json", json.dumps({"samples": 1, "novelty": NOVELTY}))
    sample = {"sample": 0, "prompt": "", "text": text, "stop_reason": "length", "seed": 1}
    trial.write("data/samples/samples.jsonl", json.dumps(sample) + "\n")
    for stage in STAGES:
        trial.lock(stage)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialRepository:
    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    repository.set(tracking="false")
    subprocess.run(["git", "init", "--quiet"], check=True)
    return repository


def report() -> str:
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 0, done.output
    return Path("report.html").read_text(encoding="utf-8")


def test_the_page_holds_scores_params_lineage_and_how_to_reproduce(trial: TrialRepository) -> None:
    commit_all()
    trial.set(n_layer=4, prompt="'ROMEO:'")
    write_results(trial)
    text = html.unescape(re.sub(r"<[^>]*>", " ", report()))
    lock = (trial.folder / "dvc.lock").read_text(encoding="utf-8")
    for expected in (
        "quick on verse",
        "n_layer=4",
        "1.400 to 1.600",
        "longest run shared with train",
        "6-gram",
        """dvc exp run -S model.n_layer=4 -S 'sample.prompt="ROMEO:"'""",
        "runtime.tracking is false",
        "Thou art.",
    ):
        assert expected in text, expected
    stages = yaml.safe_load(lock)["stages"].values()
    for out in [out for stage in stages for out in stage["outs"]]:
        assert f"{out['path']} {out['md5'][:8]}" in text


def test_without_a_commit_dvc_repro_reproduces_it(trial: TrialRepository) -> None:
    write_results(trial)
    page = report()
    assert "pip install -c constraints.txt -e .\ndvc repro" in page
    assert "dvc exp run" not in page


def test_text_of_a_model_stays_text(trial: TrialRepository) -> None:
    write_results(trial, EVIL)
    page = report()
    assert "<img src=x" not in page
    assert "&lt;/script&gt;&lt;script&gt;document.title" in page


def test_without_results_a_line_says_what_to_run(trial: TrialRepository) -> None:
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 2
    assert "run it: dvc repro" in done.output
    assert not Path("report.html").exists()


def test_a_page_that_cannot_be_written_is_one_line(trial: TrialRepository) -> None:
    write_results(trial)
    Path("report.html").mkdir()
    done = CliRunner().invoke(app, ["report"])
    expected = "gpt: report.html: is a directory; a folder is where a file should be: move it\n"
    assert (done.exit_code, done.output) == (2, expected)


def test_a_broken_tracking_store_is_reported_on_the_page(
    trial: TrialRepository,
) -> None:
    trial.set(tracking="true")
    write_results(trial)
    trial.write("mlflow.db", "not a database")
    assert "The tracking store cannot be read" in report()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_samples_by_step_come_from_the_tracking_store(trial: TrialRepository) -> None:
    trial.set(tracking="true")
    for stage in ("prepare", "tokenize"):
        trial.run(stage)

    def body(run: Any) -> None:
        run.log_text("Xq zw", "samples/step_00000000.txt")
        run.log_text(EVIL, "samples/step_00000020.txt")

    trial.run("train", body)
    # The same weights again, as after a change of `sample` alone.
    write_results(trial)
    page = report()
    (steps,) = re.findall(r"const steps = (\[.*?\]);\n", page)
    assert json.loads(steps) == [[0, "Xq zw"], [20, EVIL]]
    assert "</script><script>document" not in page


# --- in a browser ---------------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_works_with_the_network_off(
    trial: TrialRepository, monkeypatch: pytest.MonkeyPatch, browser: Any, width: int
) -> None:
    import commands.report

    steps = [(0, "Xq zw"), (20, "Thou art"), (2400, EVIL)]
    monkeypatch.setattr(commands.report, "samples_by_step", lambda result: (steps, ""))
    write_results(trial, EVIL)
    report()
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
    page = context.new_page()
    requests: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    page.goto((trial.folder / "report.html").as_uri())
    # Five figures, of which the large one scrolls in a frame of its own.
    assert page.locator("svg[role=img]").count() == 5
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The slider selects the step.
    assert page.inner_text("#at") == "2,400"
    slider = page.locator("#step")
    slider.fill("0")
    assert (page.inner_text("#at"), page.inner_text("#sample")) == ("0", "Xq zw")
    slider.press("ArrowRight")
    assert (page.inner_text("#at"), page.inner_text("#sample")) == ("20", "Thou art")
    assert page.title() == "quick on verse"
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert faults == []
    context.close()


@pytest.mark.parametrize("line", ['{"text": "Thou"}', "[1]", "Thou art.", "7"])
def test_samples_that_were_edited_are_one_line(trial: TrialRepository, line: str) -> None:
    write_results(trial)
    trial.write("data/samples/samples.jsonl", f"{line}\n")
    done = CliRunner().invoke(app, ["report"])
    what = "data/samples/samples.jsonl: is not what the stage sample wrote; dvc checkout -f"
    assert (done.exit_code, done.output) == (2, f"gpt: {what}\n"), done.exception


@pytest.mark.parametrize(
    ("command", "file", "key", "named"),
    [
        ("result", "prepare", "val", " ('val')"),
        ("result", "evaluate", params.BASELINES, f" ('{params.BASELINES}')"),
        ("result", "prepare", "val.characters", " ('characters')"),
        ("report", "train", "steps", " ('steps')"),
        ("report", "evaluate", "val.by_class", " ('by_class')"),
        ("report", "sample", "novelty", " ('novelty')"),
        ("plan --seconds 0", "tokenize", "vocab_size", " ('vocab_size')"),
    ],
)
def test_a_figure_that_metrics_lack_or_that_is_no_number_is_one_line(
    trial: TrialRepository, command: str, file: str, key: str, named: str
) -> None:
    write_results(trial)
    size = {"bytes": 300, "characters": 200}
    trial.write("metrics/prepare.json", json.dumps({"val": size}))
    commit_all()
    path = trial.folder / f"metrics/{file}.json"
    content = json.loads(path.read_bytes())
    *sections, name = key.split(".")
    inner = content[sections[0]] if sections else content
    for value in (None, "edited"):
        inner[name] = value
        if value is None:
            del inner[name]
        path.write_text(json.dumps(content), encoding="utf-8")
        done = CliRunner().invoke(app, command.split())
        which = named if value is None else ""
        what = f"metrics: a figure is missing or is no number{which}; make them again: dvc repro"
        assert (done.exit_code, done.output) == (2, f"gpt: {what}\n"), done.exception


def test_the_rules_of_a_play_stand_beside_each_other(trial: TrialRepository) -> None:
    write_results(trial)
    assert "Rules of the play" not in report()
    lines = ["rule,text,kept,cases", "turns,samples,3,4", "turns,held_out,7,7", "turns,ngram,0,0"]
    trial.write("data/samples/rules.csv", "\n".join(lines) + "\n")
    metrics = json.loads(Path("metrics/evaluate.json").read_text(encoding="utf-8"))
    trial.write("metrics/evaluate.json", json.dumps(metrics | {"minimal_pairs": {"turns": 0.75}}))
    turns = report().partition("<td>turns:")[2].partition("</tr>")[0]
    assert re.findall(r"<td>([^<]+)</td>", turns) == ["0.750 of 4", "1.000 of 7", "0.7500"]
