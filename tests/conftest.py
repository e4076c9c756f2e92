"""Fixtures that the tests of both packages share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import s3fs
import shapely
from s3 import Server, serve_s3

from sn7.folds import Split
from sn7.prepared import CHANNELS, Prepared, PreparedImage, array_name, footprints_name, load_prepared, save_index


@pytest.fixture
def make_prepared(tmp_path: Path) -> Callable[..., Prepared]:
    """Return a function: scenes, months, shape, upscales, separation → a prepared set, made up.

    Buildings are bright squares of 6 px on dark noise, on a grid that shifts from image to image; the first two
    rows of each image are invalid. Their outermost pixels are boundary; the column to the right of each is contact.
    Fine labels are those of the image's own grid, each pixel repeated.
    """

    def make(
        scenes: int = 4,
        months: int = 1,
        shape: tuple[int, int] = (64, 64),
        upscales: tuple[int, ...] = (),
        separation: bool = False,
    ) -> Prepared:
        folder = tmp_path / "prepared"
        images = []
        for scene in range(scenes):
            for month in range(months):
                images.append(_write_image(folder, scene, month, shape, upscales, separation))
        save_index(folder, images, "f" * 64, [], separation, upscales)
        return load_prepared(folder)

    return make


def _write_image(
    folder: Path, scene: int, month: int, shape: tuple[int, int], upscales: tuple[int, ...], separation: bool
) -> PreparedImage:
    random = np.random.default_rng(100 * scene + month)
    array = np.zeros((CHANNELS[separation], *shape), np.uint8)
    array[:3] = random.integers(40, 90, (3, *shape))
    squares = []
    for row in range(3 + scene, shape[0] - 8, 16):
        for col in range(4 + month, shape[1] - 8, 16):
            array[:3, row : row + 6, col : col + 6] += 120
            array[3, row : row + 6, col : col + 6] = 1
            squares.append(shapely.box(col, row, col + 6, row + 6))
            if separation:
                array[5, row : row + 6, col : col + 6] = 1
                array[5, row + 1 : row + 5, col + 1 : col + 5] = 0
                array[6, row : row + 6, col + 6] = 1
    array[4, 2:] = 1
    array[3, :2] = 0
    image = PreparedImage(
        scene=f"scene{scene}",
        image=f"image{month}",
        date=f"2020-{month + 1:02}",
        height=shape[0],
        width=shape[1],
        transform=(4.78, 0.0, 0.0, 0.0, -4.78, 0.0),
        crs="EPSG:3857",
        lon=10.0 * scene,
        lat=0.0,
        labelled=True,
        footprints=1,
        valid_share=float(array[4].mean()),
        building_share=float(array[3].sum() / array[4].sum()),
        ceiling=(int(array[3].sum()), 0, 0),
        sha256=f"{scene}{month}",
        source="",
    )
    path = folder / image.array
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    truth = shapely.to_wkb(shapely.geometrycollections(squares))
    np.save(folder / footprints_name(image.scene, image.image), np.frombuffer(truth, np.uint8))
    for upscale in upscales:
        fine = array[[3, 5, 6] if separation else [3]].repeat(upscale, axis=1).repeat(upscale, axis=2)
        np.save(folder / array_name(image.scene, image.image, upscale), np.packbits(fine, axis=2))
    return image


@pytest.fixture
def split() -> Split:
    """Return a split of the first three scenes of `make_prepared`."""
    return Split("test", ("scene0", "scene1"), ("scene2",))


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve S3 on this machine with a bucket sn7-shared, found by AWS's own variables; the cache is the test's own."""
    monkeypatch.setenv("SN7_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serve_s3() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        s3fs.S3FileSystem.clear_instance_cache()
        server.make_bucket("sn7-shared")
        yield server
        server.drop_bucket("sn7-shared")
        s3fs.S3FileSystem.clear_instance_cache()
