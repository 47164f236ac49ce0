"""The house keeps its own rules: what depends on what, and what dvc.yaml says of it."""

import ast
import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import planted
import pytest
import yaml

from gpt.config import OUR_SOURCE
from repro.code_deps import code_deps, imported_files
from stages.params import Params

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("gpt", "verse", "repro", "stages", "commands", "workshop")
STAGES = ("prepare", "tokenize", "train", "evaluate", "sample")


@pytest.fixture(scope="module")
def pipeline() -> dict:
    return yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_of_a_stage_are_its_import_closure(pipeline: dict, stage: str) -> None:
    deps = [dep.replace("${model.source}", OUR_SOURCE) for dep in pipeline["stages"][stage]["deps"]]
    listed = [dep for dep in deps if dep.endswith(".py")]
    assert sorted(listed) == code_deps(REPOSITORY)[stage], "run python -m repro.code_deps"


def test_the_committed_lock_was_made_by_this_code() -> None:
    lock = yaml.safe_load((REPOSITORY / "dvc.lock").read_text(encoding="utf-8"))
    for name, stage in lock["stages"].items():
        for dep in stage["deps"]:
            if dep["path"].endswith(".py"):
                # MD5 is how DVC names contents.
                content = (REPOSITORY / dep["path"]).read_bytes()
                digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
                assert digest == dep["md5"], f"{name}: {dep['path']} has changed: run dvc repro"


def test_the_closure_finds_a_late_import() -> None:
    assert "gpt/generation.py" in imported_files(REPOSITORY, "gpt/callbacks.py")


def test_the_library_knows_no_environment_arguments_or_tracking() -> None:
    for file in (REPOSITORY / "gpt").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for word in ("os.environ", "sys.argv", "mlflow", "params.load"):
            assert word not in text, f"{file.name}: {word}"


@pytest.mark.parametrize("module", ["gpt.device", "repro.code_deps", "workshop.notebook"])
def test_a_program_without_options_refuses_one(tmp_path: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--x"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("unrecognized arguments: --x\n")


def lint_imports(folder: Path) -> tuple[int, str]:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def copied_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("packages")
    shutil.copyfile(REPOSITORY / "pyproject.toml", copy / "pyproject.toml")
    for name in PACKAGES:
        shutil.copytree(
            REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    return copy


def test_imports_go_the_way_that_the_contracts_allow(copied_packages: Path) -> None:
    code, output = lint_imports(copied_packages)
    assert code == 0, output


@pytest.mark.parametrize(
    ("file", "planted_import"),
    [
        ("gpt/model.py", "repro.errors"),
        ("repro/params.py", "gpt.config"),
        ("verse/grammar.py", "gpt.errors"),
        ("stages/train.py", "commands.root"),
        ("commands/compare.py", "stages.evaluate"),
        ("gpt/batches.py", "gpt.model"),
        ("gpt/model.py", "gpt.tokenizers.base"),
        ("gpt/decoding/decoder.py", "gpt.trainer"),
        ("gpt/generation.py", "gpt.evaluation.scoring"),
        ("gpt/corpus/readers.py", "torch"),
        ("gpt/errors.py", "gpt.files"),
    ],
)
def test_a_wrong_import_breaks_a_contract(
    copied_packages: Path, file: str, planted_import: str
) -> None:
    path = copied_packages / file
    right = path.read_text(encoding="utf-8")
    late = f"{right}\n\ndef planted() -> None:\n    import {planted_import}\n"
    path.write_text(late, encoding="utf-8")
    try:
        code, output = lint_imports(copied_packages)
    finally:
        path.write_text(right, encoding="utf-8")
    assert code == 1 and re.search(r"[1-9] broken", output), output


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
    # resolved() and changes are of preset, model and train.
    expected = {name.replace(".", "_") for name in pipeline["stages"][stage]["params"]}
    expected |= {"runtime"}
    if read & {"resolved", "changes"}:
        read = (read - {"resolved", "changes"}) | {"preset", "model", "train"}
    # check_prompt can only refuse: it changes no result.
    assert read - {"check_prompt"} <= expected


@pytest.mark.parametrize("stage", ["prepare", "tokenize"])
def test_the_data_stages_do_not_pay_for_torch(stage: str) -> None:
    code = f"import sys, stages.{stage}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert done.returncode == 0


WITHOUT_TORCH = """
import sys
import pytest
sys.modules |= dict.fromkeys(("torch", "mlflow", "dvc", "pandas", "scipy", "matplotlib"))
sys.exit(pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.slow
def test_tests_of_text_are_collected_where_there_is_no_torch() -> None:
    paths = (
        "tests/verse",
        "tests/gpt/corpus",
        "tests/gpt/tokenizers",
        "tests/stages/test_params.py",
    )
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *paths],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.fault(24, planted=planted.WEIGHTS_UNPICKLED)
@pytest.mark.parametrize("folder", ["gpt", "stages", "repro", "commands"])
def test_no_code_of_ours_loads_a_pickle(folder: str) -> None:
    modules = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for file in (REPOSITORY / folder).rglob("*.py"):
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
    for file in (REPOSITORY / "gpt").rglob("*.py"):
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
        assert list(inspect.signature(body).parameters) == ["params", "run"]


def test_no_test_module_imports_another() -> None:
    for file in (REPOSITORY / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                imported = [name for name in names if name.rpartition(".")[2].startswith("test_")]
                assert not imported, f"{file.name}: shared code stands in a module without test_"


def test_dvc_finds_no_pipeline_but_ours() -> None:
    command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert listed.stdout.split() == list(STAGES), "see .dvcignore"
