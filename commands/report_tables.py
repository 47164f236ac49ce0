"""The tables of `gpt report`: lists of rows, in the order in which the page shows them."""

import csv
from typing import Any

from commands import experiments
from commands.experiments import Experiment
from repro.lockfile import read_yaml
from repro.repository import WorkingFolder
from stages.params import BASELINES, RULES
from verse.metrics import RULES as PLAY_RULES

MAX_EXPERIMENTS = 30  # more help nobody; `gpt ui` has them all
# Of the scores; the others follow by name.
FIRST_SCORES = (
    *("bits_per_byte", "bits_per_byte_low", "bits_per_byte_high"),
    *("floor_bits_per_byte", "above_floor", "loss", "loss_blocks", "loss_crops"),
)
NOVELTY = {
    "distinct_1": "different words",
    "distinct_2": "different pairs of words",
    "rouge_2_train": "Rouge-2 with the nearest passage of train",
    "rouge_2_among": "Rouge-2 among samples",
}

Table = list[list[Any]]


def scores(metrics: dict[str, Any]) -> Table:
    """A row for each score, after a row of the splits' names."""
    splits = [split for split in ("val", "test", "train") if split in metrics]
    names = [name for name, value in metrics["val"].items() if not isinstance(value, dict)]
    names.sort(key=lambda name: FIRST_SCORES.index(name) if name in FIRST_SCORES else 99)
    values = [[_words(name), *(metrics[split].get(name, "") for split in splits)] for name in names]
    return [["", *splits], *values]


def baselines(metrics: dict[str, Any]) -> Table:
    """Bits per byte without a network, and the model's, from the highest down."""
    bits = {
        f"{name[-1]}-gram" if name.startswith("ngram_") else name: value
        for name, value in metrics[BASELINES].items()
    }
    bits["the model"] = metrics["val"]["bits_per_byte"]
    if "floor_bits_per_byte" in metrics["val"]:
        bits["the text's own information"] = metrics["val"]["floor_bits_per_byte"]
    return [[name, bits[name]] for name in sorted(bits, key=lambda name: -bits[name])]


def classes(metrics: dict[str, Any]) -> Table:
    """Loss by class of token, the highest first, and how frequent the class is."""
    by_class = metrics["val"]["by_class"].items()
    table = [[_words(name), stats["loss"], stats["share"]] for name, stats in by_class]
    return sorted(table, key=lambda row: -row[1])


def novelty(metrics: dict[str, Any]) -> Table:
    """How much of the samples is new, and of held-out text for comparison."""
    samples, held_out = metrics["novelty"], metrics["novelty"]["validation"]
    run = "longest_shared_run"
    return [
        ["longest run shared with train, characters", samples[run], held_out[run]],
        *(
            [f"new {int(n)}-grams of characters, fraction", new, held_out["new_ngrams"][n]]
            for n, new in samples["new_ngrams"].items()
            if int(n) % 4 == 0
        ),
        *([text, samples[name], ""] for name, text in NOVELTY.items()),
    ]


def rules(metrics: dict[str, Any]) -> Table:
    """For a model of `verse` how far it knows and keeps each rule of a play; else nothing.

    `metrics` are those of the evaluate stage.
    """
    try:
        lines = list(csv.DictReader(RULES.read_text(encoding="utf-8").splitlines()))
        counts = {(line["rule"], line["text"]): line for line in lines}
    except OSError:
        return []
    pairs = metrics.get("minimal_pairs", {})
    return [
        [
            f"{rule}: {meaning}",
            *(_kept(counts.get((rule, text), {})) for text in ("samples", "held_out", "ngram")),
            pairs.get(rule, ""),
        ]
        for rule, meaning in PLAY_RULES.items()
    ]


def _kept(line: dict[str, str]) -> str:
    kept, cases = int(line.get("kept", 0)), int(line.get("cases", 0))
    return f"{kept / cases:.3f} of {cases:,}" if cases else ""


def params(result: Experiment) -> Table:
    """Every key, its value with the preset filled in, and whether params.yaml overrides it."""
    changed = result.params.resolved()[2]
    overridden = {f"{section}.{key}" for section in ("model", "train") for key in changed}
    return [
        [key, "" if value is None else str(value), "overridden" * (key in overridden)]
        for key, value in result.params.flat().items()
    ]


def experiments_on_the_same_text(result: Experiment) -> Table:
    """DVC's experiments on the same text, the best first: name, bits per byte, what differs."""
    setting = result.setting()
    table: Table = []
    for experiment in experiments.read_finished():
        theirs = experiment.setting()
        changed = {k: theirs.get(k) for k in setting if theirs.get(k) != setting[k]}
        same_text = not any(key.startswith("data.") for key in changed)
        if same_text and experiment.name != experiments.WORKSPACE:
            changes = [f"{key.rpartition('.')[2]}={value}" for key, value in changed.items()]
            changes.append(f"seed={experiment.params.seed}")
            table.append([experiment.name, experiment.bits_per_byte, ", ".join(changes)])
    return sorted(table, key=lambda row: row[1])[:MAX_EXPERIMENTS]


def lineage() -> Table:
    """For each stage what it read and wrote, by the first digits of DVC's hashes."""

    def listed(entries: list[dict[str, str]]) -> str:
        return ", ".join(f"{entry['path']} {entry['md5'][:8]}" for entry in entries)

    table = []
    for name, stage in (read_yaml(WorkingFolder(), "dvc.lock").get("stages") or {}).items():
        deps, outs = stage.get("deps") or [], stage.get("outs") or []
        data = [entry for entry in deps if not entry["path"].endswith(".py")]
        reads = f"{listed(data)}{', ' * bool(data)}{len(deps) - len(data)} code files"
        table.append([name, reads, listed(outs)])
    return table


def _words(name: str) -> str:
    return name.replace("_", " ")
