"""The house keeps its own rules: what depends on what, and what dvc.yaml says of it."""

import ast
import hashlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import planted
import pytest
import yaml

from gpt.config import OUR_SOURCE
from stages.params import Params

REPOSITORY = Path(__file__).resolve().parent.parent
STAGES = ("prepare", "tokenize", "train", "evaluate", "sample")

# They change no result, so an edit need not run a stage again. For tracking and the samples shown
# while training, other tests show it.
EXEMPT = {
    "gpt/errors.py": STAGES,
    "stages/tracking.py": STAGES,
    "stages/rows.py": STAGES,
    "stages/store.py": STAGES,
    "gpt/generation.py": ("train",),
}


@pytest.fixture(scope="module")
def pipeline() -> dict:
    return yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))


def imported(file: Path) -> set[str]:
    """Our own modules that `file` imports anywhere, as paths; those imported late as well."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = {name.replace(".", "/") + ".py" for name in names}
    return {path for path in paths if (REPOSITORY / path).is_file()}


def closure(stage: str) -> set[str]:
    found: set[str] = set()
    waiting = [f"stages/{stage}.py"]
    while waiting:
        path = waiting.pop()
        if path in found or stage in EXEMPT.get(path, ()):
            continue
        found.add(path)
        waiting += imported(REPOSITORY / path)
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_of_a_stage_are_its_import_closure(pipeline: dict, stage: str) -> None:
    deps = [dep.replace("${model.source}", OUR_SOURCE) for dep in pipeline["stages"][stage]["deps"]]
    listed = {dep for dep in deps if dep.endswith(".py")}
    assert listed == closure(stage)


def test_the_committed_lock_was_made_by_this_code() -> None:
    lock = yaml.safe_load((REPOSITORY / "dvc.lock").read_text(encoding="utf-8"))
    for name, stage in lock["stages"].items():
        for dep in stage["deps"]:
            if dep["path"].endswith(".py"):
                # MD5 is how DVC names contents.
                content = (REPOSITORY / dep["path"]).read_bytes()
                found = hashlib.md5(content, usedforsecurity=False).hexdigest()
                assert found == dep["md5"], f"{name}: {dep['path']} has changed: run dvc repro"


def test_the_closure_finds_a_late_import() -> None:
    assert "gpt/generation.py" in imported(REPOSITORY / "stages/train.py")


def test_packages_are_empty_so_that_they_need_not_be_deps() -> None:
    for package in ("gpt", "stages"):
        assert (REPOSITORY / package / "__init__.py").read_bytes() == b""


def test_arrows_go_from_stages_to_the_library_and_never_back() -> None:
    for file in (REPOSITORY / "gpt").glob("*.py"):
        assert not {path for path in imported(file) if path.startswith("stages/")}, file


def test_nothing_in_the_library_imports_trainer_scoring_or_generation() -> None:
    ends = {"gpt/trainer.py", "gpt/scoring.py", "gpt/generation.py"}
    for file in (REPOSITORY / "gpt").glob("*.py"):
        assert not imported(file) & ends, file


def test_the_library_knows_no_environment_arguments_or_tracking() -> None:
    for file in (REPOSITORY / "gpt").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for word in ("os.environ", "sys.argv", "mlflow", "params.load"):
            assert word not in text, f"{file.name}: {word}"


def test_every_section_of_the_params_belongs_to_one_stage_or_to_the_runtime(pipeline: dict) -> None:
    # The model's file is read by all that build a model.
    names = {name for stage in pipeline["stages"].values() for name in stage["params"]}
    shared = {name for name in names if "." in name}
    listed = [
        name
        for stage in pipeline["stages"].values()
        for name in stage["params"]
        if name not in shared
    ]
    assert shared == {"model.source"}
    assert sorted(listed) == sorted(set(Params.model_fields) - {"runtime"})


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_only_the_params_that_dvc_watches_for_it(pipeline: dict, stage: str) -> None:
    source = (REPOSITORY / f"stages/{stage}.py").read_text(encoding="utf-8")
    read = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "params"
    }
    # resolved() is preset, model and train together.
    expected = {name.replace(".", "_") for name in pipeline["stages"][stage]["params"]}
    expected |= {"runtime"}
    if "resolved" in read:
        read = (read - {"resolved"}) | {"preset", "model", "train"}
    assert read <= expected


@pytest.mark.parametrize("stage", ["prepare", "tokenize"])
def test_the_data_stages_do_not_pay_for_torch(stage: str) -> None:
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert done.returncode == 0


@pytest.mark.fault(24, planted=planted.WEIGHTS_UNPICKLED)
@pytest.mark.parametrize("folder", ["gpt", "stages"])
def test_no_code_of_ours_loads_a_pickle(folder: str) -> None:
    modules = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for file in (REPOSITORY / folder).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not modules & {alias.name.partition(".")[0] for alias in node.names}, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in modules, file
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("torch.save", "pd.read_pickle"), file
                if called == "torch.load":  # nanoGPT's checkpoints: tensors and plain values
                    assert "weights_only=True" in ast.unparse(node), file
                if called == "np.load":
                    assert "allow_pickle=False" in ast.unparse(node), file


def test_every_public_function_of_the_library_says_what_it_does() -> None:
    for file in (REPOSITORY / "gpt").glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                fields_only = node.name.endswith("Params")
                assert ast.get_docstring(node) or fields_only, f"{file.name}: {node.name}"


def test_nothing_is_committed_that_names_this_machine(tracked_files: list[Path]) -> None:
    here = (f"{Path.home()}/", f"{REPOSITORY}/")
    for file in tracked_files:
        if file.is_file():
            text = file.read_bytes().decode(errors="replace")
            assert not [folder for folder in here if folder in text], file


def test_constraints_pin_exact_versions_and_name_no_host() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    for pin in pins:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!-]+", pin), pin


def test_every_stage_has_a_body_for_main() -> None:
    import importlib

    for stage in STAGES:
        body = getattr(importlib.import_module(f"stages.{stage}"), stage)
        assert list(inspect.signature(body).parameters) == ["params", "row"]
