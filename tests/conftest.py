"""What every test stands on: no network, no stray environment, the real texts where they are."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import hypothesis
import planted
import pytest
from pipeline_clone import SMALL, Clone
from pytest_socket import disable_socket, enable_socket

# Nothing is timed: on a busy machine any example may take long.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parent.parent
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No DVC_* or MLFLOW_* variable or argument of the caller reaches a test."""
    for name in list(os.environ):
        if name.startswith(("DVC_", "MLFLOW_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])
    # Of the tests' process, not of the temporary repository in which a stage sets it first.
    monkeypatch.setenv("MPLCONFIGDIR", str(REPOSITORY / ".cache/matplotlib"))
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


@pytest.fixture(autouse=True)
def _one_thread_by_default() -> None:
    """Threads that share tensors this small cost up to fifty times what they compute."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch computes with one thread, and then with as many as before."""
    yield from _threads(1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch computes with two threads, and then with as many as before."""
    yield from _threads(2)


def _threads(count: int) -> Iterator[None]:
    import torch  # a second, which tests without it do not pay

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def texts() -> Path:
    """The folder of real texts that GPT_MIRROR names."""
    name = os.environ.get("GPT_MIRROR")
    folder = (REPOSITORY / name) if name else None
    if folder is None or not (folder / "shakespeare.txt").is_file():
        missing("GPT_MIRROR names no folder with shakespeare.txt")
    return folder


@pytest.fixture(scope="session")
def gpt2_cache(texts: Path) -> Path:
    """The copy of tiktoken's cache beside the real texts, with GPT-2's vocab.bpe."""
    from gpt.tokenizers.gpt2_vocab import GPT2_FILE

    folder = texts / "tiktoken"
    if not (folder / GPT2_FILE).is_file():
        missing(f"GPT_MIRROR has no tiktoken/{GPT2_FILE}")
    return folder


@pytest.fixture(scope="session")
def gpt2(gpt2_cache: Path) -> Any:
    """GPT-2's own tokenizer."""
    from gpt.tokenizers.byte_level import GPT2Tokenizer
    from gpt.tokenizers.gpt2_vocab import GPT2_FILE, gpt2_tokens

    return GPT2Tokenizer(gpt2_tokens((gpt2_cache / GPT2_FILE).read_bytes()), has_bos=False)


@pytest.fixture(scope="session")
def tokenized(tmp_path_factory: pytest.TempPathFactory, tracked_files: list[Path]) -> Clone:
    """A clone in which `prepare` and `tokenize` have run."""
    clone = Clone(tmp_path_factory.mktemp("clone"), tracked_files, SMALL)
    clone.dvc("repro", "tokenize")
    return clone


@pytest.fixture(scope="session")
def make_clone(
    tmp_path_factory: pytest.TempPathFactory,
    tracked_files: list[Path],
    request: pytest.FixtureRequest,
) -> Callable[..., Clone]:
    """Makes a fresh clone with changed params, if asked with the corpus and tokens of SMALL."""

    def make(tokens: bool = False, folder: str = "clone", **params: str) -> Clone:
        changes = {key.replace("__", "."): value for key, value in params.items()}
        clone = Clone(tmp_path_factory.mktemp(folder), tracked_files, SMALL | changes)
        if tokens:
            clone.take_tokens(request.getfixturevalue("tokenized"))
        return clone

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, driven by Playwright."""
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        missing("no chromium or google-chrome on PATH (apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed (pip install -e '.[dev]')")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield started
        started.close()


def missing(what: str) -> None:
    """A tool or text that is not here: a skip at home, a failure where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI must have it")
    pytest.skip(what)


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """The repository's files as git knows them, and new ones that it does not ignore."""
    return _tracked_files()


def _tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [REPOSITORY / name for name in listed.split("\0") if name]


# --- tracking -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database without a run; making one takes seconds, so it is copied."""
    from repro.tracking import store  # not paid by tests without it

    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    store.quiet_mlflow()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow and SQLAlchemy tell each other
        store.make_database(database)
    return database


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Any:
    """A repository to track, which is the working folder."""
    from trial_repository import TrialRepository

    repository = TrialRepository(tmp_path / "repository")
    monkeypatch.chdir(repository.folder)
    shutil.copyfile(empty_database, repository.folder / "mlflow.db")
    return repository


# --- submissions ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which the pipeline has run, and the submission that was made there."""
    from forged_submissions import train_and_submit
    from small_training import SmallTraining

    training = SmallTraining(tmp_path_factory.mktemp("competition") / "repository")
    words = "--candidates 3 --max-new-tokens 60 --seed 5 --choose 1"
    train_and_submit(training, *words.split())
    return training.folder


@pytest.fixture
def submission(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the submission, in the repository that verifies it."""
    monkeypatch.chdir(trained)
    shutil.copytree(trained / "submission", tmp_path / "field/ada")
    return tmp_path / "field/ada"


# --- planted defects ------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--planted",
        action="store_true",
        help="plant the defects that the chosen tests name, one at a time in a copy of the "
        "repository, and pass where each of these tests fails",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Slow tests begin, so that two processes end together.

    With --planted the defects stand in place of the tests that name them.
    """
    if not config.getoption("--planted"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)
        return
    tests: dict[planted.Defect, set[str]] = {}
    for item in items:
        for mark in item.iter_markers("fault"):
            if "planted" in mark.kwargs:
                name = item.nodeid.partition("[")[0]
                tests.setdefault(mark.kwargs["planted"], set()).add(name)
    items[:] = [
        PlantedDefect.from_parent(
            session, name=planted.NAMES[defect], defect=defect, tests=sorted(names)
        )
        for defect, names in tests.items()
    ]


class PlantedDefect(pytest.Item):
    """A copy of the repository with one defect, in which the tests that name it have to fail."""

    def __init__(self, *, defect: planted.Defect, tests: list[str], **more: Any) -> None:
        super().__init__(**more)
        self.defect, self.tests = defect, tests

    def runtest(self) -> None:
        with TemporaryDirectory() as name:
            copy = Path(name) / "copy"
            for file in _tracked_files():
                if file.is_file():
                    target = copy / file.relative_to(REPOSITORY)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target)
            self.defect.plant(copy)
            for words in (["init", "-q"], ["add", "-A"]):
                subprocess.run(["git", *words], cwd=copy, check=True)
            command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider"]
            done = subprocess.run(
                [*command, *self.tests],
                cwd=copy,
                # An installed package would hide the copy's from scripts.
                env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        # Of a test with parameters one is enough: not each of them meets the defect.
        failed = {
            line.partition("[")[0] for line in re.findall(r"^FAILED (\S+)", done.stdout, re.M)
        }
        passed = sorted(set(self.tests) - failed)
        assert not passed, f"not caught by {', '.join(passed)}:\n{done.stdout}"

    def reportinfo(self) -> tuple[Path, None, str]:
        return REPOSITORY / self.defect.file, None, f"planted: {self.name}"
