"""The stage `train`: what makes DVC run it again, and what does not."""

from pathlib import Path

import pytest

from repro.code_deps import code_deps

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "path",
    [
        *("gpt/corpus/readers.py", "gpt/corpus/tables.py", "gpt/corpus/sources.py"),
        "gpt/tokenizers/bpe_training.py",
        *("gpt/interop/gguf.py", "gpt/evaluation/diagnostics.py", "gpt/generation.py", "verse/"),
        "commands/",
    ],
)
def test_an_edit_that_changes_no_weight_leaves_the_training_clean(path: str) -> None:
    assert (REPOSITORY / path).exists()
    assert [dep for dep in code_deps(REPOSITORY)["train"] if dep.startswith(path)] == []
