"""docs/reliability.md and the tests agree, and every planted defect still fits the code."""

import ast
import re
from pathlib import Path

import planted
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs/reliability.md"
FAULTS = range(1, 27)


def marked() -> dict[int, set[tuple[str, str, str]]]:
    """{fault: {(file, test, planted defect or "")}}, read from the decorators of the tests."""
    found: dict[int, set[tuple[str, str, str]]] = {fault: set() for fault in FAULTS}
    for file in sorted((REPOSITORY / "tests").glob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tests = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        for test in tests:
            for mark in test.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    given = {word.arg: ast.unparse(word.value) for word in mark.keywords}
                    defect = given.get("planted", "").removeprefix("planted.")
                    found[ast.literal_eval(mark.args[0])].add((file.name, test.name, defect))
    return found


def rows() -> dict[int, str]:
    """The last column of the page's table: for each fault its tests."""
    text = PAGE.read_text(encoding="utf-8")
    return {int(n): cell for n, cell in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", text, re.M)}


def cell(tests: set[tuple[str, str, str]]) -> str:
    """What the page says of these tests: by file, the ones with a planted defect in bold."""
    files: dict[str, dict[str, bool]] = {}
    for file, test, defect in sorted(tests):
        names = files.setdefault(file.removeprefix("test_").removesuffix(".py"), {})
        names[test] = bool(defect) or names.get(test, False)
    shown = []
    for file, names in files.items():
        words = [name.removeprefix("test_").replace("_", " ") for name in names]
        marks = [f"**{w}**" if bold else w for w, bold in zip(words, names.values(), strict=True)]
        shown.append(f"*{file}*: {'; '.join(marks)}")
    return "<br>".join(shown)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_page_names_the_tests_of_a_fault(fault: int) -> None:
    tests = marked()[fault]
    assert tests, f"fault {fault} has no test"
    assert rows()[fault] == cell(tests)


@pytest.mark.parametrize("name", sorted(planted.NAMES.values()))
def test_a_planted_defect_fits_the_code_and_is_named_by_a_test(name: str) -> None:
    defect = getattr(planted, name)
    text = (REPOSITORY / defect.file).read_text(encoding="utf-8")
    assert text.count(defect.right) == 1, f"{defect.file} has changed: mend tests/planted.py"
    assert name in {used for tests in marked().values() for _, _, used in tests}
