"""Training across two hosts: two network namespaces with a cable between them.

Each host has a folder of its own, and starts torchrun as docs/scale.md has it. Only the cable joins
them, so what happens to it is what happens to a network.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import missing
from small_training import SmallTraining, largest_difference
from waiting import wait_for

pytestmark = pytest.mark.slow

PARAMS = {
    "train__steps": 400,
    "train__gradient_accumulation": 2,
    "train__eval_every": 200,
    "runtime__checkpoint_every": 20,
    "runtime__timeout_seconds": 30,
}
PORT = 29_400


class Host:
    """A network namespace and the folder of the training in it."""

    def __init__(self, number: int, training: SmallTraining) -> None:
        self.number, self.training = number, training
        self.name, self.cable = f"gpt-host-{number}", f"gpt-cable-{number}"
        self.address = f"10.77.0.{number + 1}"
        self.environment = {
            "GLOO_SOCKET_IFNAME": self.cable,
            "OMP_NUM_THREADS": "1",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # as docs/scale.md says
        }
        self.process: subprocess.Popen[str] | None = None

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True)

    def start(self, join_seconds: int = 60) -> None:
        command = [
            *("ip", "netns", "exec", self.name),
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"10.77.0.1:{PORT}"),
            *("--rdzv-id", "test", "--local-addr", self.address),
            *("--rdzv-conf", f"is_host={self.number == 0},join_timeout={join_seconds}"),
            *("-m", "stages.train"),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=self.training.folder,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            start_new_session=True,
        )

    def begins_again_slowly(self, folder: Path) -> None:
        """A process that begins again does so a second later than it could."""
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            "import os, time\n"
            "time.sleep(int(os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')) > 0)\n",
            encoding="utf-8",
        )
        self.environment["PYTHONPATH"] = str(folder)

    def worker(self) -> psutil.Process:
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(p for p in children if p.cmdline()[1:] == ["-u", "-m", "stages.train"])

    def wait_for_retransmissions(self, number: int) -> None:
        """Returns once TCP has sent `number` segments again."""
        before = self.retransmissions()
        wait_for(lambda: self.retransmissions() >= before + number)

    def retransmissions(self) -> int:
        """How many segments TCP has sent again in this namespace."""
        command = ["ip", "netns", "exec", self.name, "cat", "/proc/net/snmp"]
        table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        names, values = (line.split() for line in table.splitlines() if line.startswith("Tcp:"))
        return int(values[names.index("RetransSegs")])

    def kill(self) -> None:
        """The power of the host fails."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        for process in family:
            process.kill()
        self.process.communicate()

    def end(self, seconds: float = 180) -> tuple[int, str]:
        assert self.process is not None
        output = self.process.communicate(timeout=seconds)[0]
        return self.process.returncode, output

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextmanager
def cabled(hosts: list[Host]) -> Iterator[None]:
    first, second = hosts
    made = []
    try:
        for host in hosts:
            subprocess.run(["ip", "netns", "add", host.name], check=True)
            made.append(host)
        subprocess.run(
            [
                *("ip", "-n", first.name, "link", "add", first.cable, "type", "veth"),
                *("peer", "name", second.cable, "netns", second.name),
            ],
            check=True,
        )
        for host in hosts:
            host.ip("addr", "add", f"{host.address}/24", "dev", host.cable)
            host.ip("link", "set", "lo", "up")
            host.ip("link", "set", host.cable, "up")
        yield
    finally:
        for host in made:
            host.stop()
            subprocess.run(["ip", "netns", "del", host.name], check=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> SmallTraining:
    """The same training in one process."""
    training = SmallTraining(tmp_path_factory.mktemp("hosts") / "alone")
    training.set(**PARAMS)
    training.make_tokens()
    done = training.plain("train")
    assert done.returncode == 0, done.stdout
    return training


@pytest.fixture
def hosts(alone: SmallTraining, tmp_path: Path) -> Iterator[list[Host]]:
    if shutil.which("ip") is None:
        missing("no ip (iproute2), which makes the hosts")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = [Host(number, alone.clone(tmp_path / f"host {number}")) for number in (0, 1)]
    with cabled(made):
        yield made


def wait_for_step(host: Host, step: int) -> None:
    process = host.process
    assert process is not None
    wait_for(
        lambda: host.training.newest() >= step,
        running=lambda: process.poll() is None,
        told=lambda: host.end()[1],
    )


def weights(training: SmallTraining) -> str:
    return training.hashes()["model.safetensors"]


def test_a_cut_cable_and_a_killed_process_leave_the_bits_as_they_are(
    alone: SmallTraining, hosts: list[Host], tmp_path: Path
) -> None:
    # So that the other process asks for it before it has published its address.
    hosts[0].begins_again_slowly(tmp_path / "slowly")
    for host in hosts:
        host.start()
    wait_for_step(hosts[0], 40)
    # The cable is out until what was sent has been sent again, several times.
    hosts[1].ip("link", "set", hosts[1].cable, "down")
    hosts[0].wait_for_retransmissions(2)
    before = hosts[0].training.newest()
    hosts[0].wait_for_retransmissions(3)
    assert hosts[0].training.newest() == before, "it continues without the other"
    hosts[1].ip("link", "set", hosts[1].cable, "up")
    wait_for_step(hosts[0], before + 40)
    # A process of the other host dies; both begin again from the last saved state.
    hosts[1].worker().kill()
    ended = [host.end() for host in hosts]
    if [code for code, _ in ended] != [0, 0]:
        pytest.fail("\n\n".join(f"exit {code}:\n{output}" for code, output in ended))
    assert "resuming from step" in ended[0][1]
    assert weights(hosts[0].training) == weights(alone)
    # The first process alone writes.
    assert not (hosts[1].training.folder / "data/model").exists()


def test_a_host_that_never_comes_back_is_an_error_and_costs_nothing_that_was_saved(
    alone: SmallTraining, hosts: list[Host]
) -> None:
    for host in hosts:
        host.start(join_seconds=10)
    wait_for_step(hosts[0], 40)
    hosts[1].kill()
    code, output = hosts[0].end()
    assert code != 0
    assert "another process ended, or did not answer" in output
    saved = hosts[0].training.newest()
    assert saved >= 40
    # One host resumes from there.
    done = hosts[0].training.plain("train")
    assert done.returncode == 0, done.stdout
    assert f"resuming from step {saved}\n" in done.stdout
    assert largest_difference(hosts[0].training, alone) == 0


def test_ctrl_c_on_one_host_saves_and_stops_both(hosts: list[Host]) -> None:
    for host in hosts:
        host.start(join_seconds=5)
    wait_for_step(hosts[0], 40)
    assert hosts[0].process is not None
    hosts[0].process.send_signal(signal.SIGINT)
    code, output = hosts[0].end()
    assert code != 0
    assert "state saved" in output
    assert hosts[0].training.newest() >= 40
