"""Two workers of DVC's queue whose experiments need one and the same training."""

import signal
from collections.abc import Callable

import psutil
import pytest
from experiment_queue import SECONDS_PER_EXPERIMENT, Queue
from pipeline_clone import Clone, saved_step
from waiting import wait_for


@pytest.mark.slow
def test_the_second_worker_waits_for_the_training_of_the_first_and_takes_it_over(
    make_clone: Callable[..., Clone],
) -> None:
    clone = make_clone(tokens=True, runtime__checkpoint_every="1")
    queue = Queue(clone)
    queue.add("-S", "sample.temperature=0.5,0.9")
    queue.start()
    try:
        scratch = clone.folder / ".cache/train"
        wait_for(
            lambda: any(saved_step(folder) for folder in scratch.glob("*/")), SECONDS_PER_EXPERIMENT
        )
        (owner,) = scratch.glob("*.pid")
        trainer = psutil.Process(int(owner.read_text(encoding="utf-8")))
        trainer.send_signal(signal.SIGSTOP)  # until the second has come to it
        wait_for(lambda: "waiting until it ends" in queue.logs(), SECONDS_PER_EXPERIMENT)
        trainer.send_signal(signal.SIGCONT)
        queue.run_to_its_end(2)
        wait_for(lambda: not queue.workers(), SECONDS_PER_EXPERIMENT)
    finally:
        queue.stop()
    assert list(queue.status().values()) == ["Success", "Success"]
    assert "resuming from step 40" in queue.logs(), "the second trains nothing"
    first, second = (clone.experiment_outs(name) for name in queue.experiments())
    assert first["data/model"] == second["data/model"]
    assert first["data/samples"] != second["data/samples"]
    assert not list(clone.folder.glob(".cache/train/*/step_*"))
