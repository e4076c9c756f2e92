import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sn7.errors import ArchiveInvalid, FolderUnwritable
from sn7.unpack import Unpacked, unpack

FILES = {
    "train/a/images/1.tif": bytes(range(256)) * 40,
    "train/a/labels/1.geojson": b"{}",
    "train/empty": b"",
    "train/b/2.tif": b"x" * 512,
}


def tar(*members: tarfile.TarInfo | tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar of files (name, content) and of other members as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size, info.mode = len(member[1]), 0o6755
                archive.addfile(info, io.BytesIO(member[1]))
    return buffer.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Return a member that is no file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def pack(folder: Path, plain: bytes) -> Path:
    """Write a tar as an archive in a folder of its own; return its path."""
    return save(folder, gzip.compress(plain, 1))


def save(folder: Path, content: bytes) -> Path:
    """Write an archive in a folder of its own; return its path."""
    path = folder / "archives" / "a.tar.gz"
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def found(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Return an archive of FILES, with an entry for a folder."""
    return pack(tmp_path, tar(special("./train", tarfile.DIRTYPE), *FILES.items()))


def test_every_file_comes_out(archive: Path, tmp_path: Path) -> None:
    """With its content, as an ordinary file; a second time none is written."""
    out = tmp_path / "out"
    assert unpack(archive, out) == Unpacked(written=4, there=0)
    assert found(out) == FILES
    assert {path.stat().st_mode & 0o7111 for path in out.rglob("*") if path.is_file()} == {0}
    assert unpack(archive, out) == Unpacked(written=0, there=4)
    assert Unpacked(written=1, there=4).files == 5


def test_it_goes_on_where_it_was_ended(archive: Path, tmp_path: Path) -> None:
    """Files that are missing or have another size are written; a temporary file that a kill left is used up."""
    out = tmp_path / "out"
    unpack(archive, out)
    (out / "train/b/2.tif").unlink()
    (out / "train/b/.tmp-2.tif").write_bytes(b"x" * 100)
    (out / "train/a/labels/1.geojson").write_bytes(b"{")
    assert unpack(archive, out) == Unpacked(written=2, there=2)
    assert found(out) == FILES


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(format: int, tmp_path: Path) -> None:
    """Scenes' names make paths of more than 100 characters."""
    name = f"train/{'s' * 60}/{'i' * 90}.tif"
    unpack(pack(tmp_path, tar((name, b"1"), format=format)), tmp_path / "out")
    assert found(tmp_path / "out") == {name: b"1"}


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (("/tmp/sn7-evil", b"1"), "a path that leads out of the folder"),
        (("../evil", b"1"), "a path that leads out of the folder"),
        (("train/../../evil", b"1"), "a path that leads out of the folder"),
        (special("../evil", tarfile.DIRTYPE), "a path that leads out of the folder"),
        ((".", b"1"), "a path that leads out of the folder"),
        (special("train/evil", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (special("train/evil", tarfile.SYMTYPE, "ok"), "a link"),
        (special("train/evil", tarfile.LNKTYPE, "train/ok"), "a link"),
        (special("train/evil", tarfile.CHRTYPE), "a device or pipe"),
        (special("train/evil", tarfile.BLKTYPE), "a device or pipe"),
        (special("train/evil", tarfile.FIFOTYPE), "a device or pipe"),
        (("archives/a.tar.gz", b"1"), "a path into the folder of the archive itself"),
        (("away/evil", b"1"), "leads out of"),
        (("loop/evil", b"1"), "leads out of"),
        (special("away", tarfile.DIRTYPE), "leads out of"),
    ],
)
def test_malicious_members(member: tarfile.TarInfo | tuple[str, bytes], said: str, tmp_path: Path) -> None:
    """Refused by archive and name; nothing of them, and nothing that comes after, is written anywhere."""
    out = tmp_path / "top" / "out"
    out.mkdir(parents=True)
    content = gzip.compress(tar(("train/ok", b"ok"), member, ("train/late", b"1")))
    path = save(out, content)
    (tmp_path / "elsewhere").mkdir()
    (out / "away").symlink_to(tmp_path / "elsewhere")
    (out / "loop").symlink_to(out / "away" / "none")
    name = member.name if isinstance(member, tarfile.TarInfo) else member[0]
    with pytest.raises(FolderUnwritable if said == "leads out of" else ArchiveInvalid) as caught:
        unpack(path, out)
    assert str(path) in str(caught.value) and repr(name) in str(caught.value) and said in str(caught.value)
    assert found(tmp_path) == {"top/out/train/ok": b"ok", "top/out/archives/a.tar.gz": content}
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["top", "out", "train", "ok", "archives", "a.tar.gz", "away", "loop", "elsewhere"]
    )
    assert not Path("/tmp/sn7-evil").exists()


def test_a_zero_in_a_name(tmp_path: Path) -> None:
    """A long name may hold what no file system takes."""
    plain = tar((f"train/{'s' * 120}Q", b"1")).replace(b"sQ", b"s\0")
    with pytest.raises(ArchiveInvalid, match=r"'train/s+\\x00', a path that leads out"):
        unpack(pack(tmp_path, plain), tmp_path / "out")


def test_links_at_the_place_of_a_file_are_replaced(archive: Path, tmp_path: Path) -> None:
    """What they lead to stays as it is, also where a temporary name is one."""
    kept, folder = tmp_path / "kept", tmp_path / "out/train/b"
    kept.write_bytes(b"x" * 512)
    folder.mkdir(parents=True)
    (folder / "2.tif").symlink_to(kept)
    (folder / ".tmp-2.tif").symlink_to(kept)
    assert unpack(archive, tmp_path / "out").written == 4
    assert found(tmp_path / "out") == FILES
    assert kept.read_bytes() == b"x" * 512


def test_links_within_the_folder_are_followed(archive: Path, tmp_path: Path) -> None:
    """They do no harm."""
    (tmp_path / "out/real").mkdir(parents=True)
    (tmp_path / "out/train").symlink_to("real")
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/real/b/2.tif").read_bytes() == FILES["train/b/2.tif"]


def _damaged() -> Iterator[tuple[str, bytes]]:
    plain = tar(*FILES.items())
    packed = gzip.compress(plain)
    yield "cut", packed[:-20]
    yield "cut at the checksum", packed[:-4]
    yield "wrong checksum", packed[:-8] + bytes(4) + packed[-4:]
    yield "empty", b""
    yield "no gzip", b"a web page" * 100
    yield "no tar", gzip.compress(b"a web page" * 100)
    yield "an empty tar", gzip.compress(b"")
    yield "tar cut in a header", gzip.compress(plain[: 512 * 3 + 100])
    yield "tar cut in a file", gzip.compress(plain[:1000])
    yield "tar without an end", gzip.compress(plain[: plain.rindex(b"x" * 512) + 512])
    late = plain.index(b"train/b/2.tif")
    yield "a broken header", gzip.compress(plain[:late] + b"X" + plain[late + 1 :])


@pytest.mark.parametrize("content", [pytest.param(content, id=name) for name, content in _damaged()])
def test_damaged_archives(content: bytes, tmp_path: Path) -> None:
    """One sentence; what is there of the files is whole, and nothing temporary stays behind."""
    path = save(tmp_path, content)
    with pytest.raises(ArchiveInvalid, match=r"a\.tar\.gz is damaged \(.+\); remove it"):
        unpack(path, tmp_path / "out")
    assert found(tmp_path / "out").items() <= FILES.items()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_anywhere(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A byte that is another, or an end that is missing: ArchiveInvalid, or every file as it was; nothing else."""
    folder = tmp_path_factory.mktemp("damage")
    packed = gzip.compress(tar(*FILES.items()), mtime=0)
    at = data.draw(st.integers(0, len(packed) - 1))
    if data.draw(st.booleans()):
        packed = packed[:at]
    else:
        packed = packed[:at] + bytes([packed[at] ^ data.draw(st.integers(1, 255))]) + packed[at + 1 :]
    try:
        unpack(save(folder, packed), folder / "out")
    except ArchiveInvalid:
        return
    assert found(folder / "out") == FILES


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Neither a large file nor many small ones are held in memory."""
    members = [(f"train/{number}", b"") for number in range(3000)]
    path = pack(tmp_path, tar(("train/large", bytes(40 << 20)), *members))
    tracemalloc.start()
    try:
        unpack(path, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out/train/large").stat().st_size == 40 << 20
