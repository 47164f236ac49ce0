"""Kills a small training again and again, and compares what comes out.  python tests/verify.py

Trains once undisturbed (`python -m stages.train`), then kills trainings with SIGKILL at random
moments, starts each again until it is done, and compares the sha256 of every file it wrote. Up to
five kills fall on one training, each after a random step and a moment into the next one:
in a step, in a save, or while the model is written. Exits with 1 at any difference, and where a
state that was saved was not resumed from.

    python tests/verify.py --kills 1000      # minutes; the default is 10
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

# The repository first: tests/gpt must not be taken for the package.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from small_training import MEMORY, STEPS, Run, SmallTraining, resumed_from

KILLS_IN_A_TRAINING = 5
A_STEP = 0.03  # seconds, with its save


def verify(folder: Path, kills: int, seed: int) -> int:
    """Kills trainings `kills` times; prints each fault, and returns how many there were."""
    begun = time.monotonic()
    rng = random.Random(seed)  # noqa: S311 (when to kill is no secret)
    first = SmallTraining(folder / "undisturbed")
    first.make_tokens()
    undisturbed = first.plain("train")
    if undisturbed.returncode:
        print(undisturbed.stdout)
        return 1
    expected = first.hashes()
    killed = first.clone(folder / "killed")
    done, trainings, faults, steps = 0, 0, 0, set()
    while done < kills:
        moments = sorted(rng.sample(range(STEPS + 1), KILLS_IN_A_TRAINING))
        while True:
            saved = killed.newest()
            run = killed.start()
            if moments and done < kills:
                _kill(killed, run, moments.pop(0), rng.uniform(0, A_STEP))
            code, output = run.end(), run.output()
            # Who is killed early says nothing of it yet.
            resumed = resumed_from(output)
            if resumed < saved and (resumed or code == 0):
                print(f"a state of step {saved} was saved, and not resumed from:\n{output}")
                faults += 1
            if code != -signal.SIGKILL:
                break
            done += 1
            steps.add(killed.newest())
        trainings += 1
        faults += _compare(killed, code, expected)
        if code:
            break  # it will not end otherwise the next time
    seconds = time.monotonic() - begun
    differences = "no differences" if not faults else f"{faults} DIFFERENCES"
    weights = expected["model.safetensors"][:16]
    print(
        f"{done} kills in {trainings} trainings of {STEPS} steps, after {len(steps)} different "
        f"steps: {differences} (model.safetensors {weights}, seed {seed}, {seconds:.0f} s)"
    )
    return faults


def _kill(training: SmallTraining, run: Run, step: int, later: float) -> None:
    """Kills a run once the state of `step` is there, and a moment later; unless it ended before."""
    while training.newest() < step and run.running():
        time.sleep(0.001)
    time.sleep(later)
    run.kill()


def _compare(training: SmallTraining, code: int, expected: dict[str, str]) -> int:
    if code:
        print(f"exit code {code}")
        return 1
    hashes = training.hashes()
    differ = [name for name in expected if hashes[name] != expected[name]]
    for name in differ:
        print(f"{name}: {hashes[name]}, undisturbed {expected[name]}")
    return len(differ)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it kills")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        sys.exit(1 if verify(Path(name), arguments.kills, arguments.seed) else 0)
