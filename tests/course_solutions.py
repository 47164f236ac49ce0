"""The files that the course's pages write, put together from their blocks."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```python title=\"scratchpad/(\w+\.py)\"\n(.*?)^```$", re.M | re.S)


def solutions() -> dict[str, str]:
    """The text of each file, by its name."""
    files: dict[str, str] = {}
    for page in sorted((REPOSITORY / "docs").glob("[1-4]-*.md")):
        for name, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            files[name] = files.get(name, "") + block + "\n\n"
    return files


SOLUTIONS = solutions()
