"""Stage `prepare`: get the text, check it, split it.  python -m stages.prepare

Reads the params `data`, and a download or `data.path`. Writes data/corpus and metrics/prepare.json.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt.corpus import downloads, parallel
from gpt.corpus.contamination import shared_ngrams
from gpt.corpus.readers import Document, in_memory
from gpt.corpus.sources import Source, name_list, own_text, single_text, stories, tables
from gpt.corpus.splitting import Filters, write_corpus
from gpt.files import write_json
from repro import repository, run_stage
from repro.tracking.run import Run
from stages.params import CORPUS, MIRROR, PREPARE_METRICS, PROJECT, DataParams, Params
from verse.play import PLAY_BYTES, write_play


def make_source(corpus: str, data: DataParams) -> Source:
    """Returns the texts of one name in `data.corpus`."""
    cache, mirror = repository.scratch() / "downloads", repository.location(MIRROR)
    match corpus:
        case "verse":
            return verse_plays(data.verse_bytes, data.seed)
        case "own":
            repository.refuse_repository_inside(Path(data.path))
            form = {"files": data.files, "column": data.column, "encoding": data.encoding}
            return own_text(Path(data.path), data.sha256, **form)
        case "shakespeare":
            return single_text(downloads.fetch(downloads.SHAKESPEARE, cache, mirror))
        case "names":
            return name_list(downloads.fetch(downloads.NAMES, cache, mirror))
        case "tinystories":
            return stories(*fetch_all(downloads.TINYSTORIES, data))
        case _:
            return tables(*fetch_all(downloads.TABLES[corpus][: data.shards], data))


def verse_plays(size: int, seed: int) -> Source:
    """Returns plays of about `size` bytes together.

    Their number does not depend on what they say: otherwise the text would carry information that
    information_bits does not count.
    """
    count = max(2, round(size / PLAY_BYTES))

    def documents() -> Iterator[Document]:
        for index in range(count):
            play = write_play(seed, index)
            yield in_memory(f"play-{index}", play.text, play.information_bits)

    return Source(count, documents, {"seed": seed})


def fetch_all(files: list[downloads.HubFile], data: DataParams) -> tuple[list[Path], str]:
    """Downloads files that have no pinned hash; prints the one to pin."""
    cache = repository.scratch() / "downloads"
    paths, sha256 = downloads.fetch_all(files, cache, repository.location(MIRROR), data.sha256)
    if data.sha256 is None:
        print(
            "no hash of these files is pinned; to be sure of the same bytes next time, add to "
            f"params.yaml, under data:\n  sha256: {sha256}"
        )
    return paths, sha256


def prepare(params: Params, run: Run) -> None:
    data = params.data
    sources = {corpus: make_source(corpus, data) for corpus in data.corpora}
    with tqdm(desc="prepare", unit="B", unit_scale=True, disable=None) as bar:
        manifest = write_corpus(
            CORPUS,
            sources,
            weights=data.weights,
            seed=data.seed,
            val_fraction=data.val_fraction,
            test_fraction=data.test_fraction,
            filters=Filters(data.drop_duplicates, data.max_bytes),
            progress=bar.update,
        )
    metrics = {
        name: {key: value for key, value in counts.items() if key not in ("sha256", "shards")}
        for name, counts in manifest["splits"].items()
    }
    for name in ("val", "test"):
        fraction = shared_ngrams(CORPUS, name, parallel.cores())
        if fraction is not None:
            metrics[name]["ngrams_also_in_train"] = round(fraction, 6)
    left_out = {"left_out": manifest["left_out"]} if "left_out" in manifest else {}
    write_json(PREPARE_METRICS, metrics | left_out)
    print_summary(manifest, metrics)


def print_summary(manifest: dict[str, Any], metrics: dict[str, dict[str, Any]]) -> None:
    size = sum(counts["bytes"] for counts in metrics.values())
    documents, split_by = manifest["documents"], manifest["split_by"]
    print(f"{manifest['corpus']}: {size:,} bytes, documents: {documents:,}, split: {split_by}")
    if left_out := manifest.get("left_out"):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(left_out.items()))
        print(f"documents left out: {reasons}")
    if manifest.get("capped"):
        print("cut at data.max_bytes; there is more text")
    for name in ("val", "test"):
        counts = metrics[name]
        if also := counts["documents_also_in_train"]:
            print(
                f"{name}: {also:,} of {counts['documents']:,} documents are also in train, "
                "so its loss flatters the model"
            )
        if (fraction := counts.get("ngrams_also_in_train")) is not None:
            print(f"{name}: {fraction:.1%} of its 8-grams of words are also in train")


if __name__ == "__main__":
    run_stage.main(PROJECT, "prepare", prepare)
