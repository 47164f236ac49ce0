"""`gpt verify --retrain`: the proof that weights came from a training."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forged_submissions import cover_up, edit, gpt, other_weights, state_the_score, write_anew
from trial_repository import REPOSITORY

from commands import retraining
from commands.competition import ask_to_download
from commands.retraining import downloads_of
from gpt.device import choose_device
from gpt.errors import SubmissionError
from stages.params import Params, load


@pytest.mark.parametrize("path", ["/{0}/out", "../out", "data/../../out", ".", "gpt", "dvc.yaml"])
def test_no_path_of_a_stranger_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    here, folder = tmp_path / "here/repository", tmp_path / "again/folder"
    for name in ("gpt", "dvc.yaml"):
        (here / name).mkdir(parents=True)
        (folder / name).mkdir(parents=True)
    (here.parent / "out").mkdir()
    monkeypatch.chdir(here)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SubmissionError, match=r"^data.path = .*put it in data/own"):
        retraining._copy_own_text(path.format(tmp_path), folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_more_processes_than_the_machine_has_cores_are_not_started(tmp_path: Path) -> None:
    params = load(str(REPOSITORY / "params.yaml"))
    train = params.train.model_copy(update={"processes": 5000})
    with pytest.raises(SubmissionError, match=r"train.processes = 5000: this machine has \d+ core"):
        retraining._run(
            params.model_copy(update={"train": train}), choose_device(), tmp_path, print, None
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("corpus", "shards", "what"),
    [
        ("verse", 9, ""),
        ("shakespeare+names", 9, ""),
        ("tinystories", 9, "tinystories, 2 files of together about 2.2 GB"),
        ("verse+openwebtext", 10**9, "openwebtext, 80 files of together about 24.0 GB"),
        ("fineweb_edu", 2000, "fineweb_edu, 1,823 files of together about 182.3 GB"),
    ],
)
def test_what_a_strangers_params_download_is_known_before(
    corpus: str, shards: int, what: str
) -> None:
    data = load(str(REPOSITORY / "params.yaml")).data
    assert downloads_of(data.model_copy(update={"corpus": corpus, "shards": shards})) == what


@pytest.mark.parametrize("answer", [None, "n\n", "y\n"])
def test_a_corpus_that_a_stranger_names_is_downloaded_by_nobody_who_was_not_asked(
    submission: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None
) -> None:
    begun: list[Params] = []

    def begin(params: Params, *_: Any) -> Path:
        begun.append(params)
        raise SubmissionError("it began")

    monkeypatch.setattr(retraining, "_run", begin)
    params = retraining.params_of(submission)
    data = params.data.model_copy(update={"corpus": "openwebtext", "shards": 7})
    monkeypatch.setattr(
        retraining, "params_of", lambda folder: params.model_copy(update={"data": data})
    )
    monkeypatch.setattr("sys.stdin", io.StringIO(answer or "y\n"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: answer is not None, raising=False)
    refusal = (
        "openwebtext, 7 files of together about 2.1 GB, is not downloaded unasked; add --download, "
        "or verify without --retrain"
    )
    with pytest.raises(SubmissionError) as refused:
        retraining.retrain(submission, allow_download=ask_to_download)
    assert str(refused.value) == ("it began" if answer == "y\n" else refusal)
    assert len(begun) == (answer == "y\n")
    code, output = gpt("verify", "--retrain", "--download", str(submission))
    assert (code, "gpt: it began" in output) == (2, True), output


def test_own_text_is_read_where_this_repository_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "here/data/own/text.txt"
    text.parent.mkdir(parents=True)
    text.write_text("Own text.\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    retraining._copy_own_text("data/own", tmp_path / "again")
    assert (tmp_path / "again/data/own/text.txt").read_text(encoding="utf-8") == "Own text.\n"


@pytest.mark.parametrize(
    "text", ["", "step\n1\n", "step,val_loss\n1,high\n", "step,val_loss\n1,inf\n", "\0", '"']
)
def test_a_curve_of_another_form_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name / "metrics/curves").mkdir(parents=True)
        curve = tmp_path / name / "metrics/curves/train.csv"
        curve.write_text("step,val_loss\n1,2.0\n" if name == "ours" else text, encoding="utf-8")
    with pytest.raises(SubmissionError, match=r"theirs.*(curve of a training|not finite)"):
        retraining.curve_distance(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.slow
def test_training_again_accepts_the_honest_and_refuses_weights_from_elsewhere(
    submission: Path,
) -> None:
    code, output = gpt("verify", "--retrain", str(submission))
    assert (code, "trained again: the same bits" in output) == (0, True), output
    # Everything agrees but where the weights are from.
    other_weights(submission)
    state_the_score(submission)
    write_anew(submission)
    cover_up(submission)
    assert gpt("verify", str(submission))[0] == 0
    code, output = gpt("verify", "--retrain", str(submission))
    assert code == 2
    assert "data/model: trained again on the same kind of machine, other bits came out" in output


@pytest.mark.slow
def test_on_another_kind_of_machine_the_curve_and_the_weights_must_be_within_noise(
    submission: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    really_run, kept = retraining._run, {}

    def run_once(
        params: Params, device: Any, folder: Path, say: Callable[[str], None], code: None
    ) -> Path:
        """Each seed is trained once, and copied afterwards."""
        if params.seed not in kept:
            kept[params.seed] = tmp_path / f"seed-{params.seed}"
            kept[params.seed].mkdir()
            really_run(params, device, kept[params.seed], say, code)
        shutil.copytree(kept[params.seed], folder, dirs_exist_ok=True)
        return folder

    monkeypatch.setattr(retraining, "_run", run_once)
    edit(
        submission / "data/model/config.json",
        lambda config: config["device"].update(cpu_capability="another"),
    )
    cover_up(submission)
    # The submitter does not choose the weaker proof.
    with pytest.raises(SubmissionError, match=r"another kind of machine \(cpu_capability another"):
        retraining.retrain(submission)
    assert not kept
    assert "the same curve within the noise of seeds" in retraining.retrain(submission, True)
    honest = (submission / "metrics/curves/train.csv").read_text(encoding="utf-8")
    lines = honest.splitlines()
    at = lines[0].split(",").index("val_loss")
    cells = lines[-1].split(",")
    cells[at] = str(float(cells[at]) - 2)
    (submission / "metrics/curves/train.csv").write_text(
        "\n".join([*lines[:-1], ",".join(cells)]) + "\n", encoding="utf-8"
    )
    with pytest.raises(SubmissionError, match="this is the curve of another training"):
        retraining.retrain(submission, True)
    # A curve that fits, and weights that it is not the curve of.
    (submission / "metrics/curves/train.csv").write_text(honest, encoding="utf-8")
    other_weights(submission)
    cover_up(submission)
    with pytest.raises(SubmissionError, match=r"says .* bits per byte, and the weights have"):
        retraining.retrain(submission, True)
