"""The table of docs/reliability.md that names the tests of each fault.  python tests/fault_table.py

Written from the tests' own marks; a test compares the page with them.
"""

import ast
import re
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs/reliability.md"
FAULTS = range(1, 28)
LINE = re.compile(r"^(\| (\d+) \|.*\| )([^|]*)( \|)$", re.M)


@cache
def marked_tests() -> dict[int, set[tuple[str, str, str]]]:
    """{fault: {(file, test, planted defect or "")}}, read from the decorators of the tests."""
    tests_of: dict[int, set[tuple[str, str, str]]] = {fault: set() for fault in FAULTS}
    for file in sorted((REPOSITORY / "tests").rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        tests = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        for test in tests:
            for mark in test.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    keywords = {word.arg: ast.unparse(word.value) for word in mark.keywords}
                    defect = keywords.get("planted", "").removeprefix("planted.")
                    tests_of[ast.literal_eval(mark.args[0])].add((file.name, test.name, defect))
    return tests_of


def listed_tests() -> dict[int, str]:
    """The last column of the page's table: for each fault its tests."""
    text = PAGE.read_text(encoding="utf-8")
    return {int(match[2]): match[3] for match in LINE.finditer(text)}


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


def write() -> None:
    """Brings the page up to date with the tests."""
    tests = marked_tests()
    text = PAGE.read_text(encoding="utf-8")
    text = LINE.sub(lambda match: match[1] + cell(tests[int(match[2])]) + match[4], text)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
