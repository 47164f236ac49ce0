"""Where texts come from: written on the spot, downloaded, or the user's own.

A `Source` is a number of documents that can be read more than once, in parts. `prepare` splits one
into training, validation and test and writes it as a corpus. Nothing here holds more than a part
of a document in memory, except lists of names.
"""

import codecs
import hashlib
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt import verse
from gpt.corpus import CorpusWriter
from gpt.errors import DataError

TEXT_SUFFIXES = (".txt", ".md")
READ_BYTES = 2**18
TIMEOUT = 30  # seconds that a server may stay silent


@dataclass(frozen=True)
class Document:
    """One text: its name, a way to read it in parts, and its information where it is known."""

    name: str
    parts: Callable[[], Iterator[str]]
    information_bits: float | None = None


@dataclass(frozen=True)
class Source:
    """Texts, and what corpus.json says of them. `documents` may be iterated more than once."""

    count: int
    documents: Callable[[], Iterator[Document]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Download:
    """A public file with its pinned hash."""

    file: str
    url: str
    sha256: str


SHAKESPEARE = Download(
    "shakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)
NAMES = Download(
    "names.txt",
    "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)


# --- sources --------------------------------------------------------------------------------------


def verse_plays(size: int, seed: int) -> Source:
    """About `size` bytes of verse: so many plays, whatever they turn out to say.

    Their number is fixed beforehand. Were it chosen by their length, the text would carry
    information that information_bits does not count.
    """
    count = max(2, round(size / verse.PLAY_BYTES))

    def documents() -> Iterator[Document]:
        for index in range(count):
            play = verse.write_play(seed, index)
            yield Document(f"play-{index}", _held(play.text), play.information_bits)

    return Source(count, documents, {"seed": seed})


def single_text(path: Path, sha256: str | None = None) -> Source:
    """One text file as one document. Raises DataError where its hash is not `sha256`."""
    name, digest = _name(path, path.parent), _sha256(path)
    if sha256 is not None and digest != sha256:
        raise DataError(f"{path}: its sha256 is {digest}, not the data.sha256 of params.yaml")
    return Source(1, lambda: iter([Document(name, lambda: read_text(path))]), {"sha256": digest})


def name_list(path: Path) -> Source:
    """Every distinct line as one document, in the order in which they first appear."""
    lines = "".join(read_text(path)).split("\n")
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    facts = {
        "sha256": _sha256(path),
        "duplicates_removed": sum(1 for line in lines if line.strip()) - len(names),
    }
    return Source(
        len(names),
        lambda: (Document(str(index), _held(name)) for index, name in enumerate(names)),
        facts,
    )


def own_text(path: Path, sha256: str | None = None) -> Source:
    """A text file, or every .txt and .md file below a folder, as one document each.

    Files whose name starts with a dot are passed over. Raises DataError, naming the path, where
    there is no text.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{path}: no such file or folder; set data.path to where your text is"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if stat.S_ISREG(mode):
        return single_text(path, sha256)
    files = _text_files(path)
    if not files:
        raise DataError(
            f"{path}: holds no .txt or .md file; put your text there, or name it: -S data.path=PATH"
        )
    digests = {_name(file, path): _sha256(file) for file in files}
    whole = hashlib.sha256("".join(f"{h}  {n}\n" for n, h in digests.items()).encode()).hexdigest()
    if sha256 is not None and whole != sha256:
        raise DataError(f"{path}: its sha256 is {whole}, not the data.sha256 of params.yaml")

    def documents() -> Iterator[Document]:
        for file in files:
            yield Document(_name(file, path), _reader(file))

    return Source(len(files), documents, {"sha256": whole})


def _text_files(folder: Path) -> list[Path]:
    """The text files below a folder, sorted. Links to folders are not followed."""

    def refuse(error: OSError) -> None:
        raise _unreadable(Path(error.filename), error)

    files: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(parent, name) for name in names if not name.startswith(".")]
        files += [path for path in paths if path.suffix.lower() in TEXT_SUFFIXES]
    return sorted(files)


def _name(file: Path, folder: Path) -> str:
    name = file.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(file)!a}: its name is not UTF-8; rename it") from None
    return name


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: {error.strerror}; check data.path and its rights")


# --- reading --------------------------------------------------------------------------------------


def read_text(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file in parts, without a byte order mark, otherwise as it stands.

    Raises DataError with the byte offset where it is not UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    try:
        with path.open("rb") as file:
            while True:
                block = file.read(READ_BYTES)
                if offset == 0:
                    block = block.removeprefix(codecs.BOM_UTF8)
                    offset = file.tell() - len(block)
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(block, final=not block)
                except UnicodeDecodeError as error:
                    at = offset - pending + error.start
                    raise DataError(
                        f"{path}: byte {at} is not UTF-8; save the file as UTF-8"
                    ) from None
                if text:
                    yield text
                if not block:
                    return
                offset += len(block)
    except OSError as error:
        raise _unreadable(path, error) from None


def _reader(path: Path) -> Callable[[], Iterator[str]]:
    return lambda: read_text(path)


def _held(text: str) -> Callable[[], Iterator[str]]:
    return lambda: iter([text])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


# --- downloads ------------------------------------------------------------------------------------


def fetch(download: Download, cache: Path, mirror: str | None = None) -> Path:
    """The verified file: from `mirror` (a folder or URL), from `cache`, or from its public address.

    Nothing stands at the file's final name in `cache` before its sha256 was seen to be right.
    Raises DataError that lists every place tried and why it did not serve.
    """
    tried: list[str] = []
    if mirror and "://" not in mirror:
        local = Path(mirror) / download.file
        if local.is_file():
            if _sha256(local) == download.sha256:
                return local
            tried.append(f"{local}: wrong sha256")
        else:
            tried.append(f"{local}: not there")
    urls = [download.url]
    if mirror and "://" in mirror:
        urls.insert(0, f"{mirror.rstrip('/')}/{download.file}")

    # Imported here: only a download pays for it.
    import pooch

    pooch.get_logger().setLevel("ERROR")
    for url in urls:
        downloader = pooch.HTTPDownloader(progressbar=_progress(download.file), timeout=TIMEOUT)
        store = pooch.create(
            path=cache,
            base_url="",
            registry={download.file: f"sha256:{download.sha256}"},
            urls={download.file: url},
            retry_if_failed=2,
        )
        try:
            return Path(store.fetch(download.file, downloader=downloader))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a hash, ValueError
            tried.append(f"{url}: {_reason(error)}")
    raise DataError(
        f"{download.file}: could not be had ({'; '.join(tried)}); "
        "get it where there is a network and set GPT_MIRROR to its folder"
    )


def _reason(error: Exception) -> str:
    # Some of requests' errors, as for a redirect to file://, are ValueErrors as well.
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "not the expected file (wrong sha256)"
    return type(error).__name__


def _progress(file: str) -> Any:
    from tqdm import tqdm

    # disable=None: quiet where the output is not a terminal.
    return tqdm(desc=file, unit="B", unit_scale=True, disable=None, total=0)


# --- splitting ------------------------------------------------------------------------------------


def split_corpus(
    source: Source,
    writer: CorpusWriter,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    max_bytes: int = 0,
    progress: Callable[[int], None] = lambda written: None,
) -> str:
    """Writes `source` as train, val and test; returns how it was split.

    'document': whole documents are held out, drawn by `seed`, where there are enough of them for
    each split to get one. 'contiguous': the end of every document is held out, val before test,
    cut at the same character as the peers do for a single text.
    `max_bytes` (0: no limit) ends the corpus early. `progress` is told the bytes just written.
    Raises DataError for a source that is empty or white space only.
    """
    fractions = [fraction for fraction in (val_fraction, test_fraction) if fraction > 0]

    def enough(documents: int) -> bool:
        held_out = sum(round(documents * fraction) for fraction in fractions)
        return held_out < documents and all(documents * fraction >= 1 for fraction in fractions)

    # Where a document is cut depends on its length, and how many there are on the byte cap: then
    # everything is read once beforehand.
    measure = bool(max_bytes) or not enough(source.count)
    lengths = _lengths(source, max_bytes) if measure else [0] * source.count
    by_document = enough(len(lengths))
    splits = assign(len(lengths), seed, val_fraction, test_fraction) if by_document else []

    seen_text = False
    for index, document in zip(range(len(lengths)), source.documents(), strict=False):
        ends = [] if by_document else _ends(lengths[index], val_fraction, test_fraction)
        position = 0
        for part in document.parts():
            text = part[: lengths[index] - position] if max_bytes else part
            if not text:
                break
            seen_text = seen_text or not text.isspace()
            if by_document:
                writer.write(splits[index], document.name, text)
            for split, start, end in ends:
                piece = text[max(0, start - position) : max(0, end - position)]
                if piece:
                    writer.write(split, document.name, piece)
            position += len(text)
            progress(len(text.encode()))
        if by_document and document.information_bits is not None and not max_bytes:
            writer.add_information(splits[index], document.information_bits)
    if not seen_text:
        raise DataError("the corpus is empty or only white space; check data.path")
    return "document" if by_document else "contiguous"


def _lengths(source: Source, max_bytes: int) -> list[int]:
    """Characters of each document, up to the byte cap, which cuts between characters."""
    left = max_bytes or math.inf
    lengths: list[int] = []
    for document in source.documents():
        if left <= 0:
            break
        lengths.append(0)
        for text in document.parts():
            raw = text.encode()
            if len(raw) > left:
                lengths[-1] += len(raw[: int(left)].decode(errors="ignore"))
                return lengths
            lengths[-1] += len(text)
            left -= len(raw)
    return lengths


def assign(count: int, seed: int, val_fraction: float, test_fraction: float) -> list[str]:
    """The split of each of `count` documents: a random draw of exact size, the same everywhere."""
    ranked = sorted(
        range(count),
        key=lambda index: hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=16).digest(),
    )
    val, test = round(count * val_fraction), round(count * test_fraction)
    splits = ["train"] * count
    for index in ranked[:val]:
        splits[index] = "val"
    for index in ranked[val : val + test]:
        splits[index] = "test"
    return splits


def _ends(length: int, val_fraction: float, test_fraction: float) -> list[tuple[str, int, int]]:
    train_end = int(length * (1 - val_fraction - test_fraction))
    val_end = int(length * (1 - test_fraction)) if test_fraction else length
    return [("train", 0, train_end), ("val", train_end, val_end), ("test", val_end, length)]
