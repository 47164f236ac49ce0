"""What SECURITY.md says is tested, statement by statement."""

import ast
import re

from trial_repository import REPOSITORY

PAGE = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
CODE = ("gpt", "repro", "stages", "commands", "verse", "workshop")
NETWORK = re.compile(
    r"urlopen|build_opener|huggingface_hub import|http\.client|^\s*(import|from) "
    r"(requests|httpx|aiohttp|urllib3|ftplib|smtplib|pooch|wget)",
    re.M,
)


def names_of_tests() -> set[str]:
    names = set()
    for file in (REPOSITORY / "tests").rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return names


def test_every_statement_names_tests_that_exist() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 9
    below = re.findall(r"\*([^*]+)\*", PAGE.partition("**What leaves this machine**")[2])
    named = [name for cells in rows for name in cells[2].strip(" |").split("; ")]
    named += [" ".join(name.split()) for name in below if " " in name and "?" not in name]
    assert len(named) > 30
    known = names_of_tests()
    missing = [name for name in named if f"test_{name.replace(' ', '_')}" not in known]
    assert not missing


def test_only_downloads_reach_the_network() -> None:
    files = [file for folder in CODE for file in (REPOSITORY / folder).rglob("*.py")]
    reaching = [f.name for f in files if NETWORK.search(f.read_text(encoding="utf-8"))]
    assert reaching == ["downloads.py"]
