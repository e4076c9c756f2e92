import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sn7.errors import ImageUnreadable, LabelsUnreadable
from sn7.footprints import read_footprints
from sn7.prepare import prepare
from sn7.rasters import read_image

Make = Callable[..., Path]
Write = Callable[..., Path]

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"compress": "lzw", "predictor": 2},
    {"compress": "deflate", "tiled": True, "blockxsize": 16, "blockysize": 16},
    {"compress": "packbits", "interleave": "band"},
    {"compress": "zstd", "interleave": "pixel", "blockysize": 2},
    {"compress": "lzma"},
    {"bigtiff": "yes", "endianness": "big"},
    {"tiled": True, "blockxsize": 32, "blockysize": 32},
]
KEEP = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
places = st.floats(0, 1, exclude_max=True)
"""Where a file is cut, as a share of its bytes."""


@pytest.fixture
def wholes(tmp_path: Path, write_image: Write) -> list[bytes]:
    """Return the same noise as GeoTIFF files of all layouts."""
    bands = np.random.default_rng(0).integers(0, 256, (4, 33, 31), np.uint8)
    return [write_image(tmp_path / "whole.tif", bands, **layout).read_bytes() for layout in LAYOUTS]


@settings(KEEP, max_examples=400)
@given(layout=st.integers(0, len(LAYOUTS) - 1), place=places, from_end=st.booleans())
def test_a_truncated_image_is_unreadable(
    wholes: list[bytes], tmp_path: Path, layout: int, place: float, from_end: bool
) -> None:
    """Whatever its layout and wherever it ends: one error that names the file, no other, and no made-up pixel."""
    whole = wholes[layout]
    size = int(place * len(whole))
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: len(whole) - 1 - size if from_end else size])
    with pytest.raises(ImageUnreadable, match=r"cut\.tif"):
        read_image(cut)


@settings(KEEP, max_examples=100)
@given(place=places)
def test_truncated_labels_are_unreadable(tmp_path: Path, write_labels: Write, square, place: float) -> None:
    """A label file that ends too early is an error too, never fewer footprints."""
    path = write_labels(tmp_path / "cut.geojson", [square(2, 3, 5, 4), None], "EPSG:3857")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(place * len(whole))])
    with pytest.raises(LabelsUnreadable, match=r"cut\.geojson cannot be read"):
        read_footprints(path, "labels_match")


@pytest.fixture
def data_with_udm(make_data: Make, write_image: Write) -> Path:
    """Return a data set of two images, of which the first has a mask of unusable pixels."""
    data = make_data(scenes=1, months=2)
    image = min(data.rglob("*_01_mosaic_*.tif"))
    write_image(image.parents[1] / "UDM_masks" / f"{image.stem}_UDM.tif", np.zeros((1, 33, 31), np.uint8))
    return data


@settings(KEEP, max_examples=40)
@given(number=st.integers(0, 2), place=places)
def test_prepare_leaves_nothing_half_written(data_with_udm: Path, tmp_path: Path, number: int, place: float) -> None:
    """An image or a UDM that ends anywhere ends the run with its name; the store has no index and no remains."""
    path = sorted(data_with_udm.rglob("*.tif"))[number]
    whole, out = path.read_bytes(), tmp_path / "prepared"
    path.write_bytes(whole[: int(place * len(whole))])
    try:
        with pytest.raises(ImageUnreadable, match=path.name):
            prepare(data_with_udm, out, workers=1)
        left = [file for file in out.rglob("*") if file.is_file()]
        assert not [file for file in left if file.name.startswith((".tmp-", "index"))]
        assert len({file.name.split(".")[0] for file in left if file.suffix == ".npy"}) <= 1  # the image that is whole
    finally:
        path.write_bytes(whole)
    assert prepare(data_with_udm, out, workers=1).prepared.images[1].labelled
    shutil.rmtree(out)


def test_two_workers_leave_nothing_half_written(data_with_udm: Path, tmp_path: Path) -> None:
    """The same where the image is read in another process."""
    path, out = sorted(data_with_udm.rglob("*.tif"))[1], tmp_path / "prepared"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageUnreadable, match=path.name):
        prepare(data_with_udm, out, workers=2)
    assert not [file for file in out.rglob("*") if file.name.startswith((".tmp-", "index"))]
