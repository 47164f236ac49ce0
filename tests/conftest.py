"""What every test stands on: no network, no stray environment, the real texts where they are."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No DVC_* or MLFLOW_* variable of the caller reaches a test or a process it starts."""
    for name in list(os.environ):
        if name.startswith(("DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    # No test may wait for a colour terminal or a wide one.
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Only loopback and Unix sockets; a test marked `browser` talks to a server of its own."""
    disable_socket(allow_unix_socket=True)
    if request.node.get_closest_marker("loopback") or request.node.get_closest_marker("browser"):
        enable_socket()
    yield
    enable_socket()


@pytest.fixture(scope="session")
def texts() -> Path:
    """The folder of real texts that GPT_MIRROR names."""
    given = os.environ.get("GPT_MIRROR")
    folder = (REPOSITORY / given) if given else None
    if folder is None or not (folder / "shakespeare.txt").is_file():
        missing("GPT_MIRROR names no folder with shakespeare.txt")
    return folder


def missing(what: str) -> None:
    """A tool or text that is not here: a skip at home, a failure where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must have it")
    pytest.skip(what)


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """The repository's files as git knows them, and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name]
