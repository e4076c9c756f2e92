import gzip
import hashlib
import io
import itertools
import os
import random
import re
import shutil
import socketserver
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socket import create_connection
from typing import Any

import pytest
from disk import needs_root, small_disk
from s3 import Server, serve_s3
from tqdm import tqdm

from sn7 import bucket as bucket_module
from sn7 import download as download_module
from sn7.bucket import Bucket
from sn7.cli import main
from sn7.commands.download import SPLITS
from sn7.download import ARCHIVES, BUCKET, PREFIX, Archive
from sn7.files import lock, read_json

NOBODY = 65534
PIECE = 10_000


def _archive(split: str, count: int) -> tuple[dict[str, bytes], bytes]:
    """Return files of 20 kB that do not compress, and the archive of them."""
    noise = random.Random(split)
    files = {f"{split}/scene{number}/images/{number}.tif": noise.randbytes(20_000) for number in range(count)}
    return files, _pack(files)


def _pack(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


CONTENT = {split: _archive(split, count) for split, count in {"train": 8, "csvs": 1, "test_public": 3}.items()}
TRAIN_FILES, TRAIN = CONTENT["train"]


def md5(content: bytes) -> str:
    """Return a checksum as it is published."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def key(split: str) -> str:
    """Return the name of an archive's object."""
    return PREFIX + ARCHIVES[split].name


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Serve the bucket."""
    with serve_s3() as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture(autouse=True)
def published(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish small archives and their sums; ask for them in small pieces, and wait for nothing."""
    for split, (_, content) in CONTENT.items():
        server.put(BUCKET, key(split), content)
        if split != "csvs":
            monkeypatch.setitem(ARCHIVES, split, Archive(ARCHIVES[split].name, md5(content)))
    monkeypatch.setattr(bucket_module, "PIECE", PIECE)
    monkeypatch.setattr(bucket_module, "WAITS", (0.01, 0.01, 0.01))


def files(out: Path) -> dict[str, bytes]:
    """Return what was unpacked."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(".download/")}


def work(out: Path) -> set[str]:
    """Return what lies in the folder for what is not data."""
    return {path.name.replace("SN7_buildings_", "") for path in (out / ".download").iterdir()} - {".lock"}


def command(out: Path, url: str, split: str | None = "train") -> list[str]:
    """Return the arguments of a download."""
    return ["download", str(out), "--endpoint-url", url, *(["--split", split] if split else [])]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function: arguments, parts of what is said → the sentence; asserts that there is one, and exit 1."""

    def check(arguments: list[str], *said: str) -> str:
        capsys.readouterr()
        status = main(arguments)
        printed = capsys.readouterr()
        assert (status, printed.out) == (1, "")
        assert printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
        for part in said:
            assert part in printed.err
        return printed.err

    return check


# --- a connection that can be cut -------------------------------------------------------------------------------------


class Proxy(socketserver.ThreadingTCPServer):
    """Passes requests on to a server, one a connection, and notes which bytes they ask for."""

    daemon_threads = True

    def __init__(self, url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.target = ("127.0.0.1", int(url.rpartition(":")[2]))
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.fate: Callable[[int], int | None] = lambda number: None
        """Number of a connection → bytes of the answer until it is cut; None: all."""
        self.stalls = False
        """Whether it is not cut but says nothing more."""
        self.number = itertools.count()
        self.ranges: list[tuple[int, int]] = []
        self.end = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that has gone, which may happen: what the command says is tested."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Passing(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        left = self.server.fate(next(self.server.number))
        request = b""
        while not request.endswith(b"\r\n\r\n"):
            request += self.request.recv(65536)
        if span := re.search(rb"(?i)range: bytes=(\d+)-(\d+)", request):
            self.server.ranges.append((int(span[1]), int(span[2]) + 1))
        with create_connection(self.server.target) as upstream:
            upstream.sendall(request)
            while (left is None or left > 0) and (answer := upstream.recv(65536 if left is None else left)):
                self.request.sendall(answer)
                left = None if left is None else left - len(answer)
        if left == 0 and self.server.stalls:
            self.server.end.wait(60)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """Run a proxy before the server."""
    with Proxy(server.url) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.end.set()
        running.shutdown()


# --- success ----------------------------------------------------------------------------------------------------------


def test_all_archives(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Downloaded, checked, unpacked, removed; the second run does nothing, also without a network, and says so."""
    out = tmp_path / "out"
    assert main(command(out, server.url, None)) == 0
    said, err = capsys.readouterr()
    assert err == ""
    assert files(out) == {name: content for split in CONTENT.values() for name, content in split[0].items()}
    assert work(out) == {"train.tar.gz.json", "train_csvs.tar.gz.json", "test_public.tar.gz.json"}
    assert re.sub(r"[\d.]+kB", "SIZE", said).splitlines() == [
        "SN7_buildings_train.tar.gz: SIZE downloaded; md5 as published",
        "SN7_buildings_train_csvs.tar.gz: SIZE downloaded; md5 as the server has it (none is published)",
        "SN7_buildings_test_public.tar.gz: SIZE downloaded; md5 as published",
        f"{out}: 3 of 3 archives downloaded and unpacked, 0 skipped that had been before; 12 files written, 0 skipped "
        "that were there with their size",
    ]
    marker = read_json(out / ".download" / "SN7_buildings_train.tar.gz.json")
    assert marker == {"key": key("train"), "size": len(TRAIN), "etag": md5(TRAIN), "files": 8} | {
        "checked": "md5 as published"
    }
    assert main(command(out, "http://127.0.0.1:9", None)) == 0
    said = capsys.readouterr().out
    assert said.count("skipped, unpacked before") == 3
    assert "train.tar.gz: skipped, unpacked before (8 files); to repeat it remove " in said
    assert "0 of 3 archives downloaded and unpacked, 3 skipped that had been before; 0 files written" in said


def test_one_archive_after_the_other(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--split takes one; without it the others come, and files that are there already are not written again."""
    assert main(command(tmp_path, server.url, "csvs")) == 0
    assert set(files(tmp_path)) == set(CONTENT["csvs"][0])
    name = "train/scene3/images/3.tif"
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_bytes(TRAIN_FILES[name])
    capsys.readouterr()
    assert main(command(tmp_path, server.url, None)) == 0
    said = capsys.readouterr().out
    assert "2 of 3 archives downloaded and unpacked, 1 skipped that had been before" in said
    assert "10 files written, 1 skipped that were there with their size" in said


def test_a_note_that_cannot_be_read(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of what was unpacked: the archive is fetched again, and no file written twice."""
    assert main(command(tmp_path, server.url)) == 0
    (tmp_path / ".download" / "SN7_buildings_train.tar.gz.json").write_text("{")
    assert main(command(tmp_path, server.url)) == 0
    assert "0 files written, 8 skipped that were there" in capsys.readouterr().out


def test_the_splits_of_the_command() -> None:
    """They are those of the archives."""
    assert tuple(ARCHIVES) == SPLITS


def test_requests_are_few_ahead(proxy: Proxy) -> None:
    """So that memory is bounded where the disk is slower than the network."""
    bucket = Bucket(BUCKET, proxy.url)
    remote = bucket.find(key("train"))
    proxy.ranges.clear()
    pieces = bucket.pieces(remote, 5)
    taken = [next(pieces), next(pieces)]
    threading.Event().wait(0.3)
    assert sorted(proxy.ranges) == [(5 + i * PIECE, 5 + (i + 1) * PIECE) for i in range(bucket_module.AT_ONCE + 1)]
    assert b"".join([*taken, *pieces]) == TRAIN[5:]


# --- a network that fails ---------------------------------------------------------------------------------------------


def test_a_cut_connection(
    proxy: Proxy, tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What has come stays; the second run asks for the rest alone, and checks the whole."""
    proxy.fate = lambda number: None if number < 6 else 700
    refused(command(tmp_path, proxy.url), proxy.url, key("train"), "same command again: it goes on from what is there")
    part = tmp_path / ".download" / "SN7_buildings_train.tar.gz.part"
    there = part.stat().st_size
    assert 0 < there < 6 * PIECE and part.read_bytes() == TRAIN[:there]
    assert files(tmp_path) == {}
    proxy.fate = lambda number: None
    proxy.ranges.clear()
    assert main(command(tmp_path, proxy.url)) == 0
    assert files(tmp_path) == TRAIN_FILES
    assert f"{(len(TRAIN) - there) / 1000:.0f}kB downloaded, {there / 1000:.1f}kB were there" in capsys.readouterr().out
    # As sets: in this process the first run's last requests may still arrive.
    assert set(proxy.ranges) == {(0, 1)} | {
        (first, min(first + PIECE, len(TRAIN))) for first in range(there, len(TRAIN), PIECE)
    }


@pytest.mark.parametrize("stalls", [False, True])
def test_a_connection_that_recovers(
    stalls: bool, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in every third answer, within the header or the bytes, or silent there: one run is enough."""
    monkeypatch.setattr(bucket_module, "TIMEOUT", 0.3)
    proxy.stalls = stalls
    proxy.fate = lambda number: (100, 3000, 0)[number % 9 // 3] if number % 3 == 0 else None
    assert main(command(tmp_path, proxy.url)) == 0
    assert files(tmp_path) == TRAIN_FILES


@contextmanager
def answering(status: int) -> Iterator[str]:
    """Serve a web page with this status to every request; yield the address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.asked += 1  # type: ignore[attr-defined]
            self.send_response(status)
            self.send_header("Content-Length", "1")
            self.end_headers()
            self.wfile.write(b"<")

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        http.asked = 0  # type: ignore[attr-defined]
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        assert http.asked == (3 if status == 503 else 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:9", "cannot be read from http://127.0.0.1:9 (Could not connect"),
        ("http://no-such-host.invalid", "check the network and --endpoint-url"),
        ("no address", "no address cannot be used as an S3 server (Invalid endpoint"),
        ("ftp://127.0.0.1/", "was not a valid URI"),
        (503, "(Service Unavailable); check the network"),
        (200, "does not answer a request for a part of s3://spacenet-dataset"),
    ],
)
def test_servers_that_are_none(url: str | int, said: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    """A closed port, an unknown host, no address, one out of order (asked a few times), a web page."""
    if isinstance(url, str):
        refused(command(tmp_path, url), said)
    else:
        with answering(url) as address:
            refused(command(tmp_path, address), said)
    assert work(tmp_path) == set()


def test_what_is_not_there_and_what_is_not_ours(server: Server, tmp_path: Path, refused: Callable[..., str]) -> None:
    """An object that is not public, no object, no bucket: the sentence tells which."""
    server.put(BUCKET, key("train"), TRAIN, public=False)
    refused(command(tmp_path, server.url), key("train"), "wanted an archive that everyone may read")
    server.drop_bucket(BUCKET)
    server.make_bucket(BUCKET)
    refused(command(tmp_path, server.url), key("train"), "specified key does not exist", "check --endpoint-url")
    server.drop_bucket(BUCKET)
    refused(command(tmp_path, server.url), "specified bucket does not exist", "check --endpoint-url")
    server.make_bucket(BUCKET)


# --- archives that are wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "csvs"])
def test_a_wrong_md5(split: str, proxy: Proxy, tmp_path: Path, refused: Callable[..., str]) -> None:
    """Bytes of an earlier run count; the file goes, nothing was unpacked, and the next run succeeds."""
    proxy.fate = lambda number: None if number < 3 else 0
    refused(command(tmp_path, proxy.url, split))
    proxy.fate = lambda number: None
    content = CONTENT[split][1]
    part = tmp_path / ".download" / f"{ARCHIVES[split].name}.part"
    changed = b"X" + part.read_bytes()[1:]
    part.write_bytes(changed)
    sums = f"has the md5 {md5(changed + content[len(changed) :])}; wanted {md5(content)}"
    refused(command(tmp_path, proxy.url, split), ARCHIVES[split].name, sums)
    assert work(tmp_path) == set() and files(tmp_path) == {}
    assert main(command(tmp_path, proxy.url, split)) == 0
    assert files(tmp_path) == CONTENT[split][0]


def test_no_md5_at_all(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an object uploaded in parts the server has none: that is said."""
    found = Bucket(BUCKET, server.url).find(key("csvs"))
    remote = bucket_module.Remote(found.key, found.size, f"{found.etag}-2")
    place = download_module._Place(tmp_path, ARCHIVES["csvs"])
    assert download_module._check(place, remote) == "no md5 of it is known, its size was checked"


def test_an_archive_that_holds_a_link(server: Server, tmp_path: Path, refused: Callable[..., str]) -> None:
    """The whole command refuses it, every time; the other kinds are tested with `unpack`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("csvs/evil")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)
    server.put(BUCKET, key("csvs"), buffer.getvalue())
    for _ in range(2):
        refused(command(tmp_path, server.url, "csvs"), "SN7_buildings_train_csvs.tar.gz", "'csvs/evil', a link")
        assert not (tmp_path / "csvs").exists()


def test_an_archive_that_is_damaged(server: Server, tmp_path: Path, refused: Callable[..., str]) -> None:
    """The sentence says which file to remove."""
    server.put(BUCKET, key("csvs"), gzip.compress(b"no tar" * 200))
    refused(command(tmp_path, server.url, "csvs"), "train_csvs.tar.gz.part is damaged", "remove it")


def test_an_object_that_is_replaced(
    server: Server, proxy: Proxy, tmp_path: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """During a run it ends with a sentence; between two runs the second starts anew, and says so."""
    new_files, new = _archive("other", 9)
    ARCHIVES["train"] = Archive(ARCHIVES["train"].name, md5(new))

    part = tmp_path / ".download" / "SN7_buildings_train.tar.gz.part"
    replaced = []

    def replace(number: int) -> int | None:
        if not replaced and part.exists() and part.stat().st_size > 0:
            replaced.append(number)
            server.put(BUCKET, key("train"), new)
        return None

    proxy.fate = replace
    refused(command(tmp_path, proxy.url), "was replaced on the server meanwhile", "starts anew")
    assert part.stat().st_size > 0
    assert main(command(tmp_path, proxy.url)) == 0
    assert "begun anew: it was replaced on the server" in capsys.readouterr().out
    assert files(tmp_path) == new_files


# --- processes that end -----------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
from sn7 import bucket, download, unpack
from sn7.cli import main
kill, md5, *arguments = sys.argv[1:]
download.ARCHIVES["train"] = download.Archive(download.ARCHIVES["train"].name, md5)
bucket.PIECE = 10_000
left = 3

def dying(work, last):
    def count(*arguments):
        global left
        left -= 1
        if left < 0:
            last(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return work(*arguments)
    return count

def half(content, file, size):
    file.write(content.read(7))
    file.flush()

if kill == "download":
    pieces = bucket.Bucket.pieces
    bucket.Bucket.pieces = lambda *arguments: map(dying(bytes, bytes), pieces(*arguments))
if kill == "unpack":
    unpack.shutil.copyfileobj = dying(unpack.shutil.copyfileobj, half)
sys.exit(main(arguments))
"""
"""Runs a command that kills its process at the fourth piece or the fourth file."""


@pytest.mark.parametrize("where", ["download", "unpack"])
def test_a_process_that_is_killed(where: str, server: Server, tmp_path: Path) -> None:
    """Without a chance to tidy up: the second run completes, and leaves nothing temporary."""
    arguments = [md5(TRAIN), *command(tmp_path, server.url)]
    ends = [
        subprocess.run([sys.executable, "-c", SCRIPT, kill, *arguments], capture_output=True, text=True, timeout=60)
        for kill in (where, "nowhere")
    ]
    assert [end.returncode for end in ends] == [-9, 0], ends
    expected = "30.0kB were there" if where == "download" else "5 files written, 3 skipped that were there"
    assert expected in ends[1].stdout
    assert files(tmp_path) == TRAIN_FILES
    assert work(tmp_path) == {"train.tar.gz.json"}


def test_two_at_once(server: Server, tmp_path: Path, refused: Callable[..., str]) -> None:
    """The second is refused."""
    with lock(tmp_path / ".download" / ".lock"):
        refused(command(tmp_path, server.url), "another process is at work")


# --- disks that are full or closed ------------------------------------------------------------------------------------


@needs_root
def test_a_disk_that_is_too_small(server: Server, tmp_path: Path, refused: Callable[..., str]) -> None:
    """Refused before anything is downloaded, with what is wanted and what there is."""
    with small_disk(tmp_path / "disk", "400k") as disk:
        sizes = [tqdm.format_sizeof(times * len(TRAIN)) for times in (3, 1, 2)]
        wanted = "kB free; wanted about {}B, {}B for an archive and {}B for what is in them".format(*sizes)
        refused(command(disk / "out", server.url), str(disk / "out"), wanted)
        assert work(disk / "out") == set()


@needs_root
@pytest.mark.parametrize(("room", "said"), [(80_000, "download"), (230_000, "unpack")])
def test_a_disk_that_fills_up(
    room: int, said: str, server: Server, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While downloading and while unpacking: one sentence, nothing half-written, and a second run goes on."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        out, filler = disk / "out", disk / "filler"
        with monkeypatch.context() as patch:
            patch.setattr("sn7.download.free_bytes", lambda path: 1 << 40)
            filler.write_bytes(bytes(shutil.disk_usage(disk).free - room))
            refused(command(out, server.url), f"{out} cannot be written to: the disk is full", "goes on")
        part = out / ".download" / "SN7_buildings_train.tar.gz.part"
        there = part.stat().st_size
        assert (0 < there < len(TRAIN)) if said == "download" else (there == len(TRAIN) and files(out))
        assert files(out).items() <= TRAIN_FILES.items()
        filler.unlink()
        assert main(command(out, server.url)) == 0
        assert files(out) == TRAIN_FILES


def test_a_folder_that_is_read_only(server: Server, refused: Callable[..., str]) -> None:
    """It is named, before anything is asked for."""
    common = Path(tempfile.mkdtemp(prefix="sn7-test-"))  # not pytest's folder, which nobody else can look into
    is_root = os.geteuid() == 0
    try:
        common.chmod(0o555)
        if is_root:
            os.seteuid(NOBODY)
        refused(command(common, "http://127.0.0.1:9"), f"{common}/.download cannot be written to (Permission denied)")
    finally:
        if is_root:
            os.seteuid(0)
        common.chmod(0o755)
        shutil.rmtree(common)


def test_a_folder_that_is_a_file(server: Server, tmp_path: Path, refused: Callable[..., str]) -> None:
    """It is named, and what it is."""
    (tmp_path / "out").write_text("")
    refused(command(tmp_path / "out", server.url), "out/.download cannot be written to (it is no folder)")


@pytest.mark.parametrize("place", ["train", "train/scene"])
def test_a_file_in_the_place_of_a_folder(
    place: str, server: Server, tmp_path: Path, refused: Callable[..., str]
) -> None:
    """It is named, the archive is kept, and once it is gone the same command ends well."""
    name = next(name for name in TRAIN_FILES if name.count("/") > 1)
    there = tmp_path / "out" / (name.split("/")[0] if place == "train" else name.rpartition("/")[0])
    there.parent.mkdir(parents=True, exist_ok=True)
    there.write_text("")
    refused(command(tmp_path / "out", server.url), f"{there}", "remove what is in its place")
    there.unlink()
    assert main(command(tmp_path / "out", server.url)) == 0
    assert files(tmp_path / "out") == TRAIN_FILES
