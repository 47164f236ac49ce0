"""A model of somebody's own code (model.source): shown before it is run, and run with limits."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from course_solutions import SOLUTIONS
from forged_submissions import cover_up, edit, gpt, sha256, train_and_submit, vouch
from small_training import SmallTraining
from trial_repository import REPOSITORY

from commands import competition
from commands.competition import ask_to_run
from commands.limited import run_limited
from commands.lineage import own_code
from commands.submission import verify
from gpt.errors import SubmissionError

CODE = "scratchpad/model.py"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose model is the course's, and a submission of it."""
    folder = tmp_path_factory.mktemp("own") / "repository"
    training = SmallTraining(folder, model__source=CODE)
    (folder / CODE).parent.mkdir()
    (folder / CODE).write_text(SOLUTIONS["model.py"], encoding="utf-8")
    words = "--candidates 2 --max-new-tokens 20 --choose 1"
    train_and_submit(training, *words.split())
    return folder


@pytest.fixture
def own(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(repository)
    shutil.copytree(repository / "submission", tmp_path / "field/ada")
    return tmp_path / "field/ada"


def allow(code: Path) -> None:
    assert code.name == "model.py"


def with_code(folder: Path, change: Callable[[str], str]) -> None:
    """Changes the code in a submission and in the lock, as its author could."""
    path = folder / CODE
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    edit(folder / "submission.json", lambda content: content["files"].update({CODE: sha256(path)}))
    cover_up(folder, code=CODE)


@pytest.mark.slow
def test_a_models_own_code_is_not_run_unasked(own: Path) -> None:
    code, output = gpt("verify", str(own))
    assert (code, len(output.splitlines())) == (2, 1), output
    assert f"{CODE}: the model's own code, which is not run unasked; read it" in output
    code, output = gpt("leaderboard", str(own.parent))
    assert (code, "ada: " in output, "--run-code" in output) == (0, True, True), output


@pytest.mark.slow
def test_a_model_of_ones_own_is_verified_and_proved_by_training_again(own: Path) -> None:
    code, output = gpt("verify", "--run-code", "--retrain", str(own))
    assert (code, "trained again: the same bits" in output) == (0, True), output
    assert "byte for byte" in output
    assert "bits per byte, computed here" in output


@pytest.mark.slow
def test_a_model_that_sees_later_tokens_has_no_score(own: Path) -> None:
    with_code(own, lambda text: text.replace(".triu(1)", ".triu(9)"))
    with pytest.raises(SubmissionError, match="its logits depend on later tokens, so it has no sc"):
        verify(own, allow_code=allow)


@pytest.mark.parametrize(
    "path", ["gpt/evil.py", "/x/x.py", "../x.py", ".dvc/x.py", "model", "c:x.py", r"a\x.py"]
)
def test_code_in_place_of_ours_or_from_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(REPOSITORY)
    honest = Path("params.yaml").read_text(encoding="utf-8")
    params = honest.replace("source: gpt/model.py", f"source: '{path}'")
    assert params != honest
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    with pytest.raises(SubmissionError, match="a submission's own code is a"):
        own_code(tmp_path)


@pytest.mark.slow
def test_edited_code_is_refused_before_anybody_is_asked(own: Path) -> None:
    (own / CODE).write_text("print('hello')\n", encoding="utf-8")
    with pytest.raises(SubmissionError, match=r"model.py: edited"):
        verify(own, allow_code=lambda code: pytest.fail("asked"))
    vouch(own, CODE)
    with pytest.raises(SubmissionError, match=r"model.py was another version than here"):
        verify(own, allow_code=lambda code: pytest.fail("asked"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_code_is_shown_without_what_steers_a_terminal_and_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = tmp_path / "model.py"
    code.write_text("import os  # \x1b[2K harmless \u202e\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    with pytest.raises(SubmissionError, match="is not run unasked"):
        ask_to_run(code)
    assert "import os  # \\x1b[2K harmless \\u202e\n" in capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ask_to_run(code)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(SubmissionError, match="is not run unasked"):
        ask_to_run(code)
    code.write_text("#" * (competition.MAX_CODE_BYTES + 1), encoding="utf-8")
    with pytest.raises(SubmissionError, match="too long to be read"):
        ask_to_run(code)


# --- limits ---------------------------------------------------------------------------------------


def limited(tmp_path: Path, text: str, seconds: int = 60) -> str:
    (tmp_path / "code_of_a_stranger.py").write_text(text, encoding="utf-8")
    return run_limited("code_of_a_stranger", folder=tmp_path, environment={}, seconds=seconds)


def test_an_endless_loop_is_ended(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="took longer than 1 s, and was ended"):
        limited(tmp_path, "import time\nwhile True: time.sleep(1)\n", seconds=1)


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="Linux enforces it")
def test_more_memory_than_the_machine_can_spare_is_refused(tmp_path: Path) -> None:
    text = """
import mmap, os
size = int(0.9 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
"""
    with pytest.raises(SubmissionError, match="Cannot allocate memory"):
        limited(tmp_path, text)


def test_passwords_in_the_environment_are_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret")
    output = limited(tmp_path, "import os\nprint(os.environ)\n")
    assert "PATH" in output
    assert "secret" not in output


def test_its_last_line_is_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"code_of_a_stranger failed .*: ValueError: no$"):
        limited(tmp_path, "raise ValueError('no')\n")
