"""What the pages say can be done: links, commands and settings exist."""

import doctest
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from course_solutions import SOLUTIONS

from commands.cli import COMMANDS, load_command
from commands.plan import with_changes
from workshop.site import on_page_markdown

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# What a reader puts in the place of.
MADE_UP = ("KEY=VALUE", "PATH")


def commands(page: Path) -> list[list[str]]:
    """The indented command lines of a page, continued lines joined, comments left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4,}((?:[A-Z_]+=\S+ )?(?:dvc|gpt|python|make) .*)$", text, re.M)
    return [shlex.split(line, comments=True) for line in lines]


def ids(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.M)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, target


def settings(words: list[str]) -> list[str]:
    return [words[i + 1] for i, word in enumerate(words) if word in ("-S", "--set-param")]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_settings_are_params_with_values_that_can_be(page: Path) -> None:
    for words in commands(page):
        chosen = [setting for setting in settings(words) if not setting.endswith(MADE_UP)]
        # A sweep names several values; each is tried with what else is set.
        for setting in chosen:
            key, _, values = setting.partition("=")
            listed = [values] if values.startswith("[") else values.split(",")
            for value in listed:
                others = [s for s in chosen if s != setting and "," not in s]
                with_changes([*others, f"{key}={value}"])


def test_a_setting_that_cannot_be_is_found() -> None:
    with pytest.raises(Exception, match="n_layers"):
        with_changes(["model.n_layers=4"])


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_of_gpt_and_modules_exist(page: Path) -> None:
    for words in commands(page):
        words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S+", word)]
        if words[0] == "gpt":
            assert words[1] in COMMANDS, words
            command, rest = load_command(words[1]), words[2:]
            while hasattr(command, "commands"):
                name = rest.pop(0)
                assert name in command.commands, words
                command = command.commands[name]
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
            used = {word for word in rest if word.startswith("-")}
            assert used <= options | {"--help"}, words
        elif words[:2] == ["python", "-m"] and words[2] not in ("venv", "pytest"):
            assert (REPOSITORY / (words[2].replace(".", "/") + ".py")).is_file(), words
        elif words[0] == "python" and words[1].endswith(".py"):
            # The learner's files are those that the pages write.
            scratchpad = words[1].removeprefix("scratchpad/") in SOLUTIONS
            assert scratchpad or (REPOSITORY / words[1]).is_file(), words
        elif words[0] == "make":
            makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
            target = words[1] if len(words) > 1 else "run"
            assert re.search(rf"^{target}:", makefile, re.M), words


def test_every_page_has_commands_or_is_prose() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60


# --- examples ------------------------------------------------------------------------------------


def failed_examples(text: str) -> list[str]:
    """Runs a page's blocks of Python in one namespace, in order; what went otherwise than shown."""
    names: dict[str, object] = {"__name__": "page"}
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    for code in re.findall(r"^```python[^\n]*\n(.*?)^```$", text, re.M | re.S):
        if ">>> " in code:
            test = doctest.DocTestParser().get_doctest(code, names, "page", None, None)
            runner.run(test, out=said.append, clear_globs=False)
            names = test.globs
        else:
            exec(code, names)  # noqa: S102 (a page's own code, which this is for)
    return said


@pytest.mark.parametrize("page", PAGES[1:], ids=ids)
def test_examples_give_what_the_page_shows(page: Path) -> None:
    assert failed_examples(page.read_text(encoding="utf-8")) == []


def test_an_example_that_gives_something_else_is_found() -> None:
    page = "```python\ndef two():\n    return 2\n```\n\n```python\n>>> two()\n{}\n```\n"
    assert failed_examples(page.format(2)) == []
    (said,) = failed_examples(page.format(3))
    assert "Expected:\n    3\nGot:\n    2" in said


def test_the_library_example_of_the_readme_trains_and_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    assert sum(bool(line) for line in example.split("\n")) == 12
    (tmp_path / "input.txt").write_text("To be, or not to be: that is it.\n" * 2000, "utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(example.replace('"steps": 500', '"steps": 3'), "utf-8")
    runpy.run_path("example.py")
    assert len(capsys.readouterr().out) >= 300


# --- the site -------------------------------------------------------------------------------------


def test_links_to_code_lead_to_its_reference_on_the_site() -> None:
    page = "[the model](../gpt/model.py), [a stage](../dvc.yaml), [Part 1](1-tokenization.md)"
    assert on_page_markdown(page) == (
        "[the model](reference.md#gpt.model), a stage, [Part 1](1-tokenization.md)"
    )


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', text)
        assert loaded == [], page
    names = {page.parent.name for page in tmp_path.rglob("index.html")}
    assert {page.stem for page in PAGES[1:]} - names == {"index"}
