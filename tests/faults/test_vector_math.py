"""Tables of positions in fresh processes on busy cores: PyTorch's first parallel call may be wrong.

VECTOR_MATH=300 python -m pytest -s tests/faults/test_vector_math.py   # test-all takes twenty
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_training import REPOSITORY

PROCESSES = int(os.environ.get("VECTOR_MATH", "20"))
# The tables hold 64 times what a call for one thread may hold.
CODE = """
import hashlib, torch
from gpt.model import position_cos_sin

torch.set_num_threads(2)
tables = torch.cat(position_cos_sin(1024, 128))
print(hashlib.sha256(tables.numpy().tobytes()).hexdigest())
"""


def hash_of_a_fresh_process(_: int) -> str:
    return subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.slow
@pytest.mark.fault(27)
@pytest.mark.timeout(7200)
def test_tables_of_positions_are_the_same_in_every_fresh_process_on_busy_cores() -> None:
    # Three processes of two threads for each core: none has a core of its own.
    with ThreadPoolExecutor(3 * (os.cpu_count() or 1)) as pool:
        hashes = set(pool.map(hash_of_a_fresh_process, range(PROCESSES)))
    assert len(hashes) == 1
    print(f"{PROCESSES} fresh processes, one hash: {hashes.pop().strip()}")
