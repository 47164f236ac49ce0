"""A team on one machine: clones that share a bucket, an MLflow server on PostgreSQL, and a folder.

The commands are those of docs/team.md, read from the page and run as they stand there; only
addresses, names of folders and passwords are put in their place. The servers are the real ones,
but for the bucket, which moto serves.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from conftest import missing
from experiment_queue import Queue
from pipeline_clone import Clone, assert_complete, saved_step, stages_run, tracked_runs
from waiting import answers, wait_for

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/team.md").read_text(encoding="utf-8")
PASSWORD = f"{secrets.token_hex(8)}&/%"
BUCKET = "repro-gpt"
STEPS = 400
# The experiments of the page, and what became of the training in each.
QUEUED = {"warm": "reused", "other-seed": "done"}

pytestmark = [pytest.mark.slow, pytest.mark.loopback]


def blocks(heading: str) -> list[str]:
    """The blocks of commands under a heading of the page, comments left out."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    result = re.findall(r"(?:^ {4,}\S.*\n)+", section, re.M)
    return [re.sub(r"^ {4}|\s+#.*$", "", block, flags=re.M) for block in result]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Server:
    """A process that serves, and all that it starts."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port = free_port()
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *command: str, ready: Callable[[], bool], **options: Any) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, **options
            )
        process = self.process

        def up() -> bool:
            assert process.poll() is None, self.log.read_text(encoding="utf-8")
            return ready()

        wait_for(up)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait()


class Bucket(Server):
    """S3's protocol, served from memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "bucket")
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self.start(*command, ready=lambda: answers(self.url))
        self.client().create_bucket(Bucket=BUCKET)

    def client(self) -> Any:
        keys = {"aws_access_key_id": "ada", "aws_secret_access_key": PASSWORD}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys)

    def files(self, folder: str) -> list[str]:
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return [key for key in keys if key.startswith(f"{folder}/")]


class Database(Server):
    """PostgreSQL of Debian's package, as its own user, where passwords are asked for."""

    def __init__(self, folder: Path, programs: Path) -> None:
        super().__init__(folder, "postgresql")
        self.folder, self.programs = folder, programs
        # It refuses to run as root.
        self.user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        secret = folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        for path in (folder, secret):
            path.chmod(0o700)
            if self.user:
                shutil.chown(path, **self.user)
        self.tool("initdb", "--pgdata=data", "--auth=scram-sha-256", "--pwfile=password", "-N")

    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        return kept | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": PASSWORD,
            "HOME": str(self.folder),
        }

    def tool(self, *command: str, said: str = "") -> str:
        """What a program of PostgreSQL prints; `said` is typed where it asks for a password."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            input=said,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # without a terminal of its own it asks on its input
            **self.user,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def serve(self) -> None:
        options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        words = [word for option in options for word in ("-c", option)]
        self.start(
            *(str(self.programs / "postgres"), "-D", "data", "-p", str(self.port), *words),
            ready=self.accepts,
            cwd=self.folder,
            env=self.environment(),
            **self.user,
        )

    def accepts(self) -> bool:
        command = [str(self.programs / "pg_isready"), "-q"]
        return subprocess.run(command, env=self.environment(), check=False).returncode == 0


class Team:
    """The servers, the repository that all push to, and the folder that all reach."""

    def __init__(self, folder: Path, bucket: Bucket, database: Database) -> None:
        self.folder, self.bucket, self.database = folder, bucket, database
        self.tracking = Server(folder, "mlflow")
        self.origin, self.shared = folder / "origin.git", folder / "srv"
        self.published: dict[str, str] = {}
        self.shared.mkdir()
        (folder / "nothing").touch()

    def here(self, commands: str) -> str:
        """Commands of the page, with what they name as it is on this machine."""
        for name, value in {
            "https://s3.example.org": self.bucket.url,
            "127.0.0.1:5432": f"127.0.0.1:{self.database.port}",
            "127.0.0.1:5000": f"127.0.0.1:{self.tracking.port}",
            "--port 5000": f"--port {self.tracking.port}",
            # Each would be the name of a user and a port of its own on Debian.
            "sudo -u postgres": "",
            "/srv/repro-gpt": str(self.shared),
            "PASSWORD": urllib.parse.quote(PASSWORD, safe=""),
            "SECRET": f"'{PASSWORD}'",
            "KEY": "ada",
            "URL": str(self.origin),
            "GROUP": str(os.getegid()),
            # The clone's own, not the installed one.
            "gpt ui": f"{sys.executable} -m commands.cli ui",
        }.items():
            word = rf"(?<!\w){re.escape(name)}(?!\w)"
            commands = re.sub(word, value.replace("\\", r"\\"), commands)
        return commands

    def make_database(self) -> None:
        for line in self.here(blocks("Rows: an MLflow server")[0]).splitlines():
            if not line.startswith("apt "):
                self.database.tool(*line.split(), said=f"{PASSWORD}\n{PASSWORD}\n")

    def track(self) -> None:
        """Starts the MLflow server."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.tracking.start(
            *("sh", "-e", "-c", self.here(blocks("Rows: an MLflow server")[1])),
            ready=lambda: answers(f"http://127.0.0.1:{self.tracking.port}/health"),
            cwd=self.folder,
            env=kept | {"PATH": path},
        )


class Member(Clone):
    """Somebody's clone, and what they exported in their shell."""

    def __init__(self, team: Team, folder: Path, exported: dict[str, str]) -> None:
        self.team, self.folder, self.exported = team, folder, exported

    def environment(self, **more: str) -> dict[str, str]:
        # No keys and no identity but their own.
        kept = {k: v for k, v in super().environment().items() if not k.startswith("AWS_")}
        who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@localhost"}
        who |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@localhost"}
        nothing = str(self.team.folder / "nothing")
        keys = {"AWS_CONFIG_FILE": nothing, "AWS_SHARED_CREDENTIALS_FILE": nothing}
        return kept | who | keys | {"AWS_EC2_METADATA_DISABLED": "true"} | self.exported | more

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def follow(self, commands: str, folder: Path | None = None) -> str:
        """Runs a block of the page; what it said. A queue's workers would hold a pipe open."""
        said = self.team.folder / "said.log"
        with said.open("wb") as log:
            code = subprocess.run(
                ["sh", "-e", "-c", self.team.here(commands)],
                cwd=folder or self.folder,
                env=self.environment(),
                stdout=log,
                stderr=log,
                timeout=300,
                stdin=subprocess.DEVNULL,
            ).returncode
        text = said.read_text(encoding="utf-8")
        assert code == 0, text
        return text

    def tracked_runs(self, *experiments: str | None) -> list[dict]:
        """The one row of each experiment; None: of `dvc repro`."""
        table = tracked_runs(self, f"http://127.0.0.1:{self.team.tracking.port}")
        result = [
            [run for run in table if run["tags"].get("dvc.exp_name") == e] for e in experiments
        ]
        assert [len(runs) for runs in result] == [1] * len(experiments)
        return [run for (run,) in result]


def exports(commands: str) -> dict[str, str]:
    return dict(re.findall(r"export (\w+)=(\S+)", commands))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    result = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(result[-1]) if result else None)
    if initdb is None:
        missing("no initdb on PATH or in /usr/lib/postgresql (apt install postgresql)")
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="gpt-postgresql-") as private:
        made = Team(folder, Bucket(folder), Database(Path(private), Path(initdb).resolve().parent))
        try:
            made.bucket.serve()
            made.database.serve()
            made.make_database()
            made.track()
            yield made
        finally:
            for server in (made.tracking, made.database, made.bucket):
                server.stop()


@pytest.fixture(scope="module")
def ada(team: Team, make_clone: Callable[..., Clone]) -> Member:
    """She sets it up, runs the pipeline and pushes what came out."""
    clone = make_clone(
        runtime__tracking="true", runtime__checkpoint_every="20", train__steps=str(STEPS)
    )
    clone.run("git", "clone", "--quiet", "--bare", ".", str(team.origin))
    clone.run("git", "remote", "add", "origin", str(team.origin))
    clone.run("git", "fetch", "--quiet", "origin")
    clone.run("git", "branch", "--quiet", "--set-upstream-to=origin/main")
    (exported,) = (exports(team.here(block)) for block in blocks("Rows: an MLflow server")[2:])
    ada = Member(team, clone.folder, exported)
    for block in blocks("Results: a DVC remote")[:2]:
        ada.follow(block)
    ada.follow(blocks("A day")[0])
    team.published = ada.outs()
    # What follows takes place while others work.
    ada.follow(blocks("Results: a DVC remote")[2])
    ada.git("checkout", "-q", ".dvc/config")
    return ada


@pytest.fixture
def join(team: Team, ada: Member, tmp_path: Path) -> Callable[[str], Member]:
    """Somebody clones what Ada pushed, and pulls the results."""

    def join(name: str) -> Member:
        member = Member(team, tmp_path / name / "repro-gpt", ada.exported)
        member.folder.parent.mkdir()
        clone, pull = blocks("A day")[1].split("\n", 1)
        member.follow(clone, member.folder.parent)
        member.follow(blocks("Results: a DVC remote")[1])
        member.said = member.follow(pull)
        return member

    return join


# --- results --------------------------------------------------------------------------------------


def test_who_clones_and_pulls_has_nothing_to_run(
    team: Team, ada: Member, join: Callable[[str], Member]
) -> None:
    ben = join("ben")
    assert stages_run(ben.said) == []
    assert "up to date" in ben.said
    assert ben.outs() == team.published
    assert ben.dvc("status", "-q", check=False) == "" and ben.code == 0
    assert PASSWORD not in ben.git("log", "-p", "--all")
    assert len(team.bucket.files("dvc")) > 10


def test_queued_experiments_of_one_are_applied_by_another_and_their_rows_are_complete(
    ada: Member, join: Callable[[str], Member]
) -> None:
    ben = join("ben")
    queue, push = blocks("A day")[2:4]
    ben.follow(queue)
    Queue(ben).run_to_its_end(len(QUEUED))
    ben.follow(push)
    said = ada.follow(blocks("A day")[4])
    assert "other-seed" in said and stages_run(said) == []
    assert ada.outs() == ben.experiment_outs("other-seed")
    assert ada.run(sys.executable, "-m", "commands.cli", "ui", "--no-serve").startswith(
        "0 runs added"
    )
    for run, ran in zip(ada.tracked_runs(*QUEUED), QUEUED.values(), strict=True):
        assert_complete(run, steps=STEPS)
        assert run["tags"]["stage.train"] == ran


def test_who_shares_a_cache_has_what_others_pulled_or_computed(
    team: Team, ada: Member, tmp_path: Path
) -> None:
    made, used, have = blocks("One machine: a shared cache")
    emil, fay = (Member(team, tmp_path / name, {}) for name in ("emil", "fay"))
    for clone in (emil, fay):
        clone.folder.mkdir()
        clone.run("git", "clone", "--quiet", str(team.origin), ".")
    emil.follow(made)
    emil.follow(used)
    # Neither has keys of the bucket: one takes all from the folder, the other from the cache.
    emil.follow("dvc remote add folder /srv/repro-gpt/dvc && dvc pull --remote folder")
    fay.follow(used)
    fay.follow(have)
    first, second = (clone.folder / "data/tokens/val.npy" for clone in (emil, fay))
    assert first.samefile(second), "its bytes are there once"
    modes = [path.stat().st_mode for path in (team.shared / "cache/files").rglob("*")]
    assert modes and all(mode & 0o040 for mode in modes), "the group may read"
    words = ["exp", "run", "-S", "tokenizer.kind=byte", "-S", "runtime.tracking=false", "tokenize"]
    assert stages_run(emil.dvc(*words)) == ["tokenize"]
    assert stages_run(fay.dvc(*words)) == []
    assert fay.outs() == emil.outs()


# --- rows -----------------------------------------------------------------------------------------


def test_a_row_of_the_server_is_the_row_that_a_file_would_hold(
    team: Team, ada: Member, join: Callable[[str], Member]
) -> None:
    alone = join("alone")
    alone.exported = {}
    alone.dvc("repro", "--force")
    assert alone.outs() == team.published
    (here,), (there,) = tracked_runs(alone), ada.tracked_runs(None)
    for run in (here, there):
        assert_complete(run, steps=STEPS)
        times = [name for name in run["metrics"] if name.startswith(("time/", "system/"))]
        assert "time/train_s" in times
        for name in times:
            del run["metrics"][name]
        note, commit = run["tags"]["mlflow.note.content"], run["tags"]["mlflow.source.git.commit"]
        run["tags"]["mlflow.note.content"] = note.replace(commit[:12], "COMMIT")
        for tag in ("execution", "mlflow.source.git.commit", "clone"):
            run["tags"].pop(tag, None)
        run["files"].sort()
        run["artifacts"] = run["artifacts"].partition(":")[0]
    assert (here.pop("artifacts"), there.pop("artifacts")) == ("file", "mlflow-artifacts")
    assert here == there
    # The artifacts went through the server into the bucket: members have no keys for it.
    (samples,) = [key for key in team.bucket.files("mlflow") if key.endswith("/samples.md")][:1]
    body = team.bucket.client().get_object(Bucket=BUCKET, Key=samples)["Body"].read()
    assert body.startswith(b"#")


def test_a_server_lost_while_training_costs_no_bit_and_its_rows_are_completed_later(
    team: Team, join: Callable[[str], Member]
) -> None:
    gus = join("gus")
    gus.exported |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}  # in place of ten
    words = ("--force", "--downstream", "--name", "lost", "train")
    running = gus.start("dvc", "exp", "run", *words)
    assert running.stdout is not None
    said = ""
    try:
        wait_for(lambda: list(gus.folder.glob(".cache/train/*/step_*")))
        team.tracking.signal(signal.SIGSTOP)  # it takes calls and answers none
        assert 0 < saved_step(next(gus.folder.glob(".cache/train/*/"))) < STEPS
        while "tracking: " not in said:
            said += running.stdout.readline()
        team.tracking.stop()  # and now nobody is there
        said += running.communicate(timeout=300)[0]
    finally:
        running.kill()
        running.communicate()
        team.tracking.stop()
        team.database.stop()
        team.database.serve()
        team.track()
    assert running.returncode == 0 and "Traceback" not in said
    lines = [line for line in said.splitlines() if "tracking: " in line]
    # Of train, evaluate and sample.
    assert lines == team.here(blocks("When the server is gone")[0]).splitlines() * 3, said
    assert gus.experiment_outs("lost") == team.published

    gus.follow(blocks("When the server is gone")[1])
    (run,) = gus.tracked_runs("lost")
    assert_complete(run, timed=False, steps=STEPS)


def test_a_backup_holds_every_row(team: Team, ada: Member) -> None:
    assert ada.tracked_runs(None)
    backup = team.here("\n".join(blocks("Backups")))
    team.database.tool("sh", "-e", "-c", backup)
    question = "select count(*), sum(step), max(run_uuid) from metrics"
    answers = [
        team.database.tool("psql", "-At", "-c", question, name)
        for name in ("mlflow", "mlflow_again")
    ]
    assert answers[0] == answers[1] != "0||\n"
