"""Stage `prepare`: get the text, check it, split it.  python -m stages.prepare

Reads the params `data`, and a download or `data.path`. Writes data/corpus and metrics/prepare.json.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from gpt.corpus import downloads, parallel, sources
from gpt.corpus.contamination import shared_ngrams
from gpt.corpus.manifest import CorpusWriter
from gpt.corpus.splitting import Filters, Split, split_corpus
from gpt.files import write_json
from repro import repository, run_stage
from repro.tracking.run import Run
from stages.params import CORPUS, MIRROR, PREPARE_METRICS, PROJECT, DataParams, Params


def source_of(corpus: str, data: DataParams) -> sources.Source:
    """The texts of one name in `data.corpus`."""
    cache, mirror = repository.scratch() / "downloads", repository.location(MIRROR)
    match corpus:
        case "verse":
            return sources.verse_plays(data.verse_bytes, data.seed)
        case "own":
            return sources.own_text(
                Path(data.path), data.sha256, files=data.files, column=data.column
            )
        case "shakespeare":
            return sources.single_text(downloads.fetch(sources.SHAKESPEARE, cache, mirror))
        case "names":
            return sources.name_list(downloads.fetch(sources.NAMES, cache, mirror))
        case "tinystories":
            return sources.stories(*fetched(sources.TINYSTORIES, data))
        case "openwebtext":
            return sources.tables(*fetched(sources.OPENWEBTEXT[: data.shards], data))
        case "fineweb_edu":
            return sources.tables(*fetched(sources.FINEWEB_EDU[: data.shards], data))
        case _:
            raise AssertionError(corpus)  # params.py knows them all


def together(splits: list[Split]) -> Split:
    """How several sources were split, as one."""
    left_out: Counter[str] = Counter()
    for split in splits:
        left_out.update(split.left_out)
    return Split(
        " and ".join(dict.fromkeys(split.by for split in splits)),
        sum(split.documents for split in splits),
        dict(left_out),
        any(split.capped for split in splits),
    )


def fetched(wanted: list[downloads.Download], data: DataParams) -> tuple[list[Path], str]:
    """Files of which no hash is pinned, and the one they have together, which is told once."""
    paths, sha256 = downloads.fetch_all(
        wanted, repository.scratch() / "downloads", repository.location(MIRROR), data.sha256
    )
    if data.sha256 is None:
        print(
            "the hash of these files is known from no other place; to be sure of the same ones "
            f"next time, put it into params.yaml:\n  sha256: {sha256}"
        )
    return paths, sha256


def prepare(params: Params, run: Run) -> None:
    data = params.data
    shortest, longest = data.length_range
    filters = Filters(shortest, longest, data.drop_duplicates, data.max_bytes)
    mixed = len(data.corpora) > 1
    found: dict[str, sources.Source] = {}
    splits: list[Split] = []
    with (
        CorpusWriter(CORPUS) as writer,
        tqdm(desc="prepare", unit="B", unit_scale=True, disable=None) as bar,
    ):

        def shown(written: int) -> None:
            bar.update(written)

        for corpus in data.corpora:
            found[corpus] = source_of(corpus, data)
            if mixed:
                writer.begin(corpus)
                found[corpus] = sources.named(corpus, found[corpus])
            splits.append(
                split_corpus(
                    found[corpus],
                    writer,
                    seed=data.seed,
                    val_fraction=data.val_fraction,
                    test_fraction=data.test_fraction,
                    filters=filters,
                    progress=shown,
                )
            )
        split = together(splits)
        facts: dict[str, Any] = {
            "corpus": data.corpus,
            "documents": split.documents,
            "split_by": split.by,
        }
        if mixed:
            facts["sources"] = {corpus: source.facts for corpus, source in found.items()}
            if data.weights:
                facts["weights"] = dict(zip(data.corpora, data.weights, strict=True))
        else:
            facts["source"] = found[data.corpus].facts
        # Said only where there is something to say.
        if split.left_out:
            facts["left_out"] = split.left_out
        if split.capped:
            facts["capped"] = True
        manifest = writer.finish(facts)
    numbers = {
        name: {key: value for key, value in counts.items() if key not in ("sha256", "shards")}
        for name, counts in manifest["splits"].items()
    }
    for name in ("val", "test"):
        shared = shared_ngrams(CORPUS, name, parallel.cores())
        if shared is not None:
            numbers[name]["ngrams_also_in_train"] = round(shared, 6)
    left_out = {"left_out": split.left_out} if split.left_out else {}
    write_json(PREPARE_METRICS, {**numbers, **left_out})

    total = sum(counts["bytes"] for counts in manifest["splits"].values())
    documents = "document" if split.documents == 1 else "documents"
    print(f"{data.corpus}: {total:,} bytes in {split.documents:,} {documents}, split {split.by}")
    if split.left_out:
        counted = ", ".join(f"{count:,} {why}" for why, count in sorted(split.left_out.items()))
        print(f"documents left out: {counted}")
    if split.capped:
        print(f"cut at data.max_bytes {data.max_bytes:,}; there is more of it")
    for name in ("val", "test"):
        counts = numbers[name]
        if also := counts["documents_also_in_train"]:
            print(
                f"{name}: {also:,} of {counts['documents']:,} documents also stand in train, "
                "so that its loss flatters the model"
            )
        if "ngrams_also_in_train" in counts:
            share = counts["ngrams_also_in_train"]
            print(f"{name}: {share:.1%} of its runs of eight words also stand in train")


if __name__ == "__main__":
    run_stage.main(PROJECT, "prepare", prepare)
