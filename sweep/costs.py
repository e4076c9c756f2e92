"""What an ensemble costs whoever predicts with it: models, parameters, megabytes, seconds a km²."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pyproj
import torch
from affine import Affine

from sn7.config import TrainConfig
from sn7.folds import Split
from sn7.predict.way import Way
from sn7.prepared import Prepared, PreparedImage
from sn7.symmetries import COPIES
from sn7.unet import build_unet
from sweep.oof import Weights, read_speeds
from sweep.trial import split_folder

__all__ = ["Cost", "costs_of", "parameters", "pixels_per_km2"]

ELLIPSOID = pyproj.Geod(ellps="WGS84")


@dataclass(frozen=True)
class Cost:
    """Of an ensemble that holds all fold models of its configurations."""

    models: int
    parameters: int
    """Of all models together."""
    mb: float
    """Of their weights on the disk, 10⁶ bytes."""
    seconds_per_km2: float | None
    """On a device as out-of-fold probs were predicted with, window by window; None where that was not measured."""

    def of_way(self, way: str) -> "Cost":
        """Return the cost where probs are made in this way, as in Predictor.way: pooling costs next to nothing."""
        if self.seconds_per_km2 is None or not Way.of(way).tta:
            return self
        return replace(self, seconds_per_km2=COPIES * self.seconds_per_km2)


def costs_of(
    weights: Weights, configs: Mapping[int, TrainConfig], splits: Sequence[Split], results: Path, prepared: Prepared
) -> Cost:
    """Return what the mean of these configurations' fold models costs; `configs` are by trial."""
    folders = [split_folder(results, trial, split.name) for trial in weights for split in splits]
    speeds = [read_speeds(results, trial) for trial in weights]
    known = all(speeds)
    per_pixel = sum(sum(speed) / len(speed) for speed in speeds) * len(splits) if known else 0.0
    return Cost(
        models=len(folders),
        parameters=len(splits) * sum(parameters(configs[trial]) for trial in weights),
        mb=sum((folder / "model" / "weights.safetensors").stat().st_size for folder in folders) / 1e6,
        seconds_per_km2=per_pixel * pixels_per_km2(prepared.images) if known else None,
    )


@cache
def parameters(config: TrainConfig) -> int:
    """Return the number of a U-Net's parameters. Raises EncoderUnknown where there is no such U-Net."""
    with torch.device("meta"):  # shapes without values: quick, whatever the size
        model = build_unet(config)
    return sum(parameter.numel() for parameter in model.parameters())


def pixels_per_km2(images: Sequence[PreparedImage]) -> float:
    """Return how many pixels of these images cover a square kilometre, on the ellipsoid."""
    first = {image.scene: image for image in reversed(images)}.values()
    return sum(image.height * image.width for image in first) / sum(_km2(image) for image in first)


def _km2(image: PreparedImage) -> float:
    corners = [(0, 0), (image.width, 0), (image.width, image.height), (0, image.height)]
    x, y = zip(*(Affine(*image.transform) @ corner for corner in corners), strict=True)
    lon, lat = pyproj.Transformer.from_crs(image.crs, "EPSG:4326", always_xy=True).transform(x, y)
    area, _ = ELLIPSOID.polygon_area_perimeter(lon, lat)
    return abs(float(area)) / 1e6
