"""What is given to `sn7 predict` → the images to predict, and where their files go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sn7.catalog import IMAGE_FOLDERS, Scene, parse_image_name, read_catalog, read_scene
from sn7.errors import DataMissing, MonthsInvalid, ResultsConflict

__all__ = ["Job", "check_targets", "jobs_of", "months_of"]


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
        return [Job(path, out, _udm_of(path))]
    if any((path / name).is_dir() for name in IMAGE_FOLDERS):
        scenes: Sequence[Scene] = [read_scene(path)]
    else:
        catalog = read_catalog(path)
        scenes = catalog.final or catalog.training
    return [Job(image.path, out / scene.name, image.udm) for scene in scenes for image in scene.images]


def _udm_of(path: Path) -> Path | None:
    """Return the mask of unusable pixels of an image that lies in a scene, if it has one."""
    folder = path.absolute().parent
    udm = folder.parent / "UDM_masks" / f"{path.stem}_UDM.tif"
    return udm if folder.name in IMAGE_FOLDERS and udm.exists() else None


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
                "global_monthly_YYYY_MM_mosaic_<scene>.tif to pool images: rename it, or predict it with --pool none."
            )
        scene, date = parsed
        scenes.setdefault(scene, []).append((date, Job(job.source, out / scene, job.udm)))
    return {scene: sorted(months, key=lambda month: month[0]) for scene, months in scenes.items()}


def check_targets(jobs: Sequence[Job]) -> None:
    """Raise ResultsConflict where a job's files would lie beside its image, or two would be written to one place."""
    sources: dict[Path, Path] = {}
    for job in jobs:
        if job.folder.resolve() == job.source.parent.resolve():  # whose other files of this name are not ours
            raise ResultsConflict(
                f"{job.source}, or files of its name beside it, would be overwritten; give another folder than "
                f"{job.folder}."
            )
        if job.target in sources:
            raise ResultsConflict(
                f"{sources[job.target]} and {job.source} would both be written to {job.target}; "
                "predict them into two folders."
            )
        sources[job.target] = job.source
