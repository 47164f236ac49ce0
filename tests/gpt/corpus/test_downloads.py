"""Downloads, from a web server of our own that does what servers do."""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import planted
import pytest

from gpt.corpus import downloads, sources
from gpt.corpus.downloads import Download
from gpt.errors import DataError

TEXT = b"First Citizen:\n" * 5000


@dataclass
class Answer:
    """`cut`: the connection breaks after so many bytes, once. `pause`: seconds between blocks."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    pause: float = 0.0


@dataclass
class Site:
    """A web server of our own; `asked` are the paths and ranges it was asked for."""

    url: str
    answers: dict[str, Answer]
    asked: list[str]
    ranges: list[str | None]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    answers: dict[str, Answer] = {}
    asked: list[str] = []
    ranges: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            ranges.append(self.headers.get("Range"))
            answer = answers.get(self.path, Answer(b"no such page", 404))
            etag = answer.headers.get("ETag")
            body, status, headers = answer.body, answer.status, {}
            # As RFC 9110 wants it: the rest alone, if it is still the same file.
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if wanted and etag and self.headers.get("If-Range") == etag:
                start = int(wanted[1])
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
            self.send_response(status)
            headers |= {"Content-Length": str(len(body))} | answer.headers
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if answer.cut:
                body, answer.cut = body[: answer.cut], 0
            for begin in range(0, len(body), 2**14):
                self.wfile.write(body[begin : begin + 2**14])
                time.sleep(answer.pause)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    # What is kept of a download that breaks off is whole blocks.
    monkeypatch.setattr(downloads, "BLOCK", 10_000)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Site(f"http://127.0.0.1:{server.server_port}", answers, asked, ranges)
        server.shutdown()
        thread.join()


def download(site: Site, path: str = "/text") -> Download:
    return Download("text.txt", site.url + path, hashlib.sha256(TEXT).hexdigest())


@pytest.mark.loopback
def test_a_download_gives_the_file_with_the_pinned_hash(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    file = downloads.fetch(download(site), tmp_path)
    assert (file, file.read_bytes()) == (tmp_path / "text.txt", TEXT)


@pytest.mark.loopback
def test_a_file_is_downloaded_once(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    for _ in range(2):
        downloads.fetch(download(site), tmp_path)
    assert site.asked == ["/text"]


@pytest.mark.fault(15, planted=planted.DOWNLOAD_UNCHECKED)
@pytest.mark.loopback
def test_a_damaged_file_in_the_cache_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    (tmp_path / "text.txt").write_bytes(TEXT[:-1])
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT


FAULTS: dict[str, Callable[[Site], Answer]] = {
    "wrong hash": lambda site: Answer(TEXT[:-1] + b"x"),
    "an error page": lambda site: Answer(
        b"<html>sorry</html>", headers={"Content-Type": "text/html"}
    ),
    "empty": lambda site: Answer(b""),
    "404": lambda site: Answer(TEXT, 404),
    "500": lambda site: Answer(TEXT, 500),
    "truncated": lambda site: Answer(TEXT[:-1], headers={"Content-Length": str(len(TEXT))}),
    "to a file": lambda site: Answer(b"", 302, {"Location": "file:///etc/passwd"}),
    "to itself": lambda site: Answer(b"", 302, {"Location": f"{site.url}/text"}),
}


@pytest.mark.fault(15, planted=planted.DOWNLOAD_UNCHECKED)
@pytest.mark.loopback
@pytest.mark.parametrize("name", FAULTS)
def test_a_download_that_fails_leaves_nothing_and_lists_what_was_tried(
    site: Site, tmp_path: Path, name: str
) -> None:
    site.answers["/text"] = FAULTS[name](site)
    mirror, cache = tmp_path / "mirror", tmp_path / "cache"
    with pytest.raises(DataError) as refused:
        downloads.fetch(download(site), cache, str(mirror))
    assert "\n" not in str(refused.value)
    assert f"{mirror / 'text.txt'}: not there; {site.url}/text: " in str(refused.value)
    assert list(cache.glob("[!.]*")) == []


@pytest.mark.loopback
@pytest.mark.parametrize("name", ["wrong hash", "to a file"])
def test_a_wrong_hash_is_blamed_where_the_hash_was_wrong_and_nowhere_else(
    site: Site, tmp_path: Path, name: str
) -> None:
    site.answers["/text"] = FAULTS[name](site)
    with pytest.raises(DataError) as refused:
        downloads.fetch(download(site), tmp_path)
    assert ("wrong sha256" in str(refused.value)) == (name == "wrong hash")


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_a_refused_connection_is_named(site: Site, tmp_path: Path) -> None:
    nobody = Download("text.txt", "http://127.0.0.1:9/text", "0" * 64)
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/text: Connect\w*Error"):
        downloads.fetch(nobody, tmp_path)


@pytest.mark.fault(15, planted=planted.NO_TIMEOUT)
@pytest.mark.loopback
@pytest.mark.timeout(20)
def test_a_server_that_stays_silent_is_given_up_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/text"
        with pytest.raises(DataError, match=rf"{url}: ReadTimeout"):
            downloads.fetch(Download("text.txt", url, "0" * 64), tmp_path / "cache")
    assert list((tmp_path / "cache").glob("[!.]*")) == []


@pytest.mark.loopback
def test_a_mirror_folder_comes_first(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    (tmp_path / "text.txt").write_bytes(TEXT)
    file = downloads.fetch(download(site), tmp_path / "cache", str(tmp_path))
    assert (file, site.asked) == (tmp_path / "text.txt", [])


@pytest.mark.fault(15, planted=planted.MIRROR_TRUSTED)
@pytest.mark.loopback
def test_a_wrong_file_in_a_mirror_folder_is_not_taken(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    (tmp_path / "text.txt").write_bytes(b"another text")
    file = downloads.fetch(download(site), tmp_path / "cache", str(tmp_path))
    assert file.read_bytes() == TEXT


@pytest.mark.loopback
@pytest.mark.parametrize("mirrored", [True, False])
def test_a_mirror_address_comes_first_and_the_public_one_after(
    site: Site, tmp_path: Path, mirrored: bool
) -> None:
    site.answers["/text"] = Answer(TEXT)
    if mirrored:
        site.answers["/mirror/text.txt"] = Answer(TEXT)
    assert downloads.fetch(download(site), tmp_path, f"{site.url}/mirror/").read_bytes() == TEXT
    assert site.asked[0] == "/mirror/text.txt"
    assert ("/text" in site.asked) == (not mirrored)


def test_the_pinned_hashes_are_those_of_the_real_texts(texts: Path) -> None:
    for pinned in (sources.SHAKESPEARE, sources.NAMES):
        raw = (texts / pinned.file).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == pinned.sha256


# --- breaking off and going on --------------------------------------------------------------------

ETAG = {"ETag": '"one"'}


@pytest.mark.fault(15, planted=planted.BROKEN_OFF_FROM_THE_START)
@pytest.mark.loopback
def test_a_download_that_breaks_off_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT, headers=ETAG, cut=30_000)
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT
    assert site.ranges == [None, "bytes=30000-"]


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_a_file_that_changed_meanwhile_is_taken_from_its_start(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT, headers=ETAG)
    (tmp_path / ".text.txt.part").write_bytes(b"older" * 6000)
    (tmp_path / ".text.txt.etag").write_text('"zero"', encoding="ascii")
    assert downloads.fetch(unpinned(site), tmp_path).read_bytes() == TEXT
    assert site.ranges == ["bytes=30000-"]


@pytest.mark.loopback
def test_without_an_etag_a_download_that_breaks_off_starts_again(
    site: Site, tmp_path: Path
) -> None:
    site.answers["/text"] = Answer(TEXT, cut=30_000)
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT
    assert site.ranges == [None, None]


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_what_breaks_off_for_good_is_kept_for_the_next_run_and_not_as_the_file(
    site: Site, tmp_path: Path
) -> None:
    headers = ETAG | {"Content-Length": str(len(TEXT))}
    site.answers["/text"] = Answer(TEXT[:30_000], headers=headers)
    with pytest.raises(DataError, match="text: "):
        downloads.fetch(unpinned(site), tmp_path)
    assert not (tmp_path / "text.txt").exists()
    site.answers["/text"] = Answer(TEXT, headers=ETAG)
    asked = len(site.asked)
    assert downloads.fetch(unpinned(site), tmp_path).read_bytes() == TEXT
    assert site.ranges[asked:] == ["bytes=30000-"]


@pytest.mark.loopback
def test_a_slow_server_is_waited_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    site.answers["/text"] = Answer(TEXT, pause=0.1)  # 0.5 s together
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT


@pytest.mark.loopback
def test_a_redirect_is_followed(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(b"", 302, {"Location": f"{site.url}/there"})
    site.answers["/there"] = Answer(TEXT)
    assert downloads.fetch(unpinned(site), tmp_path).read_bytes() == TEXT


# --- files without a pinned hash ------------------------------------------------------------------


def unpinned(site: Site, name: str = "text", size: int = 0) -> Download:
    return Download(f"{name}.txt", f"{site.url}/{name}", size=size)


@pytest.mark.fault(15, planted=planted.ERROR_PAGE_TAKEN)
@pytest.mark.loopback
def test_an_error_page_is_no_file_even_where_no_hash_is_known(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = FAULTS["an error page"](site)
    with pytest.raises(DataError, match="an HTML page, not the file"):
        downloads.fetch(unpinned(site), tmp_path)
    assert list(tmp_path.glob("[!.]*")) == []


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_a_hash_that_the_server_states_is_held_to(site: Site, tmp_path: Path) -> None:
    stated = {"X-Linked-ETag": f'"{hashlib.sha256(TEXT).hexdigest()}"'}
    site.answers["/text"] = Answer(b"", 302, stated | {"Location": f"{site.url}/there"})
    site.answers["/there"] = Answer(TEXT[:-1] + b"x")
    with pytest.raises(DataError, match="the server states the sha256"):
        downloads.fetch(unpinned(site), tmp_path)
    assert list(tmp_path.glob("[!.]*")) == []
    site.answers["/there"] = Answer(TEXT)
    assert downloads.fetch(unpinned(site), tmp_path).read_bytes() == TEXT


@pytest.mark.fault(15, planted=planted.ARRIVAL_FORGOTTEN)
@pytest.mark.loopback
def test_a_file_damaged_since_it_arrived_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    for damaged in (b"", TEXT[:-1]):
        downloads.fetch(unpinned(site), tmp_path)
        (tmp_path / "text.txt").write_bytes(damaged)
        assert downloads.fetch(unpinned(site), tmp_path).read_bytes() == TEXT


@pytest.mark.loopback
def test_several_files_come_together_in_their_order_and_have_one_hash(
    site: Site, tmp_path: Path
) -> None:
    wanted = [unpinned(site, f"shard_{number}") for number in range(9)]
    for number in range(9):
        # The first ones last.
        site.answers[f"/shard_{number}"] = Answer(b"%d" % number, pause=0.01 * (9 - number))
    paths, sha256 = downloads.fetch_all(wanted, tmp_path, None, None)
    assert [path.read_bytes() for path in paths] == [b"%d" % number for number in range(9)]
    lines = [f"{hashlib.sha256(b'%d' % n).hexdigest()}  shard_{n}.txt\n" for n in range(9)]
    assert sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert downloads.fetch_all(wanted, tmp_path, None, sha256)[0] == paths
    assert len(site.asked) == 9


@pytest.mark.fault(15, planted=planted.STATED_HASH_UNCHECKED)
@pytest.mark.loopback
def test_several_files_with_another_hash_than_stated_are_refused(
    site: Site, tmp_path: Path
) -> None:
    site.answers["/text"] = Answer(TEXT)
    with pytest.raises(DataError, match=r"their sha256 is [0-9a-f]{64}, not the data\.sha256"):
        downloads.fetch_all([unpinned(site)], tmp_path, None, "0" * 64)


@pytest.mark.loopback
def test_one_file_that_cannot_be_had_is_named_among_several(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    with pytest.raises(DataError, match=r"missing\.txt: could not be had"):
        downloads.fetch_all([unpinned(site), unpinned(site, "missing")], tmp_path, None, None)


@pytest.mark.loopback
def test_a_mirror_folder_serves_several_files_without_a_network(site: Site, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    # So large a file has no room in the cache, and needs none.
    wanted = [unpinned(site, size=10**18)]
    assert downloads.fetch_all(wanted, tmp_path / "cache", str(tmp_path), None)[0] == [
        tmp_path / "text.txt"
    ]
    assert site.asked == []


@pytest.mark.fault(15, planted=planted.ROOM_UNCHECKED)
@pytest.mark.loopback
def test_a_disk_without_room_is_named_before_anything_is_asked_for(
    site: Site, tmp_path: Path
) -> None:
    site.answers["/text"] = Answer(TEXT)
    with pytest.raises(DataError, match=r"1,000,000,000\.1 GB are needed and .* are free"):
        downloads.fetch_all([unpinned(site, size=10**18)], tmp_path / "cache", None, None)
    assert site.asked == []


@pytest.mark.loopback
def test_a_file_larger_than_was_known_is_refused_by_its_length(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT, headers={"Content-Length": str(10**18)})
    with pytest.raises(DataError, match="GB are needed"):
        downloads.fetch(unpinned(site), tmp_path)
    assert list(tmp_path.glob("[!.]*")) == []


def test_the_names_of_public_files_differ() -> None:
    for files in (sources.TINYSTORIES, sources.OPENWEBTEXT, sources.FINEWEB_EDU):
        assert len({(file.file, file.url) for file in files}) == len(files)
        assert all(file.url.startswith("https://") for file in files)
