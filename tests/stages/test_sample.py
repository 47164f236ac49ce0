"""The page of samples holds whatever the model wrote."""

import pytest
from trial_repository import REPOSITORY

from gpt.generation import Sample
from stages import params
from stages.sample import samples_page


@pytest.mark.parametrize("ticks", [1, 3, 4, 9])
def test_no_text_closes_its_fence(ticks: int) -> None:
    settings = params.load(str(REPOSITORY / "params.yaml")).sample
    text = f"To be\n{'`' * ticks}\n<script>\x1b[31m\n{'`' * ticks}"
    page = samples_page(settings, [Sample(text, "", "length", 9)])
    lines = page.splitlines()
    opened = next(line for line in lines if set(line) == {"`"})
    at = lines.index(opened)
    closed = next(i for i, line in enumerate(lines[at + 1 :], at + 1) if line.startswith(opened))
    assert "\n".join(lines[at + 1 : closed]) == text.replace("\x1b", "\\x1b")
    assert not any(lines[closed + 1 :])
