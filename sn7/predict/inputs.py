"""What is given to `sn7 predict` → the images to predict, and where their files go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import shapely
from pyproj import CRS, Transformer

from sn7.catalog import IMAGE_FOLDERS, Scene, parse_image_name, read_catalog, read_scene
from sn7.errors import DataMissing, MonthsInvalid, ResultsConflict
from sn7.ground import EQUAL_AREA
from sn7.imagereader import ImageReader, open_image

__all__ = ["Job", "check_targets", "ground_km2", "jobs_of", "months_of"]


@dataclass(frozen=True)
class Job:
    """An image to predict."""

    source: Path
    folder: Path
    """That its files go to."""
    udm: Path | None = None
    """Mask of unusable pixels."""

    @property
    def target(self) -> Path:
        """Where its probs go."""
        return self.folder / f"{self.source.stem}.tif"


def jobs_of(path: Path, out: Path) -> list[Job]:
    """Return one job for each image of an input: a GeoTIFF, a scene, a data set (final scenes, if any, else all).

    Raises DataMissing where it does not exist or holds no image.
    """
    if not path.exists():
        raise DataMissing(f"{path} does not exist; give GeoTIFFs, scene folders or a data set.")
    if not path.is_dir():
        return [Job(path, out)]
    if any((path / name).is_dir() for name in IMAGE_FOLDERS):
        scenes: Sequence[Scene] = [read_scene(path)]
    else:
        catalog = read_catalog(path)
        scenes = catalog.final or catalog.training
    return [Job(image.path, out / scene.name, image.udm) for scene in scenes for image in scene.images]


def months_of(jobs: Iterable[Job], out: Path) -> dict[str, list[tuple[str, Job]]]:
    """Return the jobs of each scene with their dates, YYYY-MM, in order; of GeoTIFFs by their names, too.

    Files of a scene go to OUT/<scene>. Raises MonthsInvalid where a name does not tell scene and month.
    """
    scenes: dict[str, list[tuple[str, Job]]] = {}
    for job in jobs:
        parsed = parse_image_name(job.source.stem)
        if parsed is None:
            raise MonthsInvalid(
                f"{job.source} has a name that does not tell its scene and month; wanted "
                "global_monthly_YYYY_MM_mosaic_<scene>.tif to pool images: rename it, or predict it without --pool."
            )
        scene, date = parsed
        scenes.setdefault(scene, []).append((date, Job(job.source, out / scene, job.udm)))
    return {scene: sorted(months, key=lambda month: month[0]) for scene, months in scenes.items()}


def check_targets(jobs: Sequence[Job]) -> None:
    """Raise ResultsConflict where a job would overwrite its image, or two would be written to one place."""
    sources: dict[Path, Path] = {}
    for job in jobs:
        if job.target.resolve() == job.source.resolve():
            raise ResultsConflict(
                f"{job.source} would be overwritten by its own probs; give another folder than {job.folder}."
            )
        if job.target in sources:
            raise ResultsConflict(
                f"{sources[job.target]} and {job.source} would both be written to {job.target}; "
                "predict them into two folders."
            )
        sources[job.target] = job.source


def ground_km2(job: Job) -> float:
    """Return the ground area of a job's image, km²; 0 where it has no CRS. Raises ImageUnreadable."""
    with open_image(job.source, job.udm) as image:
        return _km2(image)


def _km2(image: ImageReader) -> float:
    if image.crs is None:
        return 0.0
    height, width = image.shape
    border = shapely.segmentize(shapely.box(0, 0, width, height), max(height, width) / 16)
    to_ground = Transformer.from_crs(CRS.from_user_input(image.crs.to_wkt()), EQUAL_AREA, always_xy=True)
    points = shapely.get_coordinates(border) @ [[image.transform.a, 0], [0, image.transform.e]]
    x, y = to_ground.transform(points[:, 0] + image.transform.c, points[:, 1] + image.transform.f)
    return float(abs(shapely.Polygon(list(zip(x, y, strict=True))).area)) / 1e6
