"""Defects to plant: a line of the code, and what it would say if somebody had got it wrong.

A test of a fault names the defect that it must catch: `@pytest.mark.fault(6, planted=STATE_HASH)`.
`pytest -m fault --planted` plants each defect in a copy of the repository, runs the tests that name
it there, and passes where every one of them fails (tests/conftest.py).
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Defect:
    """`right` stands once in `file`, and `wrong` takes its place."""

    file: str
    right: str
    wrong: str

    def plant(self, repository: Path) -> None:
        path = repository / self.file
        text = path.read_text(encoding="utf-8")
        count = text.count(self.right)
        assert count == 1, (
            f"{self.file} holds {self.right!r} {count} times, not once: update planted.py"
        )
        path.write_text(text.replace(self.right, self.wrong), encoding="utf-8")


CHECKPOINT, STATE, TRAINER = "gpt/checkpoint.py", "gpt/training_state.py", "gpt/trainer.py"
SOURCES, PARAMS = "gpt/corpus/sources.py", "repro/params.py"
DOWNLOADS, TEXTS, SPLITTING = (
    "gpt/corpus/downloads.py",
    "gpt/corpus/text_files.py",
    "gpt/corpus/splitting.py",
)

# --- killed and out of room
MOMENTS_FORGOTTEN = Defect(
    TRAINER, 'optimizer.load_state_dict({**optimizer.state_dict(), "state": state})', "pass"
)
SAVED_IN_PLACE = Defect(
    STATE,
    "            temporary.rename(final)\n",
    "            shutil.copytree(temporary, final)\n",
)
LEFTOVERS_STAY = Defect(
    STATE,
    'for leftover in (*self.folder.glob(".writing-*"), self._done):',
    "for leftover in ():",
)
NOT_SAVED_AT_A_SIGNAL = Defect(STATE, "if due or stop:", "if due:")
SECOND_SIGNAL_WAITS = Defect(
    "repro/signals.py", "if caught and number == signal.SIGINT:", "if False:"
)
NO_LOCK = Defect(STATE, "self._lock.acquire(timeout=0)", "pass")
SAVE_FAULT_ESCAPES = Defect(
    STATE,
    "except (OSError, SafetensorError) as error:\n            shutil.rmtree(temporary",
    "except ZeroDivisionError as error:\n            shutil.rmtree(temporary",
)
MODEL_FAULT_ESCAPES = Defect(
    CHECKPOINT,
    "except (OSError, SafetensorError) as error:\n        raise CheckpointError(\n",
    "except ZeroDivisionError as error:\n        raise CheckpointError(\n",
)
DISK_FAULT_ESCAPES = Defect("repro/run_stage.py", "if error.errno not in ADVICE:", "if True:")
STATE_HASH_UNCHECKED = Defect(
    STATE, 'if sha256_of(folder / name) != manifest["sha256"][name]:', "if False:"
)
DAMAGED_CROWD_OUT = Defect(
    STATE,
    "good = [saved for saved in self._saved() if saved <= final]",
    "good = self._saved()",
)
CONFIGURATION_IGNORED = Defect(
    CHECKPOINT,
    'inputs = self.model_dump(exclude={"weights_sha256": True, "train": elastic})',
    'inputs = self.model_dump(exclude={"weights_sha256", "train", "tokenizer_sha256", "data"})',
)
FORMAT_IGNORED = Defect(STATE, 'if manifest["format"] != FORMAT:', "if False:")
NEWEST_BY_TIME = Defect(
    STATE,
    'sorted(self.folder.glob("step_*"), reverse=True)',
    'sorted(self.folder.glob("step_*"), key=lambda path: -path.stat().st_mtime)',
)

# --- training
NOT_FINITE_CONTINUES = Defect(
    TRAINER, "if not (math.isfinite(loss) and math.isfinite(norm)):", "if False:"
)
VALIDATION_NOT_FINITE_CONTINUES = Defect(TRAINER, "if not math.isfinite(val_loss):", "if False:")
DROPOUT_UNSEEDED = Defect(TRAINER, "if self.model.config.dropout:", "if False:")
EVALUATION_CHANGES_WEIGHTS = Defect(
    TRAINER,
    "        self.model.train()\n        return math.fsum",
    "        self.model.train()\n        self.model.norm.weight += 1e-3\n        return math.fsum",
)
OUT_OF_MEMORY_ESCAPES = Defect(
    "gpt/device.py",
    "except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:",
    "except ZeroDivisionError as error:",
)

# --- the tracking store
TRACKING_STOPS_THE_STAGE = Defect(
    "repro/tracking/run.py",
    "except Exception as error:\n            self._stage = None",
    "except ZeroDivisionError as error:\n            self._stage = None",
)
LOST_STAGES_STAY_LOST = Defect(
    "repro/tracking/backfill.py", "if lost or not commit:", "if not commit:"
)
CACHE_TRUSTED = Defect("gpt/corpus/manifest.py", "    if actual != expected:\n", "    if False:\n")

# --- data
DOWNLOAD_UNCHECKED = Defect(DOWNLOADS, "if sha256_of(partial) != download.sha256:", "if False:")
ERROR_PAGE_TAKEN = Defect(DOWNLOADS, '== "text/html"', '== "text/htmlx"')
ARRIVAL_FORGOTTEN = Defect(DOWNLOADS, "if _is_intact(path):", "if True:")
STATED_HASH_UNCHECKED = Defect(
    DOWNLOADS, "if sha256 is not None and actual != sha256:", "if False:"
)
NO_TIMEOUT = Defect(DOWNLOADS, "timeout=TIMEOUT", "timeout=30")
MIRROR_TRUSTED = Defect(DOWNLOADS, "if sha256_of(mirrored) != download.sha256:", "if False:")
EMPTY_TEXT_TAKEN = Defect(SPLITTING, "    if not split.has_text:\n", "    if False:\n")
LINE_BREAKS_CHANGED = Defect(
    TEXTS,
    "text = decoder.decode(block, final=not block)",
    'text = decoder.decode(block, final=not block).replace("\\r\\n", "\\n")',
)
LINKS_FOLLOWED = Defect(SOURCES, "if real in seen:", "if False:")
CORPUS_UNCHECKED = Defect(
    "gpt/corpus/manifest.py", "if digest.hexdigest() != shard.sha256:", "if False:"
)
EXACT_TEXT_REFUSED = Defect(
    "gpt/batches.py", "if source.tokens < block_size + 1:", "if source.tokens <= block_size + 1:"
)
BOM_KEPT = Defect(TEXTS, r'text, is_first = text.removeprefix("\ufeff"), False', "pass")
WRONG_BYTE_NAMED = Defect(
    TEXTS, 'at = offset - pending + getattr(error, "start", 0)', 'at = getattr(error, "start", 0)'
)
LOCALE_OBEYED = Defect(
    PARAMS,
    'return Path(file).read_text(encoding="utf-8")',
    "return Path(file).read_text()",
)
UNREADABLE_FOLDER_PASSED_BY = Defect(
    SOURCES, "os.walk(waiting.pop(0), onerror=refuse)", "os.walk(waiting.pop(0), onerror=None)"
)
SHORT_TEXT_TAKEN = Defect(
    "gpt/batches.py", "if source.tokens < block_size + 1:", "if source.tokens < block_size:"
)
ID_TOO_LARGE_TAKEN = Defect(
    "gpt/batches.py", "int(ids.max()) >= vocab_size", "int(ids.max()) > vocab_size"
)
ANY_TOKEN_DTYPE_TAKEN = Defect(
    "gpt/batches.py", "ids.dtype not in (np.uint16, np.uint32)", "ids.dtype == np.bool_"
)
DUPLICATES_HIDDEN = Defect("gpt/corpus/writer.py", "int(duplicates.sum())", "0")
OUTPUT_NAMED_BY_PARAMS = Defect("dvc.yaml", "      - data/samples\n", "      - ${sample.stop}\n")

# --- params
UNKNOWN_KEY_TAKEN = Defect("gpt/config.py", 'extra="forbid"', 'extra="ignore"')
COERCED = Defect("gpt/config.py", "strict=True", "strict=False")
NOT_FINITE_TAKEN = Defect("gpt/config.py", "allow_inf_nan=False", "allow_inf_nan=True")
DUPLICATE_KEY_TAKEN = Defect(PARAMS, "if not fault and key in keys:", "if False:")
HEADS_UNCHECKED = Defect("gpt/config.py", "if self.n_embd % multiple:", "if False:")
TAGS_RUN = Defect(PARAMS, "class Yaml12(yaml.SafeLoader):", "class Yaml12(yaml.UnsafeLoader):")

# --- models
MODEL_HASH_UNCHECKED = Defect(CHECKPOINT, "if sha256_of(path) != expected:", "if False:")
VOCABULARY_UNCHECKED = Defect(
    CHECKPOINT, "if tokenizer.vocab_size != run_config.vocab_size:", "if False:"
)
SHAPES_UNCHECKED = Defect(CHECKPOINT, "if stored != expected:", "if False:")

# --- security
FILES_STEER_TERMINALS = Defect(
    "gpt/errors.py", "c if c.isprintable() else ascii(c)[1:-1] for c in message", "message"
)
WEIGHTS_UNPICKLED = Defect(
    CHECKPOINT,
    "_check_hash(weights, run_config.weights_sha256)",
    "torch.load(weights, weights_only=False)",
)
PICKLED_TOKENS_RUN = Defect("gpt/batches.py", "allow_pickle=False", "allow_pickle=True")
SERVED_TO_ALL = Defect("commands/runs.py", 'HOST = "127.0.0.1"', 'HOST = "0.0.0.0"')
ENVIRONMENT_RECORDED = Defect(
    "repro/tracking/tags.py",
    'tags = {"host": platform.node(),',
    'tags = {"user": os.environ.get("USER", ""), "host": platform.node(),',
)
TELEMETRY_ON = Defect("repro/tracking/store.py", '"MLFLOW_DISABLE_TELEMETRY": "true",', "")
SOCKETS_OPEN = Defect("tests/conftest.py", "    disable_socket(allow_unix_socket=True)\n", "")

NAMES = {value: name for name, value in list(globals().items()) if isinstance(value, Defect)}
