"""The words of the field: private ones stay out of code, messages, params.yaml and dvc.yaml."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("gpt", "stages", "repro", "commands", "verse", "workshop", "tests", "benchmarks")

# What to write in their place: look -> evaluation, bend -> activation, ladder -> baselines, ...
PHRASES = (
    "looks?",
    "bends?",
    "likeliest",
    "mend(s|ed|ing)?",
    "goes on",
    "go on from",
    "ladders?",
    "guessing",
    "could not be had",
    "had again",
    "to the bit",
    "the way back",
    "in vain",
    "make room",
    "a press on",
    "is none;",
    "so many",
    "such a",
    "tokens a second",
    "nats a token",
    "wanted",
    "on_look",
    "looked_at",
)
IDENTIFIERS = frozenset(
    """
    found facts place places share pieces wanted given asked one other both together beside whole
    like spread row record numbers part turn bend look drawn
    """.split()  # noqa: SIM905
)
# A key of metrics/evaluate.json and a label in metrics/pictures/loss.png: results keep their bytes.
RESULTS = re.compile('"(ladder|guessing)"')
# The words of the default corpus, and those above.
DATA = {REPOSITORY / "verse/words.py", REPOSITORY / "verse/rules.py", Path(__file__).resolve()}
# Where the word is the thing's own name.
ALLOWED = {
    "gpt/micro.py:row": "of a matrix",
    "tests/gpt/test_micro.py:row": "of a matrix",
    "commands/report_tables.py:row": "of a table",
}


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((REPOSITORY / folder).rglob("*.py"))


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every name that a file defines: variables, arguments, attributes, functions, classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


@pytest.mark.parametrize("name", [*FOLDERS, "params.yaml", "dvc.yaml"])
def test_no_private_word_stands_in_code_or_messages(name: str) -> None:
    pattern = re.compile(rf"\b({'|'.join(PHRASES)})(?![a-z0-9])", re.IGNORECASE)
    matches = [
        f"{file.relative_to(REPOSITORY)}:{number}: {match[0]}"
        for file in ([REPOSITORY / name] if name.endswith(".yaml") else python_files(name))
        if file not in DATA
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(RESULTS.sub("", line))
    ]
    assert not matches, "\n".join(matches)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_variable_is_named_by_a_word_that_names_nothing(folder: str) -> None:
    matches = [
        f"{where}:{number}: {name}"
        for file in python_files(folder)
        for where in [file.relative_to(REPOSITORY).as_posix()]
        for number, name in defined_names(ast.parse(file.read_text(encoding="utf-8")))
        if name in IDENTIFIERS and f"{where}:{name}" not in ALLOWED
    ]
    assert not matches, "\n".join(matches)
