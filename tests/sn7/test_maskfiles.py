from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from sn7.cli import main
from sn7.errors import FolderUnwritable, PreparedInvalid
from sn7.maskfiles import NODATA, write_masks
from sn7.prepare import prepare
from sn7.prepared import MASK, VALID
from sn7.rasters import read_image

Make = Callable[..., Path]
Write = Callable[..., Path]


def spoil(data: Path, write_image: Write) -> None:
    """Make the first two rows of the first image unusable, and the second one unlabelled."""
    first, second = sorted(next((data / "train").iterdir()).glob("images_masked/*.tif"))[:2]
    image = read_image(first)
    alpha = np.full((1, *image.shape), 255, np.uint8)
    alpha[:, :2] = 0
    write_image(first, np.concatenate([image.rgb, alpha]), image.transform)
    for path in second.parents[1].glob(f"labels*/{second.stem}*"):
        path.unlink()


def test_masks_lie_on_their_images(make_data: Make, tmp_path: Path, write_image: Write) -> None:
    """Values, CRS, transform, nodata and colours are what QGIS needs; an unlabelled image has no mask."""
    data, out = make_data(scenes=1, months=3), tmp_path / "masks"
    spoil(data, write_image)
    prepared = prepare(data, tmp_path / "prepared", workers=1).prepared
    done = write_masks(tmp_path / "prepared", out)
    first, _, third = prepared.images
    assert (done.scenes, done.unlabelled) == (1, 1)
    assert done.written == tuple(out / image.scene / f"{image.image}_mask.tif" for image in (first, third))
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(done.written)
    pixels = prepared.pixels(first)
    with rasterio.open(done.written[0]) as raster:
        mask = raster.read(1)
        assert (raster.count, raster.dtypes, raster.nodata, raster.crs.to_epsg()) == (1, ("uint8",), NODATA, 3857)
        assert raster.transform == Affine(*first.transform)
        assert raster.colormap(1)[1] != raster.colormap(1)[0]
        assert (raster.profile["compress"], raster.profile["tiled"]) == ("deflate", True)
    assert (mask[:2] == NODATA).all()
    assert np.array_equal(mask[2:], pixels[MASK][2:])
    assert np.array_equal(mask == NODATA, pixels[VALID] == 0)


def test_command(make_data: Make, tmp_path: Path, write_image: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """The closing line counts images and what was left out; a second run replaces the files of the first."""
    data, out = make_data(scenes=2, months=2), tmp_path / "masks"
    spoil(data, write_image)
    prepare(data, tmp_path / "prepared", workers=1)
    for _ in range(2):
        assert main(["masks", str(tmp_path / "prepared"), str(out)]) == 0
        counts = "3 masks of 2 scenes written from 4 images, 1 unlabelled images left out"
        assert capsys.readouterr().out.startswith(f"{out}: {counts}")
    assert len(list(out.rglob("*"))) == 2 + 3


def test_bad_folders(make_data: Make, tmp_path: Path) -> None:
    """No prepared data set, and a file in place of the folder to write, are both said."""
    with pytest.raises(PreparedInvalid, match="is no prepared data set"):
        write_masks(tmp_path, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()
    prepare(make_data(scenes=1, months=1), tmp_path / "prepared", workers=1)
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnwritable, match="file cannot be written to"):
        write_masks(tmp_path / "prepared", tmp_path / "file")


def test_masks_of_a_utm_image_come_back(
    make_data: Make, tmp_path: Path, write_image: Write, write_labels: Write
) -> None:
    """The CRS goes through the index as text: a UTM image's mask lies in UTM."""
    data = make_data(scenes=1, months=1)
    image = next(data.rglob("*.tif"))
    transform = Affine(4, 0, 500_000, 0, -5, 3_360_000)
    write_image(image, np.full((4, 33, 31), 255, np.uint8), transform, "EPSG:32648")
    ring = [[500_008, 3_359_990], [500_016, 3_359_990], [500_016, 3_359_980], [500_008, 3_359_980]]
    polygon = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    write_labels(image.parents[1] / "labels_match" / f"{image.stem}_Buildings.geojson", [polygon])
    prepare(data, tmp_path / "prepared", workers=1)
    (path,) = write_masks(tmp_path / "prepared", tmp_path / "masks").written
    with rasterio.open(path) as raster:
        assert (raster.crs.to_epsg(), raster.transform) == (32648, transform)
        assert np.argwhere(raster.read(1)).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
