"""A small corpus: a source of texts in memory, split, written, and read back."""

from pathlib import Path
from typing import Any

from gpt.corpus.manifest import SPLITS, read_chunks
from gpt.corpus.readers import in_memory
from gpt.corpus.sources import Source
from gpt.corpus.splitting import Filters, split_corpus
from gpt.corpus.writer import CorpusWriter

Chunks = dict[str, list[tuple[str, str]]]


def source_of(*texts: str) -> Source:
    """A source of `texts`, named by their index."""
    documents = [in_memory(str(n), text) for n, text in enumerate(texts)]
    return Source(len(texts), lambda: iter(documents))


def written(folder: Path, source: Source, **options: Any) -> Chunks:
    """`source` split and written to `folder`, then read back as {split: [(doc, chunk), ...]}."""
    filters = {name: options.pop(name) for name in list(options) if hasattr(Filters, name)}
    settings = {"seed": 0, "val_fraction": 0.1, "test_fraction": 0.0} | options
    with CorpusWriter(folder) as writer:
        stats = split_corpus(source, writer, filters=Filters(**filters), **settings)
        writer.finish({"documents": stats.documents, "left_out": stats.left_out})
    return {split: list(read_chunks(folder, split)) for split in SPLITS}


def joined(chunks: list[tuple[str, str]]) -> str:
    return "".join(text for _, text in chunks)
