"""A model that is no network, and images to see what it makes of them."""

from pathlib import Path

import numpy as np
import rasterio
import torch
from affine import Affine

from sn7.rules import PolygonRules


class Brightness:
    """A predictor that takes bright pixels for buildings."""

    name, threshold, window, channels, scale = "brightness", 0.5, 64, 1, 1
    rules, tags = PolygonRules(), {"MODEL": name}

    def __init__(self, way: str = "plain") -> None:
        self.way, self.calls, self.windows = way, 0, 0

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean of the three channels, 0 to 1."""
        self.calls += 1
        self.windows += len(batch)
        return batch.float().mean(1, keepdim=True) / 255


def write_month(scene: Path, month: str, value: int) -> Path:
    """Write 64 × 64 px of one brightness as a month's image, YYYY_MM, of a scene folder."""
    path = scene / "images_masked" / f"global_monthly_{month}_mosaic_{scene.name}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = {"crs": "EPSG:3857", "transform": Affine(4.777, 0, -13545864.4, 0, -4.777, 4578883.74)}
    with rasterio.open(path, "w", driver="GTiff", count=3, height=64, width=64, dtype="uint8", **grid) as raster:
        raster.write(np.full((3, 64, 64), value, np.uint8))
    return path


def mean_probs(folder: Path) -> list[float]:
    """Return the mean of each map below a folder, in the order of names."""
    found = []
    for path in sorted(folder.rglob("*.tif")):
        with rasterio.open(path) as raster:
            found.append(float(raster.read(1).mean()))
    return found
