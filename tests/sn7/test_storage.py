import functools
import hashlib
import http.server
import json
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import s3fs
from s3 import Server

from sn7 import storage
from sn7.cli import main
from sn7.errors import DiskFull, PreparedInvalid, StorageUnavailable
from sn7.prepare import prepare
from sn7.prepared import Prepared, array_name, load_prepared
from sn7.publish import publish
from sn7.sample import make_sample
from sn7.storage import cache_folder, is_url, local

BUCKET = "sn7-shared"
URL = f"s3://{BUCKET}/prepared/sample"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small data set: three scenes of two months, one more to predict."""
    folder = tmp_path_factory.mktemp("storage") / "data"
    make_sample(folder, scenes=3, months=2, size=64)
    return folder


@pytest.fixture(scope="module")
def prepared(data: Path) -> Path:
    """Return it prepared."""
    folder = data.with_name("prepared")
    prepare(data, folder)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("[!.]*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.npy")}


def test_a_prepared_set_is_published_and_fetched(s3: Server, prepared: Path) -> None:
    """Byte for byte; a second time neither sends nor fetches anything."""
    assert publish(prepared, URL) == 18  # six images, each with its footprints and its description
    copy = local(URL)
    assert _files(copy) == _files(prepared)
    assert load_prepared(URL).fingerprint == load_prepared(prepared).fingerprint
    before = _times(copy)
    assert publish(prepared, URL) == 0
    assert local(URL) == copy and _times(copy) == before


def test_only_what_has_changed_is_sent_and_fetched(s3: Server, prepared: Path, tmp_path: Path) -> None:
    """One image less and one with another mask: its files are sent, what is new is fetched, the other's are removed."""
    publish(prepared, URL)
    before = _times(local(URL))
    again = tmp_path / "again"
    shutil.copytree(prepared, again)
    *_, gone = described = sorted(again.glob("*/*.json"))
    lost = [path.name for path in gone.parent.glob(f"{gone.stem}.*npy")]
    for path in (gone, *(gone.parent / name for name in lost)):
        path.unlink()
    other = described[0].with_suffix(".npy")
    array = bytearray(other.read_bytes())
    array[-1] ^= 1
    other.write_bytes(array)
    description = other.with_suffix(".json")
    description.write_text(description.read_text().replace('"sha256": "', '"sha256": "0', 1))
    assert publish(again, URL) == 3
    after = _times(local(URL))
    assert set(before) - set(after) == set(lost) and len(lost) == 2
    assert [name for name in after if after[name] != before[name]] == [other.name]
    assert _files(local(URL)) == _files(again)


def test_fine_labels_travel_with_their_arrays(s3: Server, data: Path, prepared: Path, tmp_path: Path) -> None:
    """To the URL and from there; what the URL has lost is sent again, what the set has no more is removed."""
    fine = prepare(data, tmp_path / "fine", upscales=(2, 3)).prepared
    assert publish(fine.folder, URL) == 30
    fetched = load_prepared(URL)
    assert fetched == replace(fine, folder=fetched.folder, url=URL)
    for image in fine.images:
        assert np.array_equal(fetched.fine_labels(image, 3), fine.fine_labels(image, 3))
    assert publish(fine.folder, URL) == 0
    lost = array_name(fine.images[0].scene, fine.images[0].image, 2)
    fsspec.filesystem("s3").rm_file(f"{BUCKET}/prepared/sample/{lost}")
    assert publish(fine.folder, URL) == 5
    assert _files(local(URL)) == _files(fine.folder)
    publish(prepared, URL)
    assert _files(local(URL)) == _files(prepared)


def test_an_unfinished_set_is_not_taken_for_a_finished_one(s3: Server, prepared: Path) -> None:
    """While somebody publishes there is no index there, and none in the copy either."""
    publish(prepared, URL)
    local(URL)
    fsspec.filesystem("s3").rm_file(f"{BUCKET}/prepared/sample/index.json")
    with pytest.raises(PreparedInvalid, match=r"no index\.json"):
        load_prepared(URL)


def test_a_fetch_that_was_cut_off_goes_on(s3: Server, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched stays, the index comes last, and the rest is all that is fetched then."""
    publish(prepared, URL)
    monkeypatch.setattr("sn7.storage.AT_ONCE", 4)
    real, calls = storage._get, []

    def cut(fs: s3fs.S3FileSystem, root: str, names: list[str], folder: Path) -> None:
        calls.append(len(names))
        if len(calls) == 2:
            raise ConnectionError("cut")
        real(fs, root, names, folder)

    monkeypatch.setattr(storage, "_get", cut)
    with pytest.raises(StorageUnavailable, match=r"s3://sn7-shared/prepared/sample cannot be reached \(ConnectionErr"):
        local(URL)
    assert len(_files(cache_folder(URL))) == 4 and not (cache_folder(URL) / "index.json").exists()
    assert not (cache_folder(URL) / ".tmp-fetch").exists()
    calls[:] = [0, 0]
    assert _files(local(URL)) == _files(prepared)
    assert calls[2:] == [4, 4, 4, 2, 1]


def test_a_fetch_that_is_asked_to_leave(s3: Server, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends between files with what it was told, lets the next process in, and what it has fetched stays."""
    publish(prepared, URL)
    monkeypatch.setattr("sn7.storage.AT_ONCE", 4)
    answers = [None, None, InterruptedError("the study was asked to stop")]
    with pytest.raises(InterruptedError, match=r"^the study was asked to stop$"):
        load_prepared(URL, lambda: answers.pop(0))
    assert len(_files(cache_folder(URL))) == 8 and not (cache_folder(URL) / "index.json").exists()
    assert load_prepared(URL, lambda: None).fingerprint == load_prepared(prepared).fingerprint


def test_processes_of_a_node_fetch_once(s3: Server, prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three at the same time: the server is asked for each file once."""
    publish(prepared, URL)
    with caplog.at_level("INFO", "werkzeug"), ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        copies = list(pool.map(local, [URL] * 3))
    assert _files(copies[0]) == _files(prepared) and len(set(copies)) == 1
    asked = [line for line in caplog.messages if f"GET /{BUCKET}/prepared/sample/" in line]
    assert len(asked) == len(_files(prepared)) == 19


def test_the_command_prepares_from_and_to_urls(
    s3: Server, data: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sn7 prepare s3://… s3://…`, twice."""
    for path in (path for path in data.rglob("*") if path.is_file()):
        s3.put(BUCKET, f"raw/{path.relative_to(data).as_posix()}", path.read_bytes())
    for made, sent in ((6, 18), (0, 0)):
        assert main(["prepare", f"s3://{BUCKET}/raw", URL]) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[-1].startswith(f"{URL}: 6 images of 3 scenes, {made} prepared, {6 - made} re")
        assert f"{sent} files sent" in out
    assert load_prepared(URL).fingerprint == load_prepared(prepared).fingerprint


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (f"s3://{BUCKET}/nothing", "s3://sn7-shared/nothing holds no file"),
        ("s3://no-such-bucket-here/x", "s3://no-such-bucket-here/x"),
        ("gopher://host/x", "gopher://host/x cannot be reached (ValueError: Protocol not known"),
    ],
)
def test_a_url_that_holds_nothing(url: str, sentence: str, s3: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence with the URL, from the command line."""
    assert main(["prepare", url, "anywhere"]) == 1
    assert sentence in capsys.readouterr().err
    assert not Path("anywhere").exists()


def test_a_name_that_leads_out_of_the_folder_is_refused(s3: Server, tmp_path: Path) -> None:
    """An object may be called anything; nothing is written beside the copy."""
    s3.put(BUCKET, "raw/../../escaped", b"x")
    s3.put(BUCKET, "raw/fine", b"x")
    with pytest.raises(StorageUnavailable, match="leads out of its folder"):
        local(f"s3://{BUCKET}/raw")
    assert not list(tmp_path.rglob("escaped"))


def test_a_path_stays_a_path(tmp_path: Path) -> None:
    """Nothing is looked up."""
    assert local(tmp_path) == local(str(tmp_path)) == tmp_path
    assert not is_url(tmp_path) and not is_url("C:/data") and is_url("s3://bucket/data")


def test_each_url_has_its_own_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A slash at the end makes no difference."""
    monkeypatch.setenv("SN7_CACHE", str(tmp_path))
    assert cache_folder("s3://a/data") == cache_folder("s3://a/data/") != cache_folder("s3://b/data")
    assert cache_folder("s3://a/data").parent == tmp_path


def _other_masks(data: Path, folder: Path) -> Path:
    """Return a copy of a data set whose label files have one footprint each."""
    shutil.copytree(data, folder)
    for path in folder.glob("train/*/labels_match/*.geojson"):
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "features": content["features"][:1]}))
    return folder


def _is_whole(opened: Prepared) -> bool:
    """Return whether each array, and its footprints, are those that the index tells of."""
    return all(_checksum(opened.pixels(image), opened.footprints(image)) == image.sha256 for image in opened.images)


def _checksum(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_a_preparation_that_failed_leaves_no_copy_of_the_url(
    s3: Server, data: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a damaged image, and where nothing could be sent: then the copy is again what is at the URL."""
    assert main(["prepare", str(data), URL]) == 0
    other = _other_masks(data, tmp_path / "other")
    last = sorted(other.glob("train/*/images_masked/*.tif"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:500])
    assert main(["prepare", str(other), URL, "--workers", "1"]) == 1
    assert _is_whole(load_prepared(URL)) and _files(local(URL)) == _files(prepared)
    last.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr("sn7.publish._changed", lambda *_: 1 / 0)
        assert main(["prepare", str(other), URL]) == 1
    assert load_prepared(URL).fingerprint == load_prepared(prepared).fingerprint


def test_what_is_published_during_a_fetch_is_fetched_too(
    s3: Server, data: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy has no array of the set before beside the new index."""
    prepare(_other_masks(data, tmp_path / "other"), tmp_path / "again")
    publish(prepared, URL)
    monkeypatch.setattr("sn7.storage.AT_ONCE", 4)
    real, calls = storage._get, []

    def slow(fs: s3fs.S3FileSystem, root: str, names: list[str], folder: Path) -> None:
        real(fs, root, names, folder)
        calls.append(names)
        if len(calls) == 1:
            publish(tmp_path / "again", URL)

    monkeypatch.setattr(storage, "_get", slow)
    assert _is_whole(load_prepared(URL))
    assert _files(local(URL)) == _files(tmp_path / "again")


def test_a_set_that_was_opened_is_not_exchanged(s3: Server, data: Path, prepared: Path, tmp_path: Path) -> None:
    """Maps that are open stay; what is opened later is refused, in that process and in one that goes on with it."""
    prepare(_other_masks(data, tmp_path / "other"), tmp_path / "again")
    publish(prepared, URL)
    opened = load_prepared(URL)
    image = opened.images[0]
    before = opened.pixels(image), opened.footprints(image)
    publish(tmp_path / "again", URL)
    assert load_prepared(opened.place) == opened  # the copy is still that set, so the URL is not asked
    local(URL)
    assert _checksum(*before) == image.sha256
    with pytest.raises(PreparedInvalid, match=r"sample has changed \(fingerprint \w{12}; wanted"):
        opened.pixels(image)
    with pytest.raises(PreparedInvalid, match="has changed"):
        load_prepared(opened.place)
    publish(prepared, URL)
    assert load_prepared(opened.place) == opened


def test_the_same_pixels_are_not_sent_again(s3: Server, data: Path, prepared: Path, tmp_path: Path) -> None:
    """Prepared from files of another time: of each image the description alone."""
    publish(prepared, URL)
    shutil.copytree(data, tmp_path / "later", copy_function=shutil.copyfile)
    prepare(tmp_path / "later", tmp_path / "again")
    assert publish(tmp_path / "again", URL) == 6
    assert _files(local(URL)) == _files(tmp_path / "again")


def test_a_copy_without_an_index_can_be_prepared_in(s3: Server, data: Path, prepared: Path) -> None:
    """Fetched while somebody else's publication was cut off."""
    publish(prepared, URL)
    fsspec.filesystem("s3").rm_file(f"{BUCKET}/prepared/sample/index.json")
    local(URL)
    assert main(["prepare", str(data), URL]) == 0
    assert _files(local(URL)) == _files(prepared)


def test_folders_as_the_console_makes_them(s3: Server) -> None:
    """Empty objects whose names end with a slash are no files; nor is a file a folder."""
    for name, content in (("raw/", b""), ("raw/train/", b""), ("raw/train/file", b"x")):
        s3.put(BUCKET, name, content)
    assert set(_files(local(f"s3://{BUCKET}/raw"))) == {"train/file"}
    with pytest.raises(StorageUnavailable, match="holds no file"):
        local(f"s3://{BUCKET}/raw/train/file")


def test_a_protocol_with_folders(
    data: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """file:// stands for those that S3 is none of."""
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "cache"))
    url = f"file://{tmp_path}/shared/prepared"
    assert main(["prepare", str(data), url]) == 0, capsys.readouterr().err
    assert load_prepared(url).fingerprint == load_prepared(prepared).fingerprint


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that writes no line a request."""

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def test_a_web_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lists tell neither sizes nor times; what has changed is fetched all the same."""
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / "web/set/scene").mkdir(parents=True, exist_ok=True)
        (tmp_path / "web/set/scene" / name).write_text("one")
    handler = functools.partial(_Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/set"
        assert _files(local(url)) == {"scene/a": b"one", "scene/b": b"one"}
        (tmp_path / "web/set/scene/b").write_text("another")
        assert _files(local(url)) == {"scene/a": b"one", "scene/b": b"another"}
        server.shutdown()


class _Bare(http.server.BaseHTTPRequestHandler):
    """A web server that tells no sizes, and lists a folder with links to sort it by and to the folder above."""

    def do_HEAD(self) -> None:
        """Say that it is there, and what it is."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.endswith(("set", "/")) else "text/plain")
        self.end_headers()

    def do_GET(self) -> None:
        """Send a list, or a file of three bytes."""
        self.do_HEAD()
        links = "".join(f'<a href="{link}">' for link in ("?C=M;O=A", "/", "a", "b"))
        self.wfile.write(links.encode() if self.path.endswith(("set", "/")) else b"one")

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def test_a_web_server_that_tells_no_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are fetched, and nothing that is none."""
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "cache"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bare) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert _files(local(f"http://127.0.0.1:{server.server_port}/set")) == {"a": b"one", "b": b"one"}
        server.shutdown()


def test_opening_reads_no_pixels(prepared: Path, tmp_path: Path) -> None:
    """The index is enough: whatever takes the place of the arrays shows when one is asked for."""
    shutil.copy(prepared / "index.json", tmp_path)
    opened = load_prepared(tmp_path)
    assert opened.images == load_prepared(prepared).images
    with pytest.raises(PreparedInvalid, match="cannot be read"):
        opened.pixels(opened.images[0])


@pytest.mark.parametrize("name", ["../other", "", ".."])
def test_an_index_cannot_name_files_elsewhere(prepared: Path, tmp_path: Path, name: str) -> None:
    """Since `sn7 masks` would write there."""
    index = json.loads((prepared / "index.json").read_text())
    index["images"][0]["scene"] = name
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(PreparedInvalid, match="wanted one without a path"):
        load_prepared(tmp_path)


def test_a_disk_without_room_is_said_before_anything_is_fetched(
    s3: Server, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is still to be fetched."""
    publish(prepared, URL)
    monkeypatch.setattr(storage, "free_bytes", lambda _: 1000)
    with pytest.raises(DiskFull, match=r"0\.0 GB of room; wanted 0\.\d GB for the copy: make room"):
        local(URL)
    assert _files(cache_folder(URL)) == {}


def test_somebody_else_publishes_meanwhile(s3: Server, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there then is not taken for ours."""
    sent = iter([True])

    def interfere(names: list[str], what: str) -> Iterator[list[str]]:
        yield names
        if next(sent, False):
            s3.put(BUCKET, "prepared/sample/other/image.npy", b"theirs")

    monkeypatch.setattr("sn7.publish.chunks", interfere)
    with pytest.raises(StorageUnavailable, match=r"was changed by somebody else meanwhile; publish again"):
        publish(prepared, URL)
    assert publish(prepared, URL) == 0
    assert _files(local(URL)) == _files(prepared)
