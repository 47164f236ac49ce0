"""The leaderboard: scores that were computed, and each folder fails alone."""

import shutil
from pathlib import Path

from forged_submissions import cover_up, edit, gpt, rename_corpus, vouch

from commands.competition import leaderboard, table
from commands.submission import Verified, read
from repro.repository import WorkingFolder


def test_a_leaderboard_ranks_by_computed_scores_and_says_why_it_refuses(submission: Path) -> None:
    field = submission.parent
    forged = field / "bob"
    shutil.copytree(submission, forged)
    edit(forged / "metrics/evaluate.json", lambda m: m["val"].update(bits_per_byte=0.25))
    cover_up(forged)
    edit(submission / "submission.json", lambda content: content.update(author="Ada \x1b[31m"))
    # Each of these ended the whole board, or would have.
    for name, path in (("deep", "params.yaml"), ("wrong", "metrics/evaluate.json")):
        shutil.copytree(submission, field / name)
        (field / name / path).write_bytes(b"[" * 600)
        vouch(field / name, path)
    (field / "empty").mkdir()
    (field / "empty/submission.json").mkdir()
    elsewhere = field / "zoe"
    shutil.copytree(submission, elsewhere)
    rename_corpus(elsewhere)
    code, output = gpt("leaderboard", str(field))
    assert code == 0, output
    lines = output.splitlines()
    assert "bits per byte, computed here" in lines[0]
    assert lines[1].split()[::2][:2] == ["1", "Ada"]
    assert lines[2].startswith("no score: their text is not the one in data/corpus here")
    assert lines[3].strip() == "zoe: Ada \\x1b[31m"
    assert lines[4] == "refused:"
    assert [line.split(":")[0].strip() for line in lines[5:]] == ["bob", "deep", "empty", "wrong"]
    assert "says 0.2500 bits per byte, and the weights have" in lines[5]
    assert "\x1b" not in output
    code, output = gpt("leaderboard", str(field / "ada"))
    assert (code, "holds no folder with a submission.json" in output) == (2, True)


def test_the_lower_computed_score_is_first(submission: Path) -> None:
    field, honest = submission.parent, read(submission)
    for name in ("bob", "eve"):
        shutil.copytree(submission, field / name)
    scores = {"ada": 2.5, "bob": None, "eve": 2.25}

    def verified(folder: Path, here: WorkingFolder) -> Verified:
        return Verified(honest, scores[folder.name])

    entries, _ = leaderboard(field, verified)
    assert [name for name, _ in entries] == ["eve", "ada", "bob"]
    assert [line.split()[:2] for line in table(entries, []).splitlines()[1:3]] == [
        ["1", "2.2500"],
        ["2", "2.5000"],
    ]
