"""What `make` installs, as it calls programs that stand in for Python, pip and uv."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from conftest import missing
from packaging.utils import canonicalize_name
from pipeline_clone import REPOSITORY
from run_make import copy_makefile, run_make
from runtime_environment import all_requirements, runtime_requirements, with_dependencies
from uv_constraints import pins

PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m pip "*) echo "${*#-m }" >> calls; case "$*" in *index*) exit "${NO_WHEEL:-0}"; esac ;;
  *urlopen*) exit "${UNREACHABLE:-0}" ;;
esac
"""
UNAME = 'echo "${SYSTEM:-Linux}"'
NVIDIA_SMI = 'exit "${NO_DRIVER:-1}"'
UV = 'echo "uv $*" >> calls'


class Project:
    """A folder with the Makefile and what it reads, and the stand-ins it calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        copy_makefile(folder)
        (folder / "bin").mkdir()
        # Not /usr/bin itself, where uv may lie.
        for name in ("cat", "cp", "mkdir", "rm", "touch"):
            (folder / "bin" / name).symlink_to(shutil.which(name) or missing(f"no {name} on PATH"))
        self.add("python3", PYTHON)
        self.add("uname", UNAME)
        self.add("nvidia-smi", NVIDIA_SMI)

    def add(self, name: str, script: str) -> None:
        program = self.folder / "bin" / name
        program.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def make(self, *words: str, **environment: str) -> tuple[list[str], str]:
        """The calls of pip and uv, without quiet options, and what make printed."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        done = run_make(self.folder, *words, **{"PATH": f"{self.folder}/bin", **environment})
        lines = calls.read_text().splitlines() if calls.exists() else []
        return lines, done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def from_cpu_index(call: str) -> bool:
    return call.endswith("--no-deps --index-url https://download.pytorch.org/whl/cpu torch")


def test_each_target_installs_its_extra_alone_and_once(project: Project) -> None:
    for target, installed in (
        (".venv/ready", ["torch", "-e ."]),
        (".venv/ready-site", ["-e .[site]"]),
        (".venv/ready-dev", ["-e .[dev]"]),
        (".venv/ready-dev", []),
    ):
        calls, _ = project.make(target)
        assert len(calls) == len(installed)
        for call, end in zip(calls, installed, strict=True):
            assert call.startswith("pip install ") and " -c constraints.txt " in call
            assert call.endswith(f" {end}")
    os.utime(project.folder / ".venv/ready", (1, 1))  # timestamps may be whole seconds
    (project.folder / "constraints.txt").touch()
    calls, _ = project.make(".venv/ready-site")
    assert [call.rpartition(" ")[2] for call in calls] == ["torch", ".", ".[site]"]


@pytest.mark.parametrize(
    ("environment", "cpu", "said"),
    [
        ({}, True, "PyTorch: the CPU build, without 3 GB of CUDA; for a GPU: make run TORCH=cuda"),
        ({"NO_DRIVER": "0"}, False, "PyTorch: the build of the package index"),
        ({"NO_DRIVER": "0", "TORCH": "cpu"}, True, "PyTorch: the CPU build"),
        ({"TORCH": "cuda"}, False, "PyTorch: the build of the package index"),
        ({"SYSTEM": "Darwin"}, False, "PyTorch: the build of the package index"),
        ({"UNREACHABLE": "1"}, False, "nothing came from https://download.pytorch.org/whl/cpu"),
        ({"NO_WHEEL": "1"}, True, "nothing came from https://download.pytorch.org/whl/cpu"),
    ],
)
def test_linux_without_a_driver_takes_the_cpu_build_where_it_can_be_reached(
    project: Project, environment: dict[str, str], cpu: bool, said: str
) -> None:
    calls, output = project.make(".venv/ready", **environment)
    assert [from_cpu_index(call) for call in calls] == ([True, False] if cpu else [False])
    (line,) = [line for line in output.splitlines() if line.startswith("PyTorch: ")]
    assert said in line


def test_another_build_of_pytorch_gets_a_fresh_environment_which_stays(project: Project) -> None:
    project.make(".venv/ready")
    leftover = project.folder / ".venv/bin/leftover"
    leftover.touch()
    calls, _ = project.make(".venv/ready", TORCH="cuda")
    assert [from_cpu_index(call) for call in calls] == [False]
    assert not leftover.exists()
    assert project.make(".venv/ready")[0] == project.make(".venv/ready", TORCH="cuda")[0] == []
    calls, _ = project.make(".venv/ready", TORCH="cpu")
    assert [from_cpu_index(call) for call in calls] == [True, False]


@pytest.mark.parametrize("uv", [False, True])
def test_bytecode_is_written_by_the_install_where_python_may_not(
    project: Project, uv: bool
) -> None:
    """PyTorch and MLflow take twice as long to import without it."""
    if uv:
        project.add("uv", UV)
    for environment, written in (({}, False), ({"PYTHONDONTWRITEBYTECODE": "1"}, True)):
        calls, _ = project.make(".venv/ready", "-B", **environment)
        for call in calls:
            assert written == ("--compile-bytecode" in call if uv else "--no-compile" not in call)


def test_uv_of_the_environment_itself_is_not_used(project: Project) -> None:
    project.make(".venv/ready")
    (project.folder / ".venv/bin/uv").write_text("#!/bin/sh\nexit 1\n")
    (project.folder / ".venv/bin/uv").chmod(0o755)
    path = f"{project.folder}/.venv/bin:{project.folder}/bin"
    calls, _ = project.make(".venv/ready", TORCH="cuda", PATH=path)
    assert [call.startswith("pip install ") for call in calls] == [True]


def test_uv_installs_where_it_is_on_path(project: Project) -> None:
    project.add("uv", UV)
    calls, _ = project.make(".venv/ready-dev")
    start = "uv pip install --quiet --python .venv/bin/python -c constraints.txt "
    assert from_cpu_index(calls[0])
    assert calls[1:] == [f"{start}-e .", f"{start}-e .[dev]"]
    assert calls[0].startswith(start)


# --- uv sync --------------------------------------------------------------------------------------


def test_uv_sync_has_the_versions_of_constraints_txt() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["tool"]["uv"]["constraint-dependencies"]
    assert listed == pins(), "write them again: python tests/uv_constraints.py"


def write_wheel(folder: Path, name: str, version: str, requires: list[str]) -> None:
    """A package that requires others and has no module."""
    stem = f"{name.replace('-', '_')}-{version}"
    extras = sorted(set(re.findall(r"extra == ['\"]([\w.-]+)", " ".join(requires))))
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {line}" for line in requires]
    metadata += [f"Provides-Extra: {extra}" for extra in extras]
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(
            f"{stem}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{stem}.dist-info/RECORD", "")


@pytest.mark.slow
def test_uv_sync_installs_the_pinned_versions_of_the_runtime_and_no_more(project: Project) -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uv is None:
        missing("uv is not installed (pip install -c constraints.txt -e '.[dev]')")
    wheels = project.folder / "wheels"
    wheels.mkdir()
    # What is installed here, and of each package a newer version, which the pins rule out.
    for name, installed in with_dependencies(all_requirements()).items():
        for version in (installed.version, "9999"):
            write_wheel(wheels, name, version, installed.requires or [])
    pyproject = project.folder / "pyproject.toml"
    # This system alone: packages that others need are not installed here.
    here = (
        f"sys_platform == '{sys.platform}' and python_full_version == '{platform.python_version()}'"
    )
    text = pyproject.read_text().replace("[tool.uv]\n", f'[tool.uv]\nenvironments = ["{here}"]\n')
    pyproject.write_text(text)
    subprocess.run(
        (uv, "sync", "--quiet", "--no-install-project", "--python", sys.executable),
        cwd=project.folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(project.folder),
            "UV_OFFLINE": "1",
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": "wheels",
        },
        check=True,
    )
    (packages,) = project.folder.glob(".venv/lib/python*/site-packages")
    synced = {canonicalize_name(d.name): d.version for d in distributions(path=[str(packages)])}
    expected = with_dependencies(runtime_requirements())
    assert synced == {name: installed.version for name, installed in expected.items()}


def test_a_python_that_is_too_old_costs_no_environment(project: Project) -> None:
    project.make(".venv/ready")
    project.add("old", '[ "$1" = -c ] && exit 1')
    done = run_make(
        project.folder,
        ".venv/ready",
        "PYTHON=old",
        "TORCH=cuda",
        check=False,
        PATH=f"{project.folder}/bin",
    )
    assert done.returncode and "needs Python 3.11 or newer" in done.stdout
    assert (project.folder / ".venv/ready").exists()
