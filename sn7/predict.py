"""Images → probs, polygons and previews.

    OUT/<scene>/<image>.tif       probs: float32 GeoTIFF on the image's grid, NaN where invalid
    OUT/<scene>/<image>.geojson   polygons: longitude and latitude
    OUT/<scene>/<image>.png       preview: the image with the polygons' outlines

The files of a GeoTIFF that is given by itself lie in OUT directly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import rasterio
from tqdm import tqdm

from sn7.catalog import IMAGE_FOLDERS, Scene, read_catalog, read_scene
from sn7.errors import DataMissing, ResultsConflict
from sn7.figures import preview
from sn7.files import atomic_file
from sn7.masks import valid_mask
from sn7.polygons import to_polygons
from sn7.rasters import RasterImage, read_image, read_udm
from sn7.vectors import write_polygons
from sn7.windows import Predictor, predict_array

__all__ = ["PredictReport", "PredictionFiles", "predict", "predict_image"]


@dataclass(frozen=True)
class PredictionFiles:
    """What was written for one image."""

    probs: Path
    polygons: Path
    preview: Path
    count: int
    """Number of polygons."""


@dataclass(frozen=True)
class PredictReport:
    """What went in, what came out, and what did not."""

    images: int
    written: tuple[PredictionFiles, ...]
    skipped: tuple[str, ...]
    """One sentence for each image that was left out."""


@dataclass(frozen=True)
class _Job:
    source: Path
    folder: Path
    udm: Path | None = None


def predict(predictor: Predictor, inputs: Sequence[Path], out: Path) -> PredictReport:
    """Predict every image of `inputs`: GeoTIFFs, scene folders, data sets (final scenes, if any, else all).

    Raises DataMissing where an input does not exist or holds no image, ResultsConflict where two images would
    be written to the same place, both before anything is predicted; else as `predict_image` does.
    """
    jobs = [job for path in inputs for job in _jobs(path, out)]
    _check_targets(jobs)
    written, skipped = [], []
    for job in tqdm(jobs, desc="predict", unit="image", disable=None):
        files = predict_image(predictor, job.source, job.folder, job.udm)
        if files:
            written.append(files)
        else:
            skipped.append(f"{job.source} has no valid pixel.")
    return PredictReport(len(jobs), tuple(written), tuple(skipped))


def predict_image(predictor: Predictor, source: Path, out: Path, udm: Path | None = None) -> PredictionFiles | None:
    """Write probs, polygons and preview of a GeoTIFF into the folder `out`, each complete or not at all.

    Pixels with alpha 0, or unusable by the mask file `udm`, are invalid. Returns None, and writes nothing,
    where no pixel is valid. Raises ImageUnreadable where the image is damaged, is no uint8 RGB or RGB and
    alpha, or has no CRS (its polygons would have no place on the earth); ResultsConflict where `source` would
    be overwritten.
    """
    target = out / f"{source.stem}.tif"
    if target.resolve() == source.resolve():
        raise ResultsConflict(f"{source} would be overwritten by its own probs; give another folder than {out}.")
    image = read_image(source)
    valid = valid_mask(image.shape, image.alpha, read_udm(udm, image.shape) if udm else None) == 1
    if not valid.any():
        return None
    probs = predict_array(image.rgb, predictor)
    probs[~valid] = np.nan
    polygons = to_polygons(probs, predictor.rules, image.transform, image.crs)
    files = PredictionFiles(target, target.with_suffix(".geojson"), target.with_suffix(".png"), len(polygons))
    _write_probs(files.probs, probs, image, predictor)
    write_polygons([polygons], files.polygons)
    preview(image.rgb, polygons, image.transform, files.preview)
    return files


def _jobs(path: Path, out: Path) -> list[_Job]:
    """Return one job for each image of an input."""
    if not path.exists():
        raise DataMissing(f"{path} does not exist; give GeoTIFFs, scene folders or a data set.")
    if not path.is_dir():
        return [_Job(path, out)]
    if any((path / name).is_dir() for name in IMAGE_FOLDERS):
        scenes: Sequence[Scene] = [read_scene(path)]
    else:
        catalog = read_catalog(path)
        scenes = catalog.final or catalog.training
    return [_Job(image.path, out / scene.name, image.udm) for scene in scenes for image in scene.images]


def _check_targets(jobs: Sequence[_Job]) -> None:
    sources: dict[Path, Path] = {}
    for job in jobs:
        target = job.folder / job.source.stem
        if target in sources:
            raise ResultsConflict(
                f"{sources[target]} and {job.source} would both be written to {target}.tif; "
                "predict them into two folders."
            )
        sources[target] = job.source


def _write_probs(path: Path, probs: npt.NDArray[np.float32], image: RasterImage, predictor: Predictor) -> None:
    height, width = probs.shape
    grid = {"height": height, "width": width, "crs": image.crs, "transform": image.transform}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 3}
    with (
        atomic_file(path) as temporary,
        rasterio.open(
            temporary, "w", driver="GTiff", count=1, dtype="float32", nodata=np.nan, **grid, **layout
        ) as raster,
    ):
        raster.write(probs, 1)
        raster.set_band_description(1, "probs")
        raster.update_tags(MODEL=predictor.name, THRESHOLD=predictor.threshold, UNITS="probability of building, 0 to 1")
