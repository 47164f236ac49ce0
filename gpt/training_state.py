"""The states from which a killed training resumes.

    run_config_of      what a training is: states of an equal one are resumed from
    CheckpointStore    one training's states on disk, each complete or refused, under a lock
    CheckpointManager  saves a Trainer's state at intervals and at a stop, restores the newest

A state is a folder step_00000250 of state.safetensors and state.json, with the sha256 of both in
manifest.json. It is written under another name, synced and renamed, so that only a complete one has
its final name; a damaged one is recognized by its hash.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from gpt.checkpoint import RunConfig, code_sha256
from gpt.errors import CheckpointError, DataError
from gpt.files import flattened, read_json, sha256_of, write_json
from gpt.trainer import Callback, StepStats, Trainer

FORMAT = 1
KEPT_STATES = 2
PRINT_NOW = partial(print, flush=True)  # who reads a pipe must see why nothing happens
STATE_FILES = ("state.safetensors", "state.json")
# What reading a damaged state raises.
READ_ERRORS = OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError
# In a folder of states: the RunConfig that they belong to.
RUN_CONFIG = "config.json"


class Stopped(Exception):
    """The training was asked to stop; its state is saved, and the same command resumes it."""


class CheckpointStore:
    """The saved states of one training, in a folder of their own; use it as a context manager.

    A lock keeps a second training out: two on one folder would overwrite each other's states. With
    `stop`, the list that a signal handler fills, the second waits and resumes from what the first
    leaves; without it the second is refused.
    """

    def __init__(
        self,
        folder: Path,
        warn: Callable[[str], None] = PRINT_NOW,
        stop: Sequence[str] | None = None,
    ) -> None:
        self.folder, self._warn, self._stop = folder, warn, stop
        # Outside the folder, so that removing the folder leaves the lock in place.
        self._lock = FileLock(folder.with_suffix(".lock"))
        self._owner = folder.with_suffix(".pid")
        self._done = folder.with_suffix(".done")
        # Somebody waits for these states.
        self._waiting = folder.with_suffix(".waiting")

    def __enter__(self) -> "CheckpointStore":
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._acquire_lock()
            self._waiting.unlink(missing_ok=True)
            self._owner.write_text(str(os.getpid()), encoding="utf-8", newline="\n")
            self.folder.mkdir(exist_ok=True)
            for leftover in (*self.folder.glob(".writing-*"), self._done):
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError as error:
            self._lock.release()
            raise CheckpointError(
                f"{self.folder}: training states cannot be written here ({error.strerror}); "
                "free disk space, or make the folder writable"
            ) from None
        return self

    def _acquire_lock(self) -> None:
        try:
            self._lock.acquire(timeout=0)
            return
        except Timeout:
            owner = self._owner.read_text(encoding="utf-8") if self._owner.exists() else "unknown"
            running = f"{self.folder}: the same training is already running as process {owner}"
        if self._stop is None:
            raise CheckpointError(f"{running}; wait for it, or end it")
        self._warn(f"{running}; waiting until it ends")
        try:
            self._lock.acquire(poll_interval=0.1, cancel_check=self._asked_to_stop)
        except Timeout:
            raise Stopped(f"{self._stop[0]} while waiting; run the same command again") from None

    def _asked_to_stop(self) -> bool:
        # Again and again: of several that wait, one takes the mark away and lets the others wait.
        self._waiting.touch()
        return bool(self._stop)

    def __exit__(self, *_: object) -> None:
        self._owner.unlink(missing_ok=True)
        self._lock.release()

    def save(self, step: int, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Writes the state after `step` updates and deletes the oldest ones.

        Raises CheckpointError where it cannot be written; earlier states stay as they are.
        """
        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".writing-{os.getpid()}"
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            save_file(tensors, temporary / "state.safetensors")
            write_json(temporary / "state.json", metadata)
            hashes = {name: sha256_of(temporary / name) for name in STATE_FILES}
            write_json(temporary / "manifest.json", {"format": FORMAT, "sha256": hashes})
            for path in (*temporary.iterdir(), temporary):
                _sync(path)
            if final.exists():
                shutil.rmtree(final)
            temporary.rename(final)
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(
                f"{final}: could not be written ({error}); the state before it is kept"
            ) from None
        # States of later steps are damaged, or the training would have resumed from them.
        good = [saved for saved in self._saved() if saved <= final]
        for old in {*self._saved()} - {*good[:KEPT_STATES]}:
            shutil.rmtree(old)

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest complete state, or None. A damaged one is named in a warning and skipped."""
        for folder in self._saved():
            try:
                manifest = json.loads((folder / "manifest.json").read_bytes())
                if manifest["format"] != FORMAT:
                    raise ValueError("is of another format")
                for name in STATE_FILES:
                    if sha256_of(folder / name) != manifest["sha256"][name]:
                        raise ValueError(f"{name} is not as it was written")
                metadata = json.loads((folder / "state.json").read_bytes())
                tensors = load_file(folder / "state.safetensors")
                # Copies: tensors mapped to the file would keep Windows from deleting it.
                return {name: tensor.clone() for name, tensor in tensors.items()}, metadata
            except READ_ERRORS as error:
                self._warn(f"{folder}: not used, {error}")
        return None

    def remove(self) -> None:
        """Deletes the states, unless another process waits for them; the training is done."""
        if self._waiting.exists():
            return
        # Renamed first: a kill meanwhile must not leave half-deleted states under their names.
        self.folder.rename(self._done)
        shutil.rmtree(self._done)

    def _saved(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"), reverse=True)


@dataclass
class CheckpointManager(Callback):
    """Saves the trainer's state at intervals and at a stop.

    Register it as the last callback, so that it saves what the others have counted. Once `stop` has
    an entry, as a signal handler writes, it saves the state after the update and raises Stopped.
    The main process reads and writes; the others have no `store` and are sent what it read.
    """

    trainer: Trainer
    store: CheckpointStore | None
    run_config: RunConfig
    every_steps: int
    every_seconds: int
    stop: Sequence[str]
    _saved_at: float = field(default_factory=time.monotonic)

    def restore_latest(self) -> None:
        """Resumes from the newest state, in every process, and says so; or says why not."""
        store = self.store
        state = self.trainer.broadcast(store.latest() if store else None)
        if state is not None:
            self.trainer.load_state(*state)
            print(f"resuming from step {self.trainer.progress.step}")
        elif store and (difference := difference_to_others(store.folder, self.run_config)):
            print(difference)
        if store:
            write_json(store.folder / RUN_CONFIG, self.run_config.model_dump())

    def on_step_end(self, trainer: Trainer, stats: StepStats) -> None:
        step = trainer.progress.step
        due = bool(self.every_steps) and step % self.every_steps == 0
        due |= 0 < self.every_seconds <= time.monotonic() - self._saved_at
        # Signals and clocks are each process's own, and all have to stop and save at one step.
        due, stop = trainer.any_process([due, bool(self.stop)])
        if due or stop:
            state = trainer.state()
            if self.store:
                self.store.save(step, *state)
            self._saved_at = time.monotonic()
        if stop:
            reason = self.stop[0] if self.stop else "stopped with another process"
            raise Stopped(
                f"{reason} after step {step}, state saved; run the same command to resume"
            )


def run_config_of(
    trainer: Trainer,
    tokens: dict[str, Any],
    tokenizer_file: Path,
    code: Iterable[Path],
    pretrained: Path | None,
) -> RunConfig:
    """What the weights of `trainer` will depend on; `tokens` is their manifest, tokens.json."""
    hashes = {split: metadata["sha256"] for split, metadata in tokens["splits"].items()}
    return RunConfig(
        model=trainer.model.config,
        vocab_size=trainer.model.vocab_size,
        train=trainer.config,
        seed=trainer.seed,
        data={"corpus": tokens["corpus"], **hashes},
        code_sha256=code_sha256(code),
        device=trainer.device,
        tokenizer_sha256=sha256_of(tokenizer_file),
        pretrained_sha256=sha256_of(pretrained) if pretrained else "",
    )


def difference_to_others(folder: Path, run_config: RunConfig) -> str:
    """Why the states of other trainings stay unused, in a line; "" where there are none.

    Names one difference to the training that differs least. A setting says more than the hash of a
    file that changed with it. Damaged states in `folder` itself were named when they were read.
    """
    mine = flattened(run_config.model_dump())
    others: list[tuple[list[str], Path]] = []
    for file in folder.parent.glob(f"*/{RUN_CONFIG}"):
        if file.parent != folder and any(file.parent.glob("step_*")):
            try:
                theirs = flattened(read_json(file))
            except DataError:
                theirs = {}  # damaged: everything differs
            differences = [
                f"{key} is {mine.get(key)!s:.16}, and was {theirs.get(key)!s:.16}"
                for key in sorted(mine | theirs, key=lambda key: ("sha256" in key, key))
                if mine.get(key) != theirs.get(key)
            ]
            others.append((differences, file.parent))
    if not others:
        return ""
    differences, nearest = min(others, key=lambda training: (len(training[0]), training[1]))
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    return f"a new training: {differences[0]}{more} in the states in {nearest}, which stay there"


def _sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to disk.

    Windows opens no folders, and syncs no file that is open for reading.
    """
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
