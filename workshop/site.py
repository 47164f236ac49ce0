"""Adapts the links of a page to the site (a hook of mkdocs.yml).

In the repository pages link to files of code. On the site a module's link leads to its reference,
and any other file of the repository is named without a link.
"""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"\[([^\]]*)\]\(\.\./([^)#\s]+)(#[^)\s]*)?\)")
REFERENCE = Path(__file__).parent.parent / "docs/reference.md"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Rewrites the links of a page for the site."""
    modules = set(re.findall(r"^::: (\S+)$", REFERENCE.read_text(encoding="utf-8"), re.M))

    def site_link(match: re.Match[str]) -> str:
        text, path = match[1], match[2]
        module = path.removesuffix(".py").replace("/", ".")
        return f"[{text}](reference.md#{module})" if module in modules else text

    return LINK.sub(site_link, markdown)
