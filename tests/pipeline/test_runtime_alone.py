"""The pipeline and the commands with the packages that `make run` installs, and no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline_clone import Clone, stages_run
from runtime_environment import make_runtime_environment, runtime_requirements

pytestmark = pytest.mark.slow

PARAMS = {
    "runtime__tracking": "true",
    "tokenizer__kind": "bpe",
    "tokenizer__vocab_size": "300",
    # GPT-2's layout, which an export to gguf takes.
    "model__architecture": "gpt2",
    "model__ngram_rows": "0",
    "model__line_sums": "0",
}
NOT_OF_THE_RUNTIME = ("pytest", "gguf", "transformers", "moto", "mkdocs", "dvc_s3")
# Modules of an exported folder and of a notebook.
ELSEWHERE = ("gpt.interop.modeling_repro_gpt", "workshop.cells")
IMPORT_ALL = f"""
import importlib, pkgutil
for package in ("gpt", "verse", "stages", "repro", "commands", "workshop"):
    for module in pkgutil.walk_packages([package], package + "."):
        if module.name not in {ELSEWHERE!r} and "skeletons" not in module.name:
            importlib.import_module(module.name)
"""


class Runtime:
    """A clone, and the Python of an environment without the extras."""

    def __init__(self, clone: Clone, folder: Path) -> None:
        self.clone = clone
        self.python = make_runtime_environment(folder, runtime_requirements())

    def run(self, *words: str, check: bool = True) -> str:
        path = f"{self.python.parent}{os.pathsep}{os.environ['PATH']}"
        return self.clone.run(str(self.python), *words, check=check, PATH=path)

    def gpt(self, *words: str, check: bool = True) -> str:
        return self.run("-m", "commands.cli", *words, check=check)


@pytest.fixture(scope="module")
def runtime(make_clone: Callable[..., Clone], tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    """The environment in which the pipeline has run."""
    runtime = Runtime(make_clone(**PARAMS), tmp_path_factory.mktemp("runtime"))
    output = runtime.run("-m", "dvc", "repro")
    assert stages_run(output) == ["prepare", "tokenize", "train", "evaluate", "sample"]
    assert "is not installed" not in output
    return runtime


def test_every_module_imports_without_what_the_tests_need(runtime: Runtime) -> None:
    find = f"import importlib.util as u; print([n for n in {NOT_OF_THE_RUNTIME} if u.find_spec(n)])"
    # Below it MLflow advises whoever defines a model, and no filter stops it.
    assert runtime.run("-c", find + IMPORT_ALL).splitlines()[0] == "[]"


def test_results_are_reported_compared_and_shown(runtime: Runtime) -> None:
    runtime.gpt("report")
    assert (runtime.clone.folder / "report.html").is_file()
    assert "workspace" in runtime.gpt("compare")
    assert runtime.gpt("ui", "--no-serve")


def test_an_export_that_needs_an_extra_names_it(runtime: Runtime) -> None:
    output = runtime.gpt("export", "--to", "gguf", check=False)
    assert runtime.clone.code != 0
    assert output.strip().splitlines()[-1].endswith("pip install -c constraints.txt -e '.[export]'")
