"""What mkdocs does to a page before it becomes one of the site (a hook of mkdocs.yml).

The pages link to the code beside them, as one reads them in the repository. On the site a module
leads to its reference, and any other file of the repository is named without a link.
"""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
REFERENCE = Path(__file__).parent.parent / "docs/reference.md"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with links that hold on the site."""
    modules = set(re.findall(r"^::: (\S+)$", REFERENCE.read_text(encoding="utf-8"), re.M))

    def leading(match: re.Match[str]) -> str:
        text, path = match[1], match[2]
        module = path.removesuffix(".py").replace("/", ".")
        return f"[{text}](reference.md#{module})" if module in modules else text

    return LINK.sub(leading, markdown)
