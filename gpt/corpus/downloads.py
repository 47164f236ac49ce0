"""Public files: from a folder that mirrors them (GPT_MIRROR), from the cache, or from the network.

No file gets its name before its bytes are verified. What is in the files: sources.py.
"""

import errno
import os
import re
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from gpt.errors import DataError
from gpt.files import sha256_of, sha256_of_all

TIMEOUT = 30  # seconds without an answer
BLOCK_BYTES = 2**18
PARALLEL_DOWNLOADS = 4  # more is unkind to a public server


@dataclass(frozen=True)
class Download:
    """A file at a URL with a pinned sha256; `file` is its name in a mirror and in the cache."""

    file: str
    url: str
    sha256: str


@dataclass(frozen=True)
class HubFile:
    """The file `path` of a repository on the Hugging Face hub; `file` is its name in a mirror.

    huggingface_hub downloads it, and obeys HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
    """

    file: str
    repo: str
    path: str
    repo_type: str = "dataset"


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
# These have no pinned hash: data.sha256 in params.yaml pins one.
TINYSTORIES = [
    HubFile(file, "roneneldan/TinyStories", file)
    for file in ("TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt")
]
TABLES = {
    # Web pages like GPT-2's, in 80 shards of about 500 MB of text.
    "openwebtext": [
        HubFile(f"openwebtext/{shard}", "Skylion007/openwebtext", f"plain_text/{shard}")
        for shard in (f"train-{number:05d}-of-00080.parquet" for number in range(80))
    ],
    # nanochat's shards, shuffled, of about 250 million characters each.
    "fineweb_edu": [
        HubFile(f"fineweb_edu/{shard}", "karpathy/fineweb-edu-100b-shuffle", shard)
        for shard in (f"shard_{number:05d}.parquet" for number in range(1823))
    ],
}


def fetch(
    download: Download,
    cache: Path,
    mirror: str | None = None,
    progress: Callable[[int], object] = lambda size: None,
) -> Path:
    """Returns the file: from the folder `mirror`, from `cache`, or from its URL.

    `progress` gets the bytes of each block that arrives. Raises DataError if the file is nowhere,
    and for other bytes than the pinned ones.
    """
    if mirrored := _in_mirror(download.file, mirror):
        if sha256_of(mirrored) != download.sha256:
            raise DataError(f"{mirrored}: wrong sha256; restore the file, or unset GPT_MIRROR")
        return mirrored
    path = cache / download.file
    if path.is_file() and sha256_of(path) == download.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each process: two experiments side by side must not write one file.
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _download(download.url, partial, progress)
        if sha256_of(partial) != download.sha256:
            raise ValueError("wrong sha256")
        partial.replace(path)
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise _unavailable(download.file, download.url, error) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def fetch_from_hub(file: HubFile, cache: Path, mirror: str | None = None) -> Path:
    """Returns the file: from the folder `mirror`, from `cache`, or from the hub.

    Raises DataError if it is nowhere. Bytes are verified where the hub states a sha256.
    """
    if mirrored := _in_mirror(file.file, mirror):
        return mirrored
    # Imported here: only a download pays for it.
    from huggingface_hub import errors, hf_hub_download

    try:
        for force_download in (False, True):  # again if the cache has damaged it
            path = Path(
                hf_hub_download(
                    file.repo,
                    file.path,
                    repo_type=file.repo_type,
                    cache_dir=cache,
                    force_download=force_download,
                )
            )
            if _is_intact(path):
                return path
        raise ValueError("wrong sha256")
    except (OSError, errors.HTTPError, errors.XetDownloadError, ValueError) as error:  # type: ignore[attr-defined]
        raise _unavailable(file.file, f"{file.repo} on the Hugging Face hub", error) from None


def fetch_all(
    files: Sequence[HubFile], cache: Path, mirror: str | None, sha256: str | None
) -> tuple[list[Path], str]:
    """Returns several files, and their combined sha256, which must be `sha256` if that is stated.

    Raises DataError as `fetch_from_hub` does, and for another hash.
    """
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        paths = list(pool.map(lambda file: fetch_from_hub(file, cache, mirror), files))
    actual = sha256_of_all(
        {file.file: sha256_of(path) for file, path in zip(files, paths, strict=True)}
    )
    if sha256 is not None and actual != sha256:
        raise DataError(
            f"data.sha256 = {sha256}: the combined sha256 of {files[0].file} and "
            f"{len(files) - 1} more is {actual}; correct it, or delete {cache} to download again"
        )
    return paths, actual


def _in_mirror(file: str, mirror: str | None) -> Path | None:
    return path if mirror and (path := Path(mirror) / file).is_file() else None


def _download(url: str, path: Path, progress: Callable[[int], object]) -> None:
    # urllib refuses a redirect to anything but http, https and ftp.
    with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open("wb") as file:  # noqa: S310
        if response.headers.get_content_type() == "text/html":
            raise ValueError("an HTML page, not the file")
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            progress(len(block))


def _is_intact(path: Path) -> bool:
    """Whether a file of the hub's cache has the sha256 that its blob is named by, if it is."""
    name = path.readlink().name if path.is_symlink() else ""
    return not re.fullmatch("[0-9a-f]{64}", name) or sha256_of(path) == name


def _unavailable(file: str, source: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    remedy = "save it in a folder and set GPT_MIRROR to that folder"
    if getattr(error, "errno", None) == errno.ENOSPC:
        remedy = "free disk space"
    return DataError(f"{file}: could not be downloaded from {source} ({reason}); {remedy}")
