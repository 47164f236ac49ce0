"""The pipeline in a folder with an odd name, and with a home in which nothing can be written."""

from collections.abc import Callable

import pytest
from pipeline_clone import Clone, assert_complete, stages_run, tracked_runs

FOLDER = 'Jürgen\'s "100%" of $HOME, #1?'
# /proc takes no files, even of root.
NO_HOME = {"HOME": "/proc", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": "", "LC_ALL": "C"}


@pytest.mark.slow
def test_an_odd_folder_without_a_home_gives_complete_results(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(tokens=True, folder=FOLDER, runtime__tracking="true")
    output = clone.dvc("repro", **NO_HOME)
    assert stages_run(output) == ["train", "evaluate", "sample"]
    # Unquoted, the `?` would end its address, and the file lie beside the folder.
    assert (clone.folder / "mlflow.db").is_file()
    clone.commit("result")
    clone.dvc("exp", "run", "-n", "other", "-S", "sample.seed=2", **NO_HOME)
    runs = tracked_runs(clone)
    assert {run["params"]["sample.seed"] for run in runs} == {"1337", "2"}
    for run in runs:
        assert_complete(run)
    for command in ("compare", "report", "sample --prompt A --max-new-tokens 5"):
        clone.run("gpt", *command.split(), **NO_HOME)
