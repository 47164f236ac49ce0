"""Writes the pins of constraints.txt into pyproject.toml, where `uv sync` reads them.

python tests/uv_constraints.py        # after an edit of constraints.txt
"""

import re
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
START = "constraint-dependencies = [\n"


def pins() -> list[str]:
    """The lines of constraints.txt without its comment."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def main() -> None:
    """Replaces the list in pyproject.toml."""
    file = REPOSITORY / "pyproject.toml"
    lines = textwrap.wrap(
        " ".join(f'"{pin}",' for pin in pins()), 98, break_on_hyphens=False, break_long_words=False
    )
    block = START + "".join(f"  {line}\n" for line in lines) + "]\n"
    text = file.read_text(encoding="utf-8")
    text = re.sub(rf"{re.escape(START)}.*?^\]\n", lambda _: block, text, count=1, flags=re.M | re.S)
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
