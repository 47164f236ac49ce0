"""The commands that reproduce a result name every override, as DVC reads it back."""

import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tracked_runs import runs
from trial_repository import TrialRepository, commit_all

from repro import reproduce
from repro.params import equal, parse_yaml
from repro.repository import Commit, WorkingFolder

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], include_characters="\n\t")
)
NUMBER = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.none() | st.booleans() | NUMBER | TEXT | st.lists(NUMBER | TEXT, max_size=3)


def applied(params: dict[str, Any], command: str) -> dict[str, Any]:
    """What `command`, a `dvc exp run` with -S, makes of `params`, by DVC's own code."""
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides

    words = shlex.split(command)
    overrides = to_path_overrides([word for word in words[3:] if word != "-S"])
    assert not any(o.is_sweep_override() for o in to_hydra_overrides(overrides["params.yaml"]))
    with TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
        apply_overrides(file, overrides["params.yaml"])
        return parse_yaml(file.read_text(encoding="utf-8"))


@given(VALUE)
@example("null")
@example("True")
@example("a, b")
@example("ROMEO:")
@example('say "\\')
@example("it's \\\\")
@example("${oc.env:HOME}")
@example("\\${x}")
@example("1e5")
@example(["a", "b,c"])
@example(1e-05)
@example("\n\n")
def test_dvc_reads_back_every_value(value: Any) -> None:
    word = shlex.quote(f"sample.prompt={reproduce._override(value)}")
    read = applied({"sample": {"prompt": "before"}}, f"dvc exp run -S {word}")
    assert equal(read["sample"]["prompt"], value)


def test_every_override_is_named_and_gives_the_same_params(trial: TrialRepository) -> None:
    commit_all()
    before = parse_yaml(Path("params.yaml").read_bytes())
    trial.set(n_layer=2, prompt="'ROMEO:'", stop='"it\'s, over"', verse_bytes=5, seed=7)
    trial.set(tracking="false")
    commit, command = reproduce.commands(WorkingFolder()).splitlines()
    after = parse_yaml(Path("params.yaml").read_bytes())
    after["runtime"] = before["runtime"]  # it changes no result
    assert applied(before, command) == after
    commit_all("the next one")
    assert reproduce.commands(Commit("HEAD"), "HEAD^") == f"{commit}\n{command}"


def test_keys_that_came_and_went_are_added_and_removed(trial: TrialRepository) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    older = text.replace("  top_k:", "  top_q:")
    assert older != text
    trial.write("params.yaml", older)
    commit_all()
    trial.write("params.yaml", text)
    _, command = reproduce.commands(WorkingFolder()).splitlines()
    assert shlex.split(command)[3:] == ["-S", "~sample.top_q", "-S", "+sample.top_k=0"]
    assert applied(parse_yaml(older), command) == parse_yaml(text)


def test_without_a_commit_there_is_no_experiment(trial: TrialRepository) -> None:
    assert reproduce.commands(WorkingFolder()) == "dvc repro"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_says_how_to_reproduce_it(trial: TrialRepository) -> None:
    commit_all()
    trial.set(n_layer=2)
    trial.run("prepare")
    note = runs()[0].data.tags["mlflow.note.content"]
    assert note.endswith(f"\n```\n{reproduce.commands(WorkingFolder())}\n```")
    assert "-S model.n_layer=2" in note
    trial.set(prompt="a" * 9000)
    trial.run("prepare")
    newest, _ = runs()
    assert newest.data.tags["mlflow.note.content"].endswith(
        "\n# copy this run's params.yaml here\ndvc exp run\n```"
    )
