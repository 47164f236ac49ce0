"""A submission: an honest one is accepted, and each forged one refused with why.

The model is a real one, trained for a second by the real stages.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from forged_submissions import cover_up, edit, gpt, other_weights, rewrite_lock, vouch
from trial_repository import REPOSITORY
from typer.testing import CliRunner

from commands.cli import app
from commands.model_run import score
from commands.submission import verify
from gpt.checkpoint import load_model
from gpt.errors import SubmissionError


def test_an_honest_submission_is_accepted_and_said_to_be_no_proof(submission: Path) -> None:
    code, output = gpt("verify", str(submission / "submission.json"))
    assert code == 0, output
    assert "number 1 of 3, byte for byte" in output
    assert "does not prove" in output
    content = json.loads((submission / "submission.json").read_bytes())
    assert "bits per byte, computed here" in output
    assert set(content["hashes"]) == {"model", "tokenizer", "corpus", "code", "dvc_lock"}
    assert len(set(content["candidates"])) == 3
    assert (submission / "poem.txt").read_text(encoding="utf-8") == content["candidates"][1]


def test_it_writes_the_same_poem_with_other_threads(submission: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert verify(submission).submission.chosen == 1
    finally:
        torch.set_num_threads(before)


def refused(folder: Path) -> str:
    with pytest.raises(SubmissionError) as raised:
        verify(folder)
    return str(raised.value)


def test_an_edited_poem_is_refused(submission: Path) -> None:
    poem = submission / "poem.txt"
    poem.write_bytes(poem.read_bytes() + b"!")
    assert "poem.txt: edited" in refused(submission)
    cover_up(submission)
    assert "is not the candidate that submission.json says was chosen" in refused(submission)
    text = poem.read_text(encoding="utf-8")
    edit(submission / "submission.json", lambda content: content["candidates"].__setitem__(1, text))
    reason = refused(submission)
    assert "candidate 1 is not what the model writes with these settings and this seed" in reason
    assert reason.endswith(f"they differ from character {len(text) - 1} on")


def test_another_seed_or_temperature_is_refused(submission: Path) -> None:
    edit(submission / "submission.json", lambda content: content["decoding"].update(seed=6))
    assert "candidate 0 is not what the model writes" in refused(submission)
    edit(
        submission / "submission.json",
        lambda content: content["decoding"].update(seed=5, temperature=0.9),
    )
    assert "is not what the model writes" in refused(submission)


def test_another_seed_of_the_training_is_refused(submission: Path) -> None:
    params = submission / "params.yaml"
    values = yaml.safe_load(params.read_text(encoding="utf-8")) | {"seed": 2}
    params.write_text(yaml.safe_dump(values), encoding="utf-8")
    cover_up(submission)
    assert "dvc.lock: train was run with another `seed` than params.yaml has" in refused(submission)
    lock = yaml.safe_load((submission / "dvc.lock").read_text(encoding="utf-8"))
    lock["stages"]["train"]["params"]["params.yaml"]["seed"] = 2
    (submission / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")
    cover_up(submission)
    assert "config.json: was trained with other params" in refused(submission)


def test_edited_weights_are_refused(submission: Path) -> None:
    lock = (submission / "dvc.lock").read_bytes()
    other_weights(submission)
    assert "model.safetensors: edited" in refused(submission)
    # All hashes are put right but DVC's.
    cover_up(submission)
    (submission / "dvc.lock").write_bytes(lock)
    vouch(submission, "dvc.lock")
    assert "data/model: is not what dvc.lock says was made" in refused(submission)
    # DVC's as well: then the poem is another.
    cover_up(submission)
    assert "is not what the model writes" in refused(submission)


def test_a_wrong_lock_is_refused(submission: Path) -> None:
    path = submission / "dvc.lock"
    honest = yaml.safe_load(path.read_text(encoding="utf-8"))

    def with_lock(change: Callable[[dict], None]) -> str:
        lock = json.loads(json.dumps(honest))
        change(lock["stages"])
        rewrite_lock(submission, lock)
        return refused(submission)

    def set_md5(stage: str, kind: str, name: str) -> Callable[[dict], None]:
        def change(stages: dict) -> None:
            for entry in stages[stage][kind]:
                if entry["path"] == name:
                    entry["md5"] = "0" * 32

        return change

    def another_model(stages: dict) -> None:
        set_md5("train", "outs", "data/model")(stages)
        set_md5("evaluate", "deps", "data/model")(stages)

    assert "read another data/tokens than was made" in with_lock(
        set_md5("train", "deps", "data/tokens")
    )
    assert "gpt/model.py was another version than here" in with_lock(
        set_md5("train", "deps", "gpt/model.py")
    )
    assert "data/model: is not what dvc.lock says" in with_lock(another_model)
    pretrained = {"path": "data/gpt2", "md5": "0" * 32}
    assert "train read other files than dvc.yaml lists (data/gpt2)" in with_lock(
        lambda stages: stages["train"]["deps"].append(pretrained)
    )
    # Code that the lock leaves out is not taken for this code.
    assert "train read other files than dvc.yaml lists (gpt/model.py)" in with_lock(
        lambda stages: stages["train"].update(
            deps=[dep for dep in stages["train"]["deps"] if dep["path"] != "gpt/model.py"]
        )
    )
    assert "another command" in with_lock(lambda stages: stages["train"].update(cmd="true"))
    assert "has not all of prepare" in with_lock(lambda stages: stages.pop("evaluate"))


def test_a_model_that_began_from_other_weights_is_refused(submission: Path) -> None:
    # As one is that train.init_from was set for and set back: all hashes agree, but for its record.
    config = submission / "data/model/config.json"
    edit(config, lambda content: content.update(pretrained_sha256="0" * 64))
    cover_up(submission)
    assert "pretrained weights take no part; train with train.init_from=''" in refused(submission)


def test_better_scores_than_the_weights_have_are_refused_however_well_forged(
    submission: Path,
) -> None:
    edit(
        submission / "submission.json", lambda content: content["scores"].update(bits_per_byte=0.5)
    )
    assert "its scores are not those of metrics/evaluate.json" in refused(submission)
    edit(submission / "metrics/evaluate.json", lambda m: m["val"].update(bits_per_byte=0.5))
    assert "evaluate.json: edited" in refused(submission)
    cover_up(submission)
    reason = refused(submission)
    assert "says 0.5000 bits per byte, and the weights have" in reason


def test_the_score_is_the_one_that_evaluate_computed(submission: Path) -> None:
    stated = json.loads((submission / "metrics/evaluate.json").read_bytes())["val"]
    assert verify(submission).bits_per_byte == pytest.approx(stated["bits_per_byte"], abs=1e-5)


def test_a_score_below_the_information_in_the_text_is_refused(
    submission: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree("data/corpus", corpus)
    trained = load_model(submission / "data/model")
    score(trained, corpus)

    def tell_more(manifest: Any) -> None:
        val = manifest["splits"]["val"]
        val["information_bits"] = 8 * val["bytes"]

    edit(corpus / "corpus.json", tell_more)
    with pytest.raises(SubmissionError, match="only a model that was trained on it can"):
        score(trained, corpus)


def test_a_link_out_of_the_submission_is_refused(submission: Path, tmp_path: Path) -> None:
    poem = tmp_path / "poem.txt"
    (submission / "poem.txt").rename(poem)
    (submission / "poem.txt").symlink_to(poem)
    assert "poem.txt: is a link out of the submission" in refused(submission)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_would_be_waited_for_forever_is_refused(submission: Path) -> None:
    (submission / "submission.json").unlink()
    os.mkfifo(submission / "submission.json")
    assert "submission.json: is not a file" in refused(submission)


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[" * 100_000, b"\xff", b'{"format": 2}'],
    ids=["empty", "deep", "not UTF-8", "of another format"],
)
def test_what_is_no_submission_is_refused_in_a_line(submission: Path, text: bytes) -> None:
    (submission / "submission.json").write_bytes(text)
    code, output = gpt("verify", str(submission))
    assert code == 2
    assert "no submission of format 1" in output
    assert len(output.splitlines()) == 1


def test_hours_of_writing_are_refused(submission: Path) -> None:
    edit(submission / "submission.json", lambda f: f["decoding"].update(max_new_tokens=10**9))
    assert "decoding.max_new_tokens" in refused(submission)


def test_a_submission_is_not_overwritten_and_needs_a_whole_result(
    submission: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = gpt("submit", "--author", "Ada", "--choose", "0")
    assert (code, "is there already" in output) == (2, True)
    out = submission.parent / "new"
    code, output = gpt("submit", "--author", "A", "--choose", "9", "--out", str(out))
    assert (code, "candidate 9: there are 0 to" in output) == (2, True)
    code, output = gpt("submit", "--author", "A", "--max-new-tokens", "10001", "--out", str(out))
    assert (code, "sample.max_new_tokens" in output) == (2, True), output
    code, output = gpt("submit", "--author", "A", "--candidates", "101", "--out", str(out))
    assert (code, "at most 100 candidates" in output) == (2, True), output
    assert not out.exists()


@pytest.mark.parametrize("out", ["file/below", "/proc/submission"])
def test_where_nothing_can_be_written_is_one_line_before_anybody_chooses(
    submission: Path, out: str
) -> None:
    (submission.parent / "file").touch()
    path = submission.parent / out
    code, output = gpt("submit", "--author", "Ada", "--out", str(path))
    (line,) = output.splitlines()
    assert code == 2
    assert line.startswith(f"gpt: {path}: could not be written (")
    assert line.endswith("; choose another --out")


@pytest.mark.slow
def test_a_repository_on_a_read_only_disk_takes_no_submission_and_verifies_others(
    submission: Path, trained: Path
) -> None:
    mount = f"mount --bind {trained} {trained} && mount -o remount,ro,bind {trained}"
    alone = ["unshare", "--mount", "--map-root-user"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting needs root")

    def gpt_there(*words: str) -> tuple[int, str]:
        command = shlex.join([sys.executable, "-m", "commands.cli", *map(str, words)])
        done = subprocess.run(
            [*alone, "sh", "-c", f"{mount} && cd {trained} && exec {command}"],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    before = sorted(trained.rglob("*"))
    refusal = f"gpt: {trained}/new: could not be written (read-only file system); choose another"
    assert gpt_there("submit", "--author", "A", "--out", "new") == (2, f"{refusal} --out\n")
    code, output = gpt_there("promote")
    assert (code, len(output.splitlines())) == (2, 1), output
    assert "mlflow.db.lock: read-only file system" in output
    for words, said in (
        (("verify", "--retrain", str(submission)), "trained again: the same bits"),
        (("leaderboard", str(submission.parent)), "  1  "),
    ):
        code, output = gpt_there(*words)
        assert (code, said in output) == (0, True), output
    assert sorted(trained.rglob("*")) == before


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_half_a_submission_is_removed(
    submission: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    copied: list[str] = []

    def fail_at_the_fourth(source: str, target: Path) -> None:
        copied.append(source)
        if len(copied) == 4:
            raise failure
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr("commands.submission.shutil.copyfile", fail_at_the_fourth)
    before = sorted(submission.parent.iterdir())
    words = ["submit", "--author", "A", "--candidates", "1", "--max-new-tokens", "5"]
    out = submission.parent / "new"
    done = CliRunner().invoke(app, [*words, "--choose", "0", "--out", str(out)])
    assert done.exit_code != 0
    assert len(copied) == 4
    assert sorted(submission.parent.iterdir()) == before


def test_without_choose_the_candidates_are_shown_and_one_is_asked_for(
    submission: Path, trained: Path
) -> None:
    words = ["submit", "--author", "Eve", "--candidates", "2", "--max-new-tokens", "9"]
    out = submission.parent / "eve"
    done = CliRunner().invoke(app, [*words, "--out", str(out)], input="1\n")
    assert done.exit_code == 0, done.output
    content = json.loads((out / "submission.json").read_bytes())
    assert (content["chosen"], content["author"]) == (1, "Eve")
    for text in content["candidates"]:
        assert text.strip() in done.output
