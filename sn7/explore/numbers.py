"""The numbers of a data set, from a survey of its images, as they go into numbers.json.

tile_size        side of a tile, px
scenes           training: scenes to train on; final: scenes to predict only
images           training and final: images of these scenes; labelled and unlabelled: of those to train on;
                 with_udm_file: images with a file in UDM_masks/; with_unusable_pixels: by alpha or UDM, all images
months           first and last month of any image, YYYY-MM
footprints       used: in the label files of all images, so a building counts once a month; left_out: features
                 without a geometry or that are no polygon
pixels           valid: usable pixels of the labelled images; building: of these
building_share   building / valid, 0 to 1; null where nothing is labelled
unusable_share   share of unusable pixels of all images, 0 to 1
ground_m         smallest and largest width of a pixel on the ground, metres
tiles            those that training cuts from all labelled images, without overlap. count: with a valid pixel;
                 without_valid_pixel: all others; empty: of `count`, without a building; mean and median of the
                 building share of a tile, 0 to 1; histogram: counts between `edges`, the last bin with its end
clusters         names of the scenes to train on that lie within 60 km of each other, one list a cluster
folds            of whole clusters, as `sn7 train --folds` makes them: scenes, building_pixels. As many as there
                 are clusters with labels, at most 5; [] where they are fewer than 2
per_scene        scene, split (training or final), lon, lat in degrees, ground_m, and images: date, height, width,
                 labelled, footprints, unusable_share, building_share (null where unlabelled)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sn7.catalog import Catalog
from sn7.explore.survey import ImageNumbers, TileNumbers
from sn7.folds import clusters, make_folds

__all__ = ["Surveyed"]

FOLDS = 5
BIN = 0.02
"""Width of a bin of the histogram of building shares."""


@dataclass(frozen=True, eq=False)
class Surveyed:
    """A data set and the numbers of its images, by scene and in date order."""

    catalog: Catalog
    images: Sequence[ImageNumbers]
    tile_size: int

    @cached_property
    def scenes(self) -> dict[str, list[ImageNumbers]]:
        """The images of each scene."""
        found: dict[str, list[ImageNumbers]] = {}
        for image in self.images:
            found.setdefault(image.image.scene, []).append(image)
        return found

    @cached_property
    def training(self) -> set[str]:
        """Names of the scenes to train on."""
        return {scene.name for scene in self.catalog.training}

    @property
    def labelled(self) -> list[ImageNumbers]:
        """Images with usable footprints."""
        return [image for image in self.images if image.labelled]

    @property
    def tiles(self) -> list[tuple[ImageNumbers, TileNumbers]]:
        """All tiles that have a valid pixel, with their images."""
        return [(image, tile) for image in self.images for tile in image.tiles if tile.valid]

    @property
    def tile_shares(self) -> npt.NDArray[np.float64]:
        """Building share of each of these tiles, 0 to 1."""
        return np.array([tile.share for _, tile in self.tiles], np.float64)

    @cached_property
    def clusters(self) -> list[list[str]]:
        """Scenes to train on, by clusters within 60 km."""
        labels = clusters({name: _centre(self.scenes[name]) for name in self.training})
        return [[name for name in labels if labels[name] == number] for number in sorted(set(labels.values()))]

    @cached_property
    def folds(self) -> list[list[str]]:
        """Scenes with labels, by fold; [] where they are one cluster."""
        named = {name: _centre(self.scenes[name]) for name in self.training if self.building_pixels(name) is not None}
        k = min(FOLDS, len(set(clusters(named).values())))
        return make_folds(named, {name: self.building_pixels(name) or 0 for name in named}, k) if k > 1 else []

    def building_pixels(self, scene: str) -> int | None:
        """Return the valid building pixels of a scene's images; None where none of them is labelled."""
        found = [image.building for image in self.scenes[scene] if image.labelled]
        return sum(found) if found else None

    def numbers(self) -> dict[str, Any]:
        """Return what numbers.json holds; the module says what each key means."""
        images, months = self.images, sorted(image.image.date for image in self.images)
        valid, building = sum(image.valid for image in images), sum(image.building for image in images)
        pixels = [image.shape[0] * image.shape[1] for image in images]
        unusable = sum(image.unusable_share * size for image, size in zip(images, pixels, strict=True))
        return {
            "tile_size": self.tile_size,
            "scenes": {"training": len(self.training), "final": len(self.catalog.final)},
            "images": self._image_counts(),
            "months": {"first": months[0], "last": months[-1]},
            "footprints": {
                "used": sum(image.footprints for image in images),
                "left_out": sum(image.left_out for image in images),
            },
            "pixels": {"valid": valid, "building": building},
            "building_share": building / valid if valid else None,
            "unusable_share": unusable / sum(pixels),
            "ground_m": {
                "smallest": min(image.ground_m for image in images),
                "largest": max(image.ground_m for image in images),
            },
            "tiles": self._tile_numbers(),
            "clusters": self.clusters,
            "folds": [
                {"scenes": fold, "building_pixels": sum(self.building_pixels(name) or 0 for name in fold)}
                for fold in self.folds
            ],
            "per_scene": [self._scene_numbers(name) for name in self.scenes],
        }

    def histogram(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return how many tiles have a building share between two edges, and the edges, from 0 on in steps of 0.02."""
        shares = self.tile_shares
        bins = max(1, int(np.ceil(round(shares.max(initial=0) / BIN, 9))))
        counts, edges = np.histogram(shares, bins, (0, bins * BIN))
        return counts, edges.round(9)

    def _image_counts(self) -> dict[str, int]:
        training = [image for image in self.images if image.image.scene in self.training]
        labelled = len(self.labelled)
        return {
            "training": len(training),
            "final": len(self.images) - len(training),
            "labelled": labelled,
            "unlabelled": len(training) - labelled,
            "with_udm_file": sum(image.image.udm is not None for image in self.images),
            "with_unusable_pixels": sum(image.unusable_share > 0 for image in self.images),
        }

    def _tile_numbers(self) -> dict[str, Any]:
        shares, every = self.tile_shares, sum(len(image.tiles) for image in self.images)
        counts, edges = self.histogram()
        return {
            "count": len(shares),
            "without_valid_pixel": every - len(shares),
            "empty": int(np.count_nonzero(shares == 0)),
            "mean": float(shares.mean()) if len(shares) else None,
            "median": float(np.median(shares)) if len(shares) else None,
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
        }

    def _scene_numbers(self, scene: str) -> dict[str, Any]:
        images = self.scenes[scene]
        lon, lat = _centre(images)
        return {
            "scene": scene,
            "split": "training" if scene in self.training else "final",
            "lon": lon,
            "lat": lat,
            "ground_m": images[0].ground_m,
            "images": [_image_numbers(image) for image in images],
        }


def _centre(images: Sequence[ImageNumbers]) -> tuple[float, float]:
    """Return the longitude and latitude of a scene: its first image's, as `Prepared.centres` has it."""
    return images[0].lon, images[0].lat


def _image_numbers(image: ImageNumbers) -> dict[str, Any]:
    return {
        "date": image.image.date,
        "height": image.shape[0],
        "width": image.shape[1],
        "labelled": image.labelled,
        "footprints": image.footprints,
        "unusable_share": image.unusable_share,
        "building_share": image.building / image.valid if image.valid else None,
    }
