"""Downloads, from a web server of our own that behaves as servers do."""

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import planted
import pytest

from gpt.corpus import downloads
from gpt.corpus.downloads import Download, HubFile
from gpt.errors import DataError

TEXT = b"First Citizen:\n" * 5000
SHA256 = hashlib.sha256(TEXT).hexdigest()
COMMIT = "c" * 40


@dataclass
class Answer:
    """`cut`: the connection breaks after this many bytes. `pause`: seconds between blocks."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    pause: float = 0.0


@dataclass
class Site:
    """A web server; `requests` are the paths of the GET requests that it got."""

    url: str
    answers: dict[str, Answer]
    requests: list[str]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    answers: dict[str, Answer] = {}
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_head()

        def do_GET(self) -> None:
            requests.append(self.path)
            answer = self.send_head()
            body = answer.body[: answer.cut] if answer.cut else answer.body
            for begin in range(0, len(body), 2**14):
                self.wfile.write(body[begin : begin + 2**14])
                time.sleep(answer.pause)

        def send_head(self) -> Answer:
            answer = answers.get(self.path, Answer(b"no such page", 404))
            self.send_response(answer.status)
            for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            return answer

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Site(f"http://127.0.0.1:{server.server_port}", answers, requests)
        server.shutdown()
        thread.join()


def visible(folder: Path) -> list[Path]:
    return list(folder.glob("[!.]*"))


# --- a file at a URL ------------------------------------------------------------------------------


def download(site: Site) -> Download:
    return Download("text.txt", f"{site.url}/text", SHA256)


@pytest.mark.loopback
def test_a_download_is_verified_and_cached(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    arrived: list[int] = []
    for _ in range(2):
        file = downloads.fetch(download(site), tmp_path, progress=arrived.append)
        assert (file, file.read_bytes()) == (tmp_path / "text.txt", TEXT)
    assert site.requests == ["/text"]
    assert sum(arrived) == len(TEXT)


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_a_damaged_file_in_the_cache_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    (tmp_path / "text.txt").write_bytes(TEXT[:-1])
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT


FAULTS: dict[str, tuple[Callable[[Site], Answer], str]] = {
    "other bytes": (lambda site: Answer(TEXT[:-1] + b"x"), "wrong sha256"),
    "an error page": (
        lambda site: Answer(b"<html>sorry</html>", headers={"Content-Type": "text/html"}),
        "an HTML page, not the file",
    ),
    "empty": (lambda site: Answer(b""), "wrong sha256"),
    "404": (lambda site: Answer(TEXT, 404), "HTTP Error 404"),
    "500": (lambda site: Answer(TEXT, 500), "HTTP Error 500"),
    "truncated": (lambda site: Answer(TEXT, cut=30_000), ""),
    "to a file": (lambda site: Answer(b"", 302, {"Location": "file:///etc/passwd"}), "file:///etc"),
    "to itself": (lambda site: Answer(b"", 302, {"Location": f"{site.url}/text"}), "infinite loop"),
}


@pytest.mark.fault(15, planted=planted.DOWNLOAD_UNCHECKED)
@pytest.mark.loopback
@pytest.mark.parametrize("name", ["other bytes", "truncated"])
def test_other_bytes_than_the_pinned_ones_are_refused(
    site: Site, tmp_path: Path, name: str
) -> None:
    site.answers["/text"] = FAULTS[name][0](site)
    with pytest.raises(DataError):
        downloads.fetch(download(site), tmp_path)


@pytest.mark.fault(15)
@pytest.mark.loopback
@pytest.mark.parametrize("name", FAULTS)
def test_a_download_that_fails_leaves_nothing_and_says_why_in_one_line(
    site: Site, tmp_path: Path, name: str
) -> None:
    make, reason = FAULTS[name]
    site.answers["/text"] = make(site)
    with pytest.raises(DataError) as refused:
        downloads.fetch(download(site), tmp_path)
    message = str(refused.value)
    assert message.startswith(f"text.txt: could not be downloaded from {site.url}/text (")
    assert reason in message and "set GPT_MIRROR" in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault(15, planted=planted.ERROR_PAGE_TAKEN)
@pytest.mark.loopback
def test_an_error_page_is_named_as_one(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = FAULTS["an error page"][0](site)
    with pytest.raises(DataError, match="an HTML page, not the file"):
        downloads.fetch(download(site), tmp_path)


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_a_refused_connection_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/text \(.*refused"):
        downloads.fetch(Download("text.txt", "http://127.0.0.1:9/text", SHA256), tmp_path)


@pytest.mark.fault(15, planted=planted.NO_TIMEOUT)
@pytest.mark.loopback
@pytest.mark.timeout(20)
def test_a_server_that_stays_silent_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/text"
        with pytest.raises(DataError, match=rf"{url} \(timed out\)"):
            downloads.fetch(Download("text.txt", url, SHA256), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.loopback
def test_a_slow_server_is_waited_for(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.3)
    site.answers["/text"] = Answer(TEXT, pause=0.1)  # 0.5 s in all
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT


@pytest.mark.loopback
def test_a_redirect_is_followed(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(b"", 302, {"Location": f"{site.url}/there"})
    site.answers["/there"] = Answer(TEXT)
    assert downloads.fetch(download(site), tmp_path).read_bytes() == TEXT


@pytest.mark.loopback
def test_a_mirror_folder_comes_first(site: Site, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    file = downloads.fetch(download(site), tmp_path / "cache", str(tmp_path))
    assert (file, site.requests) == (tmp_path / "text.txt", [])


@pytest.mark.fault(15, planted=planted.MIRROR_TRUSTED)
@pytest.mark.loopback
def test_a_wrong_file_in_a_mirror_folder_is_refused(site: Site, tmp_path: Path) -> None:
    site.answers["/text"] = Answer(TEXT)
    (tmp_path / "text.txt").write_bytes(b"another text")
    with pytest.raises(DataError, match=r"text\.txt: wrong sha256; .* unset GPT_MIRROR"):
        downloads.fetch(download(site), tmp_path / "cache", str(tmp_path))


def test_the_pinned_hashes_are_those_of_the_real_texts(texts: Path) -> None:
    for pinned in (downloads.SHAKESPEARE, downloads.NAMES):
        raw = (texts / pinned.file).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == pinned.sha256


# --- files of the Hugging Face hub ----------------------------------------------------------------


def on_hub(site: Site, name: str = "text", body: bytes = TEXT) -> HubFile:
    """Puts a file on `site` as the hub serves it; its sha256 is stated in the headers."""
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": etag, "ETag": etag}
    path = f"/datasets/us/tales/resolve/main/{name}.txt"
    site.answers[path] = Answer(body, headers=headers | {"X-Linked-Size": str(len(body))})
    return HubFile(f"{name}.txt", "us/tales", f"{name}.txt")


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    # Both are read from HF_ENDPOINT when the module is imported.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", site.url)
    url = f"{site.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return site


@pytest.mark.loopback
def test_a_file_of_the_hub_is_downloaded_once_under_its_own_name(hub: Site, tmp_path: Path) -> None:
    file = on_hub(hub)
    for _ in range(2):
        path = downloads.fetch_from_hub(file, tmp_path)
        assert (path.name, path.read_bytes()) == ("text.txt", TEXT)
    assert sum(request.endswith("text.txt") for request in hub.requests) == 1


@pytest.mark.fault(15, planted=planted.ARRIVAL_FORGOTTEN)
@pytest.mark.loopback
def test_a_file_of_the_hub_damaged_since_it_arrived_is_downloaded_again(
    hub: Site, tmp_path: Path
) -> None:
    file = on_hub(hub)
    downloads.fetch_from_hub(file, tmp_path).resolve().write_bytes(TEXT[:-1] + b"x")
    assert downloads.fetch_from_hub(file, tmp_path).read_bytes() == TEXT


@pytest.mark.fault(15, planted=planted.ARRIVAL_FORGOTTEN)
@pytest.mark.loopback
def test_other_bytes_than_the_hub_states_are_refused(hub: Site, tmp_path: Path) -> None:
    file = on_hub(hub)
    for answer in hub.answers.values():
        answer.body = TEXT[:-1] + b"x"
    with pytest.raises(DataError, match=r"text\.txt: could not be .* \(wrong sha256\)"):
        downloads.fetch_from_hub(file, tmp_path)


@pytest.mark.fault(15)
@pytest.mark.loopback
def test_a_file_that_the_hub_does_not_have_is_named_with_its_repository(
    hub: Site, tmp_path: Path
) -> None:
    file = HubFile("missing.txt", "us/tales", "missing.txt")
    with pytest.raises(DataError, match=r"missing\.txt: could not be downloaded from us/tales on"):
        downloads.fetch_from_hub(file, tmp_path)


@pytest.mark.loopback
def test_without_a_network_the_cache_serves_what_it_has(
    hub: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = on_hub(hub)
    downloads.fetch_from_hub(file, tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert downloads.fetch_from_hub(file, tmp_path).read_bytes() == TEXT
    with pytest.raises(DataError, match=r"other\.txt: could not be downloaded"):
        downloads.fetch_from_hub(HubFile("other.txt", "us/tales", "other.txt"), tmp_path)
    assert hub.requests == []


@pytest.mark.loopback
def test_several_files_come_in_their_order_and_have_one_hash(hub: Site, tmp_path: Path) -> None:
    files = [on_hub(hub, f"shard_{number}", b"%d" % number) for number in range(9)]
    paths, sha256 = downloads.fetch_all(files, tmp_path, None, None)
    assert [path.read_bytes() for path in paths] == [b"%d" % number for number in range(9)]
    lines = [f"{hashlib.sha256(b'%d' % n).hexdigest()}  shard_{n}.txt\n" for n in range(9)]
    assert sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert downloads.fetch_all(files, tmp_path, None, sha256)[0] == paths


@pytest.mark.fault(15, planted=planted.STATED_HASH_UNCHECKED)
def test_several_files_with_another_hash_than_stated_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    file = HubFile("text.txt", "us/tales", "text.txt")
    with pytest.raises(DataError, match=r"data\.sha256 = 0{64}: the combined sha256 of text\.txt"):
        downloads.fetch_all([file], tmp_path / "cache", str(tmp_path), "0" * 64)


def test_a_mirror_folder_serves_files_of_the_hub_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(TEXT)
    file = HubFile("text.txt", "us/tales", "text.txt")
    assert downloads.fetch_all([file], tmp_path / "cache", str(tmp_path), None)[0] == [
        tmp_path / "text.txt"
    ]


def test_the_names_of_public_files_differ() -> None:
    for files in (downloads.TINYSTORIES, *downloads.TABLES.values()):
        assert (
            len({file.file for file in files}) == len({file.path for file in files}) == len(files)
        )
