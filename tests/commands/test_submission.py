"""A competition's submissions: an honest one is accepted, and each forged one refused with why.

The model is a real one, trained for a second by the real stages.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small_training import SmallTraining
from typer.testing import CliRunner

from commands import retraining
from commands.cli import app
from commands.submission import STAGES, verify
from gpt.config import ModelConfig
from gpt.decoding.canonical import STEP, canonical, one_thread
from gpt.decoding.decoder import KVCacheDecoder
from gpt.errors import SubmissionError
from gpt.model import GPT
from repro.repository import WorkingFolder
from stages.params import Params

# --- canonical decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["original", "gpt2", "modern"])
def test_canonical_logits_are_the_models_rounded_and_blind_to_float32(architecture: str) -> None:
    extra = {"ngram_rows": 64, "line_sums": 4} if architecture == "modern" else {}
    shape = ModelConfig(
        architecture=architecture, n_layer=2, n_head=2, n_embd=16, block_size=32, **extra
    )
    model = GPT(shape, 11, seed=3, line_breaks=[0]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator()) * 0.1)
    ids_bt = torch.arange(22)[None] % 11
    with torch.inference_mode():
        plain, exact = model(ids_bt), canonical(model)(ids_bt)
        # What another processor makes of sums, as noise: far above float64's, below a step.
        again = canonical(model)
        for parameter in again.parameters():
            parameter.mul_(1 + 1e-12)
        assert torch.equal(again(ids_bt), exact)
    assert exact.dtype == torch.float64
    assert torch.equal(exact.float().double(), exact)
    assert torch.equal((exact / STEP).round() * STEP, exact)
    assert (plain.double() - exact).abs().max() < STEP
    # Token by token, as text is written.
    decoder = KVCacheDecoder(canonical(model))
    with torch.inference_mode():
        for t in range(22):
            assert torch.equal(decoder.read(ids_bt[:, t : t + 1]), exact[:, t])
    # The model itself stays as it was.
    assert next(model.parameters()).dtype == torch.float32
    assert torch.equal(model(ids_bt), plain)


@pytest.mark.usefixtures("two_threads")
def test_one_thread_is_given_back() -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


# --- a competition --------------------------------------------------------------------------------


def gpt(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the pipeline has run, and the submission that was made there."""
    training = SmallTraining(tmp_path_factory.mktemp("competition") / "repository")
    folder = training.folder
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        training.finish(STAGES)
        words = ["submit", "--author", "Ada", "--candidates", "3", "--max-new-tokens", "60"]
        code, output = gpt(*words, "--seed", "5", "--choose", "1", "--out", "submission")
        assert code == 0, output
    return folder


@pytest.fixture
def submission(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the submission, in the repository that verifies it."""
    monkeypatch.chdir(trained)
    shutil.copytree(trained / "submission", tmp_path / "field/ada")
    yield tmp_path / "field/ada"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_bytes())
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cover_up(folder: Path) -> None:
    """Makes all hashes agree with the files, as a careful forger would."""
    model = folder / "data/model"
    edit(
        model / "config.json",
        lambda config: config.update(weights_sha256=sha256(model / "model.safetensors")),
    )
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    for stage in lock["stages"].values():
        for entry in (*stage["deps"], *stage["outs"]):
            if not entry["path"].endswith(".py") and (folder / entry["path"]).exists():
                entry["md5"] = WorkingFolder().md5(str(folder / entry["path"]))
    (folder / "dvc.lock").write_text(yaml.safe_dump(lock), encoding="utf-8")

    def hashes(content: dict) -> None:
        content["files"] = {name: sha256(folder / name) for name in content["files"]}
        content["hashes"]["model"] = sha256(model / "model.safetensors")
        content["hashes"]["dvc_lock"] = sha256(folder / "dvc.lock")
        val = json.loads((folder / "metrics/evaluate.json").read_bytes())["val"]
        content["scores"] = {k: v for k, v in val.items() if isinstance(v, int | float)}

    edit(folder / "submission.json", hashes)


def other_weights(folder: Path) -> None:
    weights = load_file(folder / "data/model/model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    save_file(weights, folder / "data/model/model.safetensors")


def write_anew(folder: Path) -> None:
    """The candidates and the poem as the weights in the folder write them."""
    from commands.submission import generate_candidates, read
    from gpt.checkpoint import load_model

    submission = read(folder)
    texts = generate_candidates(load_model(folder / "data/model"), submission.decoding, 3)
    edit(folder / "submission.json", lambda content: content.update(candidates=texts))
    (folder / "poem.txt").write_bytes(texts[submission.chosen].encode())


def test_an_honest_submission_is_accepted_and_said_to_be_no_proof(submission: Path) -> None:
    code, output = gpt("verify", str(submission / "submission.json"))
    assert code == 0, output
    assert "number 1 of 3, byte for byte" in output
    assert "does not prove" in output
    content = json.loads((submission / "submission.json").read_bytes())
    assert set(content["hashes"]) == {"model", "tokenizer", "corpus", "code", "dvc_lock"}
    assert len(set(content["candidates"])) == 3
    assert (submission / "poem.txt").read_text(encoding="utf-8") == content["candidates"][1]


def test_it_writes_the_same_poem_with_other_threads(submission: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert verify(submission).chosen == 1
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
    digest = sha256(submission / "dvc.lock")
    edit(submission / "submission.json", lambda f: f["files"].update({"dvc.lock": digest}))
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
        path.write_text(yaml.safe_dump(lock), encoding="utf-8")
        digest = sha256(path)

        def agree(content: dict) -> None:
            content["files"]["dvc.lock"] = content["hashes"]["dvc_lock"] = digest

        edit(submission / "submission.json", agree)
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
    assert "train read data/gpt2, data/tokens, not tokens alone" in with_lock(
        lambda stages: stages["train"]["deps"].append(pretrained)
    )
    assert "another command" in with_lock(lambda stages: stages["train"].update(cmd="true"))
    assert "has not all of prepare" in with_lock(lambda stages: stages.pop("evaluate"))


def test_a_model_that_began_from_other_weights_is_refused(submission: Path) -> None:
    # As one is that train.init_from was set for and set back: all hashes agree, but for its record.
    config = submission / "data/model/config.json"
    edit(config, lambda content: content.update(pretrained_sha256="0" * 64))
    cover_up(submission)
    assert "pretrained weights take no part; train with train.init_from=''" in refused(submission)


def test_better_scores_than_were_measured_are_refused(submission: Path) -> None:
    edit(
        submission / "submission.json", lambda content: content["scores"].update(bits_per_byte=0.5)
    )
    assert "its scores are not those of metrics/evaluate.json" in refused(submission)
    edit(submission / "metrics/evaluate.json", lambda m: m["val"].update(bits_per_byte=0.5))
    assert "evaluate.json: edited" in refused(submission)


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
    assert not out.exists()


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


def test_a_leaderboard_ranks_what_holds_and_says_why_it_refuses(submission: Path) -> None:
    field = submission.parent
    better = field / "bob"
    shutil.copytree(submission, better)
    edit(better / "metrics/evaluate.json", lambda m: m["val"].update(bits_per_byte=0.25))
    cover_up(better)
    edit(better / "submission.json", lambda content: content.update(author="Bob \x1b[31m"))
    shutil.copytree(submission, field / "eve")
    edit(field / "eve/submission.json", lambda content: content["decoding"].update(seed=6))
    code, output = gpt("leaderboard", str(field))
    assert code == 0
    lines = output.splitlines()
    assert lines[0].startswith("corpus ")
    assert lines[1].split()[:3] == ["1", "0.2500", "Bob"]
    assert lines[2].split()[0] == "2"
    assert lines[2].split()[2] == "Ada"
    assert lines[3] == "refused:"
    assert lines[4].strip().startswith("eve: ")
    assert "\x1b" not in output
    code, output = gpt("leaderboard", str(field / "ada"))
    assert (code, "holds no folder with a submission.json" in output) == (2, True)


# --- the proof ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_training_again_accepts_the_honest_and_refuses_weights_from_elsewhere(
    submission: Path,
) -> None:
    code, output = gpt("verify", "--retrain", str(submission))
    assert (code, "trained again: the same bits" in output) == (0, True), output
    # Everything agrees but where the weights are from.
    other_weights(submission)
    cover_up(submission)
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

    def run_once(params: Params, device: Any, folder: Path, say: Callable[[str], None]) -> Path:
        """Each seed is trained once, and copied afterwards."""
        if params.seed not in kept:
            kept[params.seed] = tmp_path / f"seed-{params.seed}"
            kept[params.seed].mkdir()
            really_run(params, device, kept[params.seed], say)
        shutil.copytree(kept[params.seed], folder, dirs_exist_ok=True)
        return folder

    monkeypatch.setattr(retraining, "_run", run_once)
    edit(
        submission / "data/model/config.json",
        lambda config: config["device"].update(cpu_capability="another"),
    )
    cover_up(submission)
    assert "the same curve within the noise of seeds" in retraining.retrain(submission)
    honest = (submission / "metrics/curves/train.csv").read_text(encoding="utf-8")
    lines = honest.splitlines()
    at = lines[0].split(",").index("val_loss")
    cells = lines[-1].split(",")
    cells[at] = str(float(cells[at]) - 2)
    (submission / "metrics/curves/train.csv").write_text(
        "\n".join([*lines[:-1], ",".join(cells)]) + "\n", encoding="utf-8"
    )
    with pytest.raises(SubmissionError, match="this is the curve of another training"):
        retraining.retrain(submission)
    # A curve that fits, and weights that it is not the curve of.
    (submission / "metrics/curves/train.csv").write_text(honest, encoding="utf-8")
    other_weights(submission)
    cover_up(submission)
    with pytest.raises(SubmissionError, match=r"says .* bits per byte, and the weights have"):
        retraining.retrain(submission)
