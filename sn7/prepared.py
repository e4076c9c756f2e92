"""A prepared data set: memory-mapped arrays and an index, read with numpy alone.

    PREPARED/index.json                 format, fingerprint, one entry an image, what was left out
    PREPARED/<scene>/<image>.npy        uint8 (5 or 7, height, width): R, G, B, mask {0, 1}, valid {0, 1}
                                        and, where asked for, boundary {0, 1}, contact {0, 1}
    PREPARED/<scene>/<image>.x<s>.npy   fine labels, one file for each scale s that was asked for: footprints rasterised
                                        on the image's grid refined s times, uint8 (1 or 3, s·height, ⌈s·width / 8⌉):
                                        mask [, boundary, contact], eight columns a byte (numpy.packbits)
    PREPARED/<scene>/<image>.footprints.npy  the true footprints themselves, uint8 (n,); see sn7.footprints.packed

`sn7.prepare` writes it; training reads it on nodes that have no geospatial library.
"""

import errno
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sn7.errors import PreparedInvalid
from sn7.files import read_json, write_json
from sn7.signals import LeaveQuestion
from sn7.storage import cache_folder, is_url, local

__all__ = [
    "CHANNELS",
    "FORMAT",
    "MASK",
    "RGB",
    "SEPARATION",
    "UPSCALES",
    "VALID",
    "Prepared",
    "PreparedImage",
    "array_name",
    "fine_window",
    "footprints_name",
    "is_prepared",
    "load_prepared",
    "save_index",
]

FORMAT = 3
INDEX = "index.json"
PINNED = re.compile(r"(.+)#([0-9a-f]{64})")
"""A place and the fingerprint that is wanted there."""
RGB, MASK, VALID = slice(0, 3), 3, 4
"""Channels of a prepared array."""
SEPARATION = slice(5, 7)
"""Boundary and contact, the channels that keep neighbours apart, where the set was prepared with them."""
CHANNELS = {False: 5, True: 7}
"""Channels of an array, by whether it has those."""
UPSCALES = (2, 3, 4)
"""Scales that a set can have fine labels at."""


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
    ceiling: tuple[int, int, int]
    """TP, FP and FN, over the valid pixels, of a perfect prediction at 4 × the resolution: footprints rasterised there,
    averaged over each pixel, building from 0.5 on, against the mask. 0, 0, 0 of an unlabelled image."""
    sha256: str
    """Of the bytes of the array, of its fine labels and of its footprints."""
    source: str
    """Fingerprint of the files that the array was made from."""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "PreparedImage":
        """Return the row that JSON has as a dict; KeyError or TypeError where it is none."""
        return cls(**{**row, "transform": tuple(row["transform"]), "ceiling": tuple(row["ceiling"])})

    @property
    def array(self) -> str:
        """Path of the array, relative to the prepared folder."""
        return array_name(self.scene, self.image)


@dataclass(frozen=True)
class Prepared:
    """An opened prepared data set; opening it reads no pixels."""

    folder: Path
    images: tuple[PreparedImage, ...]
    """Sorted by scene, then date."""
    fingerprint: str
    """Of all pixels, masks, footprints and names; the same on every machine for the same data."""
    separation: bool = False
    """Whether arrays have the channels SEPARATION."""
    upscales: tuple[int, ...] = ()
    """Scales that it has fine labels at, ascending."""
    url: str = ""
    """Where it was fetched from, if it was."""
    opened: tuple[int, ...] = field(default=(), compare=False)
    """Which file the index was when it was read; () where none was."""

    @property
    def place(self) -> str:
        """Where another machine finds this very set: URL#FINGERPRINT, or FOLDER#FINGERPRINT on a shared file system."""
        return f"{self.url or self.folder}#{self.fingerprint}"

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, sorted."""
        return sorted({image.scene for image in self.images})

    def scene_images(self, scene: str, count: int | None = None, spread: bool = False) -> list[PreparedImage]:
        """Return `count` (or all) of a scene's images that have labels and valid pixels, in date order.

        They are the earliest; with `spread`, all of them in date order are divided into `count` groups of about the
        same size, and each group gives its most valid one, the earliest of equals.
        """
        found = [image for image in self.images if image.scene == scene and image.labelled and image.valid_share > 0]
        if not spread or count is None or count >= len(found):
            return found[:count]
        bounds = [round(group * len(found) / count) for group in range(count + 1)]
        groups = [found[start:end] for start, end in pairwise(bounds)]
        return [max(group, key=lambda image: image.valid_share) for group in groups]

    def centres(self) -> dict[str, tuple[float, float]]:
        """Return the centre (lon, lat) in degrees of each scene's first image."""
        return {image.scene: (image.lon, image.lat) for image in reversed(self.images)}

    def pixels(self, image: PreparedImage) -> npt.NDArray[np.uint8]:
        """Return the memory map of an image, uint8 (channels, height, width); see the module for its channels.

        Raises PreparedInvalid where the file is missing or of another shape, or the set has been changed since.
        """
        return self._mapped(image.array, (CHANNELS[self.separation], image.height, image.width))

    def fine_labels(self, image: PreparedImage, upscale: int) -> npt.NDArray[np.uint8]:
        """Return the memory map of an image's labels at a scale, bit-packed; `fine_window` unpacks them.

        uint8 (planes, upscale · height, ⌈upscale · width / 8⌉): mask and, where the set has them, boundary and contact.
        Raises PreparedInvalid as `pixels` does, and where the set has no labels at that scale.
        """
        self.require_labels([upscale])
        shape = (3 if self.separation else 1, upscale * image.height, -(-upscale * image.width // 8))
        return self._mapped(array_name(image.scene, image.image, upscale), shape)

    def footprints(self, image: PreparedImage) -> npt.NDArray[np.uint8]:
        """Return the memory map of an image's true footprints, uint8 (n,); see `sn7.footprints.unpacked`.

        Raises PreparedInvalid as `pixels` does.
        """
        return self._mapped(footprints_name(image.scene, image.image))

    def require_labels(self, upscales: Collection[int], separation: bool = False) -> None:
        """Raise PreparedInvalid where the set lacks fine labels at one of these scales, or the separation channels."""
        missing, lacks = sorted(set(upscales) - set(self.upscales)), []
        if missing:
            has = ", ".join(map(str, self.upscales)) or "none"
            lacks.append(f"labels at upscale {', '.join(map(str, missing))} (it has {has})")
        if separation and not self.separation:
            lacks.append("boundary and contact channels")
        if not lacks:
            return
        options = ["--separation"] if self.separation or separation else []
        options += [f"--upscale {scale}" for scale in sorted({*self.upscales, *upscales})]
        raise PreparedInvalid(
            f"{self.url or self.folder} has no {' and no '.join(lacks)}; run `sn7 prepare … {' '.join(options)}`."
        )

    def _mapped(self, name: str, shape: tuple[int, ...] = ()) -> npt.NDArray[np.uint8]:
        """Return the memory map of a file of the set, after a check of its shape and of the set itself.

        Without a shape it is a row of bytes, however many.
        """
        path = self.folder / name
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            many = isinstance(error, OSError) and error.errno == errno.EMFILE
            advice = "raise the limit of open files (`ulimit -n`)" if many else "run `sn7 prepare` again"
            raise PreparedInvalid(f"{path} cannot be read ({error}); {advice}.") from error
        shape = shape or (array.size,)
        if array.shape != shape or array.dtype != np.uint8:
            raise PreparedInvalid(
                f"{path} holds {array.dtype} {array.shape}; wanted uint8 {shape}: run `sn7 prepare` again."
            )
        self._require_unchanged()
        return array

    def _require_unchanged(self) -> None:
        """Raise PreparedInvalid where the index is another one: whoever changes an array removes it before."""
        if self.opened and _which(self.folder / INDEX) != self.opened:
            _require(_open(self.folder, self.url), self.fingerprint)


def array_name(scene: str, image: str, upscale: int = 1) -> str:
    """Return the path of an image's array, or of its fine labels at a scale, relative to the prepared folder."""
    return f"{scene}/{image}{f'.x{upscale}' if upscale > 1 else ''}.npy"


def footprints_name(scene: str, image: str) -> str:
    """Return the path of an image's footprints, relative to the prepared folder."""
    return f"{scene}/{image}.footprints.npy"


def fine_window(array: npt.NDArray[np.uint8], upscale: int, row: int, col: int, size: int) -> npt.NDArray[np.uint8]:
    """Return a square of fine labels, uint8 {0, 1} (planes, upscale · size, upscale · size).

    `array` is what `Prepared.fine_labels` gives, of which only the bytes of the square are read. Row and column of its
    upper left corner and `size` are in pixels of the image; what lies outside of the image is 0.
    """
    planes, height, width = array.shape[0], array.shape[1], 8 * array.shape[2]  # the last bits of a row may be padding
    top, left, side = upscale * row, upscale * col, upscale * size
    first_row, last_row = max(top, 0), min(top + side, height)
    first, last = max(left, 0), min(left + side, width)
    if first_row >= last_row or first >= last:
        return np.zeros((planes, side, side), np.uint8)
    bits = np.unpackbits(array[:, first_row:last_row, first // 8 : -(-last // 8)], axis=2)
    inside = bits[:, :, first % 8 : first % 8 + last - first]
    if inside.shape == (planes, side, side):  # as most are: to copy it takes many times as long as to unpack it
        return inside
    window = np.zeros((planes, side, side), np.uint8)
    window[:, first_row - top : last_row - top, first - left : last - left] = inside
    return window


def save_index(
    folder: Path,
    images: list[PreparedImage],
    fingerprint: str,
    left_out: list[str],
    separation: bool = False,
    upscales: tuple[int, ...] = (),
) -> None:
    """Write the index of a prepared folder, atomically; `left_out` is one sentence for each thing not used."""
    about = {"format": FORMAT, "fingerprint": fingerprint, "separation": separation, "upscales": upscales}
    write_json(folder / INDEX, {**about, "left_out": left_out, "images": [asdict(image) for image in images]})


def is_prepared(folder: Path) -> bool:
    """Return whether a folder holds a prepared data set, and not a data set to prepare."""
    try:
        return (folder / INDEX).is_file()
    except OSError:  # what is read next says it of the folder itself
        return False


def load_prepared(place: str | Path, leave: LeaveQuestion | None = None) -> Prepared:
    """Open a prepared folder, or one at a URL, of which this machine then has a copy.

    A `place` that ends in #FINGERPRINT is that set or none: a copy of it is taken without asking the URL again.
    `leave` may end the fetching of a copy, see `storage.local`.
    Raises PreparedInvalid where there is no index, or one of another format or fingerprint; what `storage.local`
    raises for a URL.
    """
    pinned = PINNED.fullmatch(str(place))
    if not pinned:
        return _open(local(place, leave), str(place) if is_url(place) else "")
    where, fingerprint = pinned.groups()
    if not is_url(where):
        return _require(_open(Path(where)), fingerprint)
    try:
        return _require(_open(cache_folder(where), where), fingerprint)
    except PreparedInvalid:
        return _require(_open(local(where, leave), where), fingerprint)


def _require(prepared: Prepared, fingerprint: str) -> Prepared:
    if prepared.fingerprint != fingerprint:
        raise PreparedInvalid(
            f"{prepared.url or prepared.folder} has changed (fingerprint {prepared.fingerprint[:12]}; wanted "
            f"{fingerprint[:12]}, with which this work began): bring that set back, or begin anew with this one."
        )
    return prepared


def _which(path: Path) -> tuple[int, ...]:
    """Return what tells a file from those that take its place; () where there is none."""
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_ino, status.st_mtime_ns


def _open(folder: Path, url: str = "") -> Prepared:
    path = folder / INDEX
    opened = _which(path)
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
        rows = [PreparedImage.from_json(row) for row in index["images"]]
        for name in {name for row in rows for name in (row.scene, row.image)}:
            if name in ("", ".", "..") or "/" in name:
                raise PreparedInvalid(f"{path} has the name {name!r}; wanted one without a path: get the set again.")
        labels = index["separation"], tuple(index["upscales"])
        return Prepared(folder, tuple(rows), index["fingerprint"], *labels, url, opened)
    except (KeyError, TypeError) as error:
        raise PreparedInvalid(f"{path} lacks a field ({error}); run `sn7 prepare` again.") from error
