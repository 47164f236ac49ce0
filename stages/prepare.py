"""Stage `prepare`: get the text, check it, split it.  python -m stages.prepare

Reads the params `data`, and a download or `data.path`. Writes data/corpus and metrics/prepare.json.
"""

from pathlib import Path

from tqdm import tqdm

from gpt import sources
from gpt.corpus import CorpusWriter, write_json
from stages import stage, workspace
from stages.params import DataParams, Params
from stages.tracking import Row

CORPUS = Path("data/corpus")


def source_of(data: DataParams) -> sources.Source:
    """The texts that `data.corpus` names."""
    if data.corpus == "verse":
        return sources.verse_plays(data.verse_bytes, data.seed)
    if data.corpus == "own":
        return sources.own_text(Path(data.path), data.sha256)
    downloads = workspace.scratch() / "downloads"
    if data.corpus == "shakespeare":
        return sources.single_text(
            sources.fetch(sources.SHAKESPEARE, downloads, workspace.mirror())
        )
    return sources.name_list(sources.fetch(sources.NAMES, downloads, workspace.mirror()))


def prepare(params: Params, row: Row) -> None:
    data = params.data
    source = source_of(data)
    with (
        CorpusWriter(CORPUS) as writer,
        tqdm(desc="prepare", unit="B", unit_scale=True, disable=None) as bar,
    ):

        def shown(written: int) -> None:
            bar.update(written)

        split_by = sources.split_corpus(
            source,
            writer,
            seed=data.seed,
            val_fraction=data.val_fraction,
            test_fraction=data.test_fraction,
            max_bytes=data.max_bytes,
            progress=shown,
        )
        manifest = writer.finish(
            {
                "corpus": data.corpus,
                "documents": source.count,
                "split_by": split_by,
                "source": source.facts,
            }
        )
    numbers = {
        split: {key: value for key, value in counts.items() if key != "sha256"}
        for split, counts in manifest["splits"].items()
    }
    write_json(Path("metrics/prepare.json"), numbers)
    total = sum(counts["bytes"] for counts in manifest["splits"].values())
    documents = "document" if source.count == 1 else "documents"
    print(f"{data.corpus}: {total:,} bytes in {source.count:,} {documents}, split {split_by}")
    for split in ("val", "test"):
        counts = manifest["splits"][split]
        if also := counts["documents_also_in_train"]:
            print(
                f"{split}: {also:,} of {counts['documents']:,} documents also stand in train, "
                "so that its loss flatters the model"
            )


if __name__ == "__main__":
    stage.main("prepare", prepare)
