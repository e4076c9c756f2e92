"""What breaks the content of an image's files; each returns the file to be named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine

Make = Callable[[Path], Path]
"""Called with the path of an image."""
ALL = ("labels_match", "labels_match_pix", "labels")


def labels(image: Path, folder: str = "labels_match", what: str = "Buildings") -> Path:
    """Return a label file of an image."""
    return image.parents[1] / folder / f"{image.stem}_{what}.geojson"


def udm(image: Path) -> Path:
    """Return the place of an image's UDM mask."""
    return image.parents[1] / "UDM_masks" / f"{image.stem}_UDM.tif"


def remove(image: Path) -> None:
    """Remove an image with all its files."""
    for path in image.parents[1].rglob(f"{image.stem}*"):
        path.unlink()


def cut(path: Path) -> Path:
    """Leave the first half of a file, as a download that broke off."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def with_feature(geometry: dict[str, Any] | None, folder: str = "labels_match") -> Make:
    """Return what adds a feature to a label file; positions are px from the image's corner."""

    def make(image: Path) -> Path:
        path = labels(image, folder)
        content = json.loads(path.read_text())
        with rasterio.open(image) as source:
            moved = geometry and {**geometry, "coordinates": _placed(geometry["coordinates"], source.transform)}
        content["features"].append({"type": "Feature", "properties": {"Id": 10_000}, "geometry": moved})
        path.write_text(json.dumps(content))
        return path

    return make


def _placed(part: Any, transform: Affine) -> Any:
    """Move positions, however deep they lie, from pixels to metres."""
    if part and not isinstance(part[0], list):
        return [transform.c + transform.a * part[0], transform.f + transform.e * part[1], *part[2:]]
    return [_placed(inner, transform) for inner in part]


def ring(column: float, row: float, side: float) -> list[list[float]]:
    """Return a square as a closed ring, px."""
    right, low = column + side, row + side
    return [[column, row], [right, row], [right, low], [column, low], [column, row]]


def polygon(*rings: Any) -> dict[str, Any]:
    """Return a GeoJSON polygon."""
    return {"type": "Polygon", "coordinates": list(rings)}


def rewritten_labels(change: Callable[[dict[str, Any]], Any]) -> Make:
    """Return what changes the label file's JSON in place."""

    def make(image: Path) -> Path:
        path = labels(image)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return path

    return make


def without_labels(*folders: str) -> Make:
    """Return what removes an image's label files in some folders."""

    def make(image: Path) -> Path:
        for folder in folders:
            labels(image, folder).unlink()
        return image

    return make


def rewritten_image(change: Callable[[np.ndarray, dict[str, Any]], np.ndarray], keep: str = "labels_match") -> Make:
    """Return what writes an image anew; `change` gets its bands and its profile. Other label folders lose theirs."""

    def make(image: Path) -> Path:
        with rasterio.open(image) as source:
            bands, profile = source.read(), dict(source.profile)
        bands = change(bands, profile)
        profile |= {"count": bands.shape[0], "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
        for name in ("photometric", "blockysize"):
            profile.pop(name, None)
        with rasterio.open(image, "w", **profile) as target:
            target.write(bands)
        for folder in set(ALL) - {keep}:
            labels(image, folder).unlink()
        udm(image).unlink(missing_ok=True)
        return image

    return make


def with_profile(**changes: Any) -> Make:
    """Return what writes an image anew with other properties."""

    def change(bands: np.ndarray, profile: dict[str, Any]) -> np.ndarray:
        profile |= changes
        return bands

    return rewritten_image(change)


def regridded(**changes: float) -> Make:
    """Return what changes coefficients of the geotransform; c counts from where it is, the others are new."""

    def change(bands: np.ndarray, profile: dict[str, Any]) -> np.ndarray:
        now = dict(zip("abcdef", profile["transform"], strict=False))
        moved = {**changes, "c": now["c"] + changes.get("c", 0)}
        profile["transform"] = Affine(*(now | moved).values())
        return bands

    return rewritten_image(change, keep="labels_match_pix" if "c" in changes else "labels_match")


def utm(bands: np.ndarray, profile: dict[str, Any]) -> np.ndarray:
    """Place an image in its zone of UTM, a little inside of the tile; its footprints remain in EPSG:3857."""
    x, y = profile["transform"].c + 20, profile["transform"].f - 20
    lon, _ = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform(x, y)
    zone = 32601 + int((lon + 180) // 6)
    east, north = pyproj.Transformer.from_crs(3857, zone, always_xy=True).transform(x, y)
    profile |= {"crs": f"EPSG:{zone}", "transform": Affine(3, 0, east, 0, -3, north)}
    return bands


def enlarged(height: int, width: int) -> Make:
    """Return what enlarges an image to this size, px."""

    def change(bands: np.ndarray, _: dict[str, Any]) -> np.ndarray:
        missing = height - bands.shape[1], width - bands.shape[2]
        return np.pad(bands, ((0, 0), (0, missing[0]), (0, missing[1])), constant_values=255)

    return rewritten_image(change)


def udm_of(shape: tuple[int, int]) -> Make:
    """Return what writes a UDM of this height and width, px, without one unusable pixel."""

    def make(image: Path) -> Path:
        path = udm(image)
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=shape[0], width=shape[1], dtype="uint8", crs="EPSG:3857",
            transform=Affine(1, 0, 1, 0, -1, 1),
        ) as target:  # fmt: skip
            target.write(np.zeros((1, *shape), np.uint8))
        return path

    return make


def unlabelled_with_cut_udm(image: Path) -> Path:
    """Remove the labels and cut the UDM."""
    path = cut(udm_of((64, 64))(image))
    without_labels(*ALL)(image)
    return path


def dangling(path: Path) -> Path:
    """Leave a link to nowhere in the place of a file, as git-annex does before it has got it."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("nowhere")
    return path


def unlabelled_with_dangling_udm(image: Path) -> Path:
    """Remove the labels and leave a link to nowhere as the UDM."""
    without_labels(*ALL)(image)
    return dangling(udm(image))
