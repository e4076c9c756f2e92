"""A prepared data set: memory-mapped arrays and an index, read with numpy alone.

    PREPARED/index.json            format, fingerprint, one entry an image, what was left out
    PREPARED/<scene>/<image>.npy   uint8 (5, height, width): R, G, B, mask {0, 1}, valid {0, 1}

`sn7.prepare` writes it; training reads it on nodes that have no geospatial library.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sn7.errors import PreparedInvalid
from sn7.files import read_json, write_json

__all__ = ["FORMAT", "MASK", "RGB", "VALID", "Prepared", "PreparedImage", "load_prepared", "save_index"]

FORMAT = 1
RGB, MASK, VALID = slice(0, 3), 3, 4
"""Channels of a prepared array."""


@dataclass(frozen=True)
class PreparedImage:
    """One row of the index."""

    scene: str
    image: str
    """File name of the GeoTIFF without its ending."""
    date: str
    """Year and month, YYYY-MM."""
    height: int
    width: int
    transform: tuple[float, float, float, float, float, float]
    """Affine coefficients a b c d e f of the image's grid, in units of `crs`."""
    crs: str
    lon: float
    lat: float
    """Centre of the image, degrees."""
    labelled: bool
    footprints: int
    """Footprints that were rasterised."""
    valid_share: float
    """Share of the pixels that are valid, 0 to 1."""
    building_share: float
    """Share of the valid pixels that are building, 0 to 1."""
    sha256: str
    """Of the array's bytes."""
    source: str
    """Fingerprint of the files that the array was made from."""

    @property
    def array(self) -> str:
        """Path of the array, relative to the prepared folder."""
        return f"{self.scene}/{self.image}.npy"


@dataclass(frozen=True)
class Prepared:
    """An opened prepared data set; opening it reads no pixels."""

    folder: Path
    images: tuple[PreparedImage, ...]
    """Sorted by scene, then date."""
    fingerprint: str
    """Of all pixels, masks and names; the same on every machine for the same data."""

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, sorted."""
        return sorted({image.scene for image in self.images})

    def scene_images(self, scene: str, count: int | None = None) -> list[PreparedImage]:
        """Return the first `count` (or all) images of a scene that have labels and valid pixels, in date order."""
        found = [image for image in self.images if image.scene == scene and image.labelled and image.valid_share > 0]
        return found[:count]

    def centres(self) -> dict[str, tuple[float, float]]:
        """Return the centre (lon, lat) in degrees of each scene's first image."""
        return {image.scene: (image.lon, image.lat) for image in reversed(self.images)}

    def pixels(self, image: PreparedImage) -> npt.NDArray[np.uint8]:
        """Return the memory map of an image, uint8 (5, height, width); see the module for its channels.

        Raises PreparedInvalid where the file is missing or of another shape.
        """
        path = self.folder / image.array
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise PreparedInvalid(f"{path} cannot be read ({error}); run `sn7 prepare` again.") from error
        if array.shape != (5, image.height, image.width) or array.dtype != np.uint8:
            raise PreparedInvalid(
                f"{path} holds {array.dtype} {array.shape}; wanted uint8 {(5, image.height, image.width)}: "
                "run `sn7 prepare` again."
            )
        return array


def save_index(folder: Path, images: list[PreparedImage], fingerprint: str, left_out: list[str]) -> None:
    """Write the index of a prepared folder, atomically; `left_out` is one sentence for each thing not used."""
    rows = [asdict(image) for image in images]
    write_json(
        folder / "index.json",
        {"format": FORMAT, "fingerprint": fingerprint, "left_out": left_out, "images": rows},
    )


def load_prepared(folder: Path) -> Prepared:
    """Open a prepared folder.

    Raises PreparedInvalid where there is no index, or one of another format.
    """
    path = folder / "index.json"
    try:
        index: dict[str, Any] = read_json(path)
    except FileNotFoundError as error:
        raise PreparedInvalid(
            f"{folder} is no prepared data set (no index.json); make one with `sn7 prepare`."
        ) from error
    except (OSError, ValueError) as error:
        raise PreparedInvalid(f"{path} cannot be read ({error}); run `sn7 prepare` again.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise PreparedInvalid(f"{path} has format {found!r}; wanted {FORMAT}: run `sn7 prepare` again.")
    try:
        rows = [PreparedImage(**{**row, "transform": tuple(row["transform"])}) for row in index["images"]]
        return Prepared(folder, tuple(rows), index["fingerprint"])
    except (KeyError, TypeError) as error:
        raise PreparedInvalid(f"{path} lacks a field ({error}); run `sn7 prepare` again.") from error
