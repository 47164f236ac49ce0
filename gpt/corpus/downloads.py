"""Public files on this machine: from a mirror, from the cache, or from the network.

A download that breaks off goes on where it was, in this run or the next, if the server can say that
its file is still the same one. Nothing stands at a file's final name before it is complete and,
where its hash is known, has that hash. pooch looks after the cache, temporary names and retries;
what it lacks is here: going on, many files at a time, room on the disk.
"""

import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt.errors import DataError
from gpt.files import sha256_of

TIMEOUT = 30  # seconds that a server may stay silent
RETRIES = 4
AT_A_TIME = 4  # more is unkind to a public server
BLOCK = 2**18
# Left free on a disk, for what comes after a download.
ROOM = 10**8


@dataclass(frozen=True)
class Download:
    """A public file: its name here, its address, its pinned sha256 and about its size in bytes."""

    file: str
    url: str
    sha256: str | None = None
    size: int = 0


def fetch(
    download: Download,
    cache: Path,
    mirror: str | None = None,
    progress: Callable[[int], None] = lambda size: None,
) -> Path:
    """The file: from `mirror` (a folder or URL), from `cache`, or from its public address.

    Without a pinned hash, the hash that a file had when it arrived is kept beside it, so that one
    that was damaged since is noticed and downloaded again. `progress` is told the bytes that came.
    Raises DataError that lists every place
    tried and why it did not serve.
    """
    tried: list[str] = []
    if mirror and "://" not in mirror:
        local = Path(mirror) / download.file
        if local.is_file():
            if download.sha256 in (None, sha256_of(local)):
                return local
            tried.append(f"{local}: wrong sha256")
        else:
            tried.append(f"{local}: not there")
    urls = [download.url]
    if mirror and "://" in mirror:
        urls.insert(0, f"{mirror.rstrip('/')}/{download.file}")

    # Imported here: only a download pays for it.
    import pooch
    from filelock import FileLock

    pooch.get_logger().setLevel("ERROR")
    final = cache / download.file
    final.parent.mkdir(parents=True, exist_ok=True)
    # Two experiments side by side must not write one file.
    with FileLock(_beside(final, ".lock")):
        arrived = _beside(final, ".sha256")
        if not download.sha256 and final.exists() and not _as_it_arrived(final, arrived):
            final.unlink()
        for url in urls:
            store = pooch.create(
                path=cache,
                base_url="",
                registry={download.file: download.sha256 and f"sha256:{download.sha256}"},
                urls={download.file: url},
                retry_if_failed=RETRIES,
            )
            try:
                store.fetch(download.file, downloader=_Downloader(final, progress))
            except (OSError, ValueError) as error:  # requests' errors are OSErrors; a hash's, not
                tried.append(f"{url}: {_reason(error)}")
                continue
            if not download.sha256 and not arrived.exists():
                arrived.write_text(sha256_of(final), encoding="ascii")
            return final
    raise DataError(
        f"{download.file}: could not be had ({'; '.join(tried)}); "
        "get it where there is a network and set GPT_MIRROR to its folder"
    )


def fetch_all(
    downloads: Sequence[Download], cache: Path, mirror: str | None, sha256: str | None
) -> tuple[list[Path], str]:
    """Several files, some at a time, and their hash together, which must be `sha256` if given.

    Raises DataError as `fetch` does, where the disk has no room for them, and for another hash;
    the files then stay in the cache, since it may be the hash that is mistyped.
    """
    from tqdm import tqdm

    missing = [download for download in downloads if not (cache / download.file).exists()]
    if not mirror or "://" in mirror:
        check_room(cache, sum(download.size for download in missing))
    given_up = threading.Event()
    # disable=None: quiet where the output is not a terminal.
    with (
        tqdm(desc="download", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(AT_A_TIME) as pool,
    ):

        def came(size: int) -> None:
            if given_up.is_set():
                raise DataError("another file could not be had, or somebody pressed Ctrl-C")
            bar.update(size)

        waiting = [pool.submit(fetch, download, cache, mirror, came) for download in downloads]
        try:
            paths = [future.result() for future in waiting]
        finally:
            given_up.set()
            pool.shutdown(cancel_futures=True)
    names = [download.file for download in downloads]
    whole = hash_of_all({name: sha256_of(path) for name, path in zip(names, paths, strict=True)})
    if sha256 is not None and whole != sha256:
        raise DataError(
            f"{', '.join(names[:3])}{', ...' * (len(names) > 3)}: their sha256 is {whole}, not the "
            f"data.sha256 of params.yaml; mend it, or delete {paths[0].parent} to get them again"
        )
    return paths, whole


def check_room(folder: Path, size: int) -> None:
    """Raises DataError where the disk of `folder` has no room for `size` bytes more."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size and free < size + ROOM:
        raise DataError(
            f"{folder}: {(size + ROOM) / 1e9:,.1f} GB are needed and {free / 1e9:,.1f} GB are free;"
            " make room, or lower data.shards"
        )


def hash_of_all(hashes: dict[str, str]) -> str:
    """The sha256 of several files together: that of the lines `sha256sum` prints for them."""
    return hashlib.sha256("".join(f"{h}  {n}\n" for n, h in hashes.items()).encode()).hexdigest()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f".{path.name}{suffix}")


def _as_it_arrived(path: Path, arrived: Path) -> bool:
    return arrived.exists() and arrived.read_text(encoding="ascii") == sha256_of(path)


def _reason(error: Exception) -> str:
    if isinstance(error, _NotTheFileError):
        return str(error)
    # Some of requests' errors, as for a redirect to file://, are ValueErrors as well.
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "not the expected file (wrong sha256)"
    return type(error).__name__


class _NotTheFileError(ValueError):
    """A server gave something else. A ValueError, so that pooch tries again."""


class _Downloader:
    """Writes what is still missing of a file to a part beside it, and the whole to pooch's name."""

    def __init__(self, final: Path, progress: Callable[[int], None]) -> None:
        self._part = _beside(final, ".part")
        self._etag = _beside(final, ".etag")
        self._progress = progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests

        # As it is: a compressed answer would have another length.
        headers = {"Accept-Encoding": "identity"}
        have = self._part.stat().st_size if self._part.exists() and self._etag.exists() else 0
        if have:
            etag = self._etag.read_text(encoding="latin-1")
            headers |= {"Range": f"bytes={have}-", "If-Range": etag}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code == 416:
                self._part.unlink()
                raise _NotTheFileError("does not go on where the download broke off")
            answer.raise_for_status()
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                raise _NotTheFileError("an HTML page, not the file")
            goes_on = answer.status_code == 206
            if goes_on and not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                self._part.unlink(missing_ok=True)
                raise _NotTheFileError("does not go on where the download broke off")
            self._remember(answer.headers.get("ETag", ""))
            check_room(self._part.parent, int(answer.headers.get("Content-Length", 0)))
            with self._part.open("ab" if goes_on else "wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)
                    self._progress(len(block))
            stated = _stated_sha256([*answer.history, answer])
        # From here on it is pooch's, which deletes what is wrong.
        self._etag.unlink(missing_ok=True)
        Path(self._part).replace(output_file)
        if stated and sha256_of(Path(output_file)) != stated:
            raise _NotTheFileError("not the file of which the server states the sha256")

    def _remember(self, etag: str) -> None:
        """Only of a strong ETag can a server say whether the rest still fits."""
        if etag.startswith('"'):
            self._etag.write_text(etag, encoding="latin-1")
        else:
            self._etag.unlink(missing_ok=True)


def _stated_sha256(answers: list[Any]) -> str:
    """What Hugging Face says of a large file before it redirects to it; else nothing."""
    for answer in answers:
        stated = answer.headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", stated):
            return str(stated)
    return ""
