"""`gpt ui`: adds the runs that MLflow lacks, then opens its pages on this machine alone."""

import os
import socket
import subprocess
import sys
from typing import Annotated, NoReturn

import typer

from commands.root import at_root, fail
from repro.tracking.backfill import backfill_runs
from repro.tracking.run import reason
from repro.tracking.store import Store
from stages.params import PROJECT

HOST = "127.0.0.1"

app = typer.Typer(add_completion=False)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Where to serve; 0 takes a free one.")] = 5000,
    serve: Annotated[bool, typer.Option(help="Open the pages, or only add runs.")] = True,
) -> None:
    """Compare runs: one run per experiment, in MLflow's own pages."""
    environment = dict(os.environ)  # before Store quiets MLflow for this process
    with at_root():
        # Before the seconds that MLflow takes.
        port = _free_port(port) if serve else port
        try:
            store = Store(PROJECT)
            added = backfill_runs(PROJECT, store)
        except Exception as error:
            fail(f"the tracking store cannot be used: {reason(error)}")
        print(f"{added} {'run' if added == 1 else 'runs'} added")
        if not serve:
            return
        page = store.page()
        if store.uri.startswith(("http:", "https:")):
            print(f"served at {store.uri.rstrip('/')}{page}")
            return
        print(f"http://{HOST}:{port}{page}\nit takes a few seconds; Ctrl+C stops it", flush=True)
        _serve(store.uri, port, environment)


def _free_port(port: int) -> int:
    """The port, once nothing else listens there."""
    with socket.socket() as probe:
        # As the server itself does, so that a port just left by another does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OverflowError:
            fail(f"--port {port}: not a port; use 1024 to 65535, or 0 for a free one")
        except OSError as error:
            fail(f"--port {port}: {error.strerror}; take a free one: gpt ui --port 0")
        return int(probe.getsockname()[1])


def _serve(uri: str, port: int, environment: dict[str, str]) -> NoReturn:
    """Becomes MLflow's server: 2 processes and 0.5 GB; by default they are 15 and 1.8 GB."""
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    environment["MLFLOW_DISABLE_TELEMETRY"] = "true"
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    sys.stdout.flush()
    if sys.platform == "win32":
        # execve would give the prompt back while the server starts in the background.
        raise typer.Exit(subprocess.call(command, env=environment))
    os.execve(command[0], command, environment)  # noqa: S606 (our own Python, a fixed command)
