"""Images, one by one or a scene's months together, through a predictor into maps."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from tqdm import tqdm

from sn7.errors import ImageUnreadable
from sn7.imagereader import ImageReader, open_image
from sn7.pooling import window_of
from sn7.predict.extents import Extent, amounts, extent_of, extents_of, require_one_grid
from sn7.predict.files import MapOptions, PredictionFiles, scratch_folder, write_map
from sn7.predict.inputs import Job, check_targets, jobs_of, months_of
from sn7.predict.pooled import Pooling, pool_raw
from sn7.predict.raw import Outputs, RawOutputs, write_raw
from sn7.predict.report import PredictReport
from sn7.windows import Predictor, predict_patches

__all__ = ["predict", "predict_image"]

CACHE_MB = 128
"""What GDAL may keep of the files it is at work on; it would take 5 % of the machine's memory."""


def predict(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    options: MapOptions | None = None,
    pooling: Pooling | None = None,
) -> PredictReport:
    """Predict every image of `inputs`: GeoTIFFs, scene folders, data sets (final scenes, if any, else all).

    With `pooling`, the months of a scene are pooled. An image that cannot be read is skipped. Raises DataMissing where
    an input does not exist or holds no image, ResultsConflict where files beside an image would be overwritten or two
    be written to the same place, MonthsInvalid where images cannot be pooled: all before anything is predicted.
    """
    jobs = [job for path in inputs for job in jobs_of(path, out)]
    scenes = months_of(jobs, out) if pooling else {}
    check_targets([job for months in scenes.values() for _, job in months] if pooling else jobs)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
        extents = extents_of(jobs)
        for months in scenes.values():
            require_one_grid((job for _, job in months), extents)
        run = _Run(predictor, options or MapOptions(), jobs, extents)
        with run.bar:
            if pooling:
                for scene, months in scenes.items():
                    run.pooled(scene, months, pooling)
            else:
                for job in jobs:
                    with run.skipping():
                        run.image(job)
    return run.report(len(jobs))


def predict_image(
    predictor: Predictor, source: Path, out: Path, udm: Path | None = None, options: MapOptions | None = None
) -> PredictionFiles | None:
    """Write probs, polygons and preview of a GeoTIFF into the folder `out`, all of them or none.

    Pixels with alpha 0, or unusable by the mask file `udm`, are invalid. Returns None, and writes nothing, where no
    pixel is valid. Raises ImageUnreadable where the image is damaged or is no uint8 RGB or RGB and alpha;
    ResultsConflict where `out` is the folder that `source` lies in.
    """
    job = Job(source, out, udm)
    check_targets([job])
    run = _Run(predictor, options or MapOptions(), [job], {}, quiet=True)
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB << 20):
        run.image(job)
    return run.written[0] if run.written else None


class _Run:
    """What is being predicted, and what has come of it."""

    def __init__(
        self,
        predictor: Predictor,
        options: MapOptions,
        jobs: Sequence[Job],
        extents: Mapping[Path, Extent],
        quiet: bool = False,
    ) -> None:
        self.predictor, self.options = predictor, options
        self.written: list[PredictionFiles] = []
        self.skipped: list[str] = []
        self.warnings: list[str] = []
        self.km2, self.unreadable = 0.0, 0
        unit, self.amounts = amounts(extents)
        total = sum(self.amounts.get(job.source, 0) for job in jobs)
        layout = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f}{unit} [{elapsed}<{remaining}, {rate_fmt}]"
        self.bar = tqdm(total=total, desc="predict", unit=f" {unit}", bar_format=layout, disable=quiet or None)

    def report(self, images: int) -> PredictReport:
        """Return what has come of so many images."""
        return PredictReport(
            images, tuple(self.written), tuple(self.skipped), tuple(self.warnings), self.km2, self.unreadable
        )

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Leave out an image that proves to be damaged in the block."""
        try:
            yield
        except ImageUnreadable as error:
            self.skipped.append(str(error))
            self.unreadable += 1

    def image(self, job: Job) -> None:
        """Predict an image by itself. Raises ImageUnreadable."""
        with open_image(job.source, job.udm) as image:
            if self._usable(image):
                with scratch_folder(job.folder) as scratch:
                    raw = self._predict(image, scratch / "raw")
                    self.written.append(write_map(raw, image, job.target, self.predictor, self.options, scratch))

    def pooled(self, scene: str, months: Sequence[tuple[str, Job]], pooling: Pooling) -> None:
        """Predict the months of a scene and pool them: over all of them, or each with those around it."""
        folder = months[0][1].folder
        with scratch_folder(folder) as scratch, ExitStack() as files:
            used: list[tuple[str, Job, ImageReader, RawOutputs]] = []
            for number, (date, job) in enumerate(months):
                with self.skipping():
                    image = files.enter_context(open_image(job.source, job.udm))
                    if self._usable(image):
                        used.append((date, job, image, self._predict(image, scratch / f"month-{number}")))
            dates = [date for date, *_ in used]
            for centre in range(len(used)) if pooling.months else range(min(len(used), 1)):
                chosen = window_of(dates, centre, pooling.months)
                raw = pool_raw([used[i][3] for i in chosen], pooling.how, scratch / "pooled")
                shown, target = (used[centre][2], used[centre][1].target)
                if not pooling.months:
                    shown, target = used[-1][2], folder / f"{scene}.tif"
                self.written.append(write_map(raw, shown, target, self.predictor, self.options, scratch, pooling))

    def _usable(self, image: ImageReader) -> bool:
        """Return whether an image has a valid pixel; say so where it has none."""
        if not image.any_valid():
            self.skipped.append(f"{image.path} has no valid pixel.")
            self._advance(image, 1)
            return False
        return True

    def _predict(self, image: ImageReader, path: Path) -> RawOutputs:
        """Write the outputs of an image, NaN where it is invalid; say what the image lacks."""
        scale, (height, width) = self.predictor.scale, image.shape
        write_raw(path, scale * width, self._patches(image))
        if not image.placed:
            self.warnings.append(
                f"{image.path} has no CRS: its probs have none either, its polygons are in the file's own coordinates, "
                "areas in m² are unknown."
            )
        self.km2 += extent_of(image).km2
        transform = image.transform @ Affine.scale(1 / scale)
        return RawOutputs(path, self.predictor.channels, (scale * height, scale * width), transform, image.crs)

    def _patches(self, image: ImageReader) -> Iterator[tuple[int, int, Outputs]]:
        scale, (height, width) = self.predictor.scale, image.shape
        patches = predict_patches(image.rgb, height, width, self.predictor, batch_size=self.options.batch_size)
        for row, column, outputs in patches:
            first, left = row // scale, column // scale
            invalid = ~image.valid(first, first + outputs.shape[1] // scale, left, left + outputs.shape[2] // scale)
            outputs[:, np.kron(invalid, np.ones((scale, scale), bool)) if scale > 1 else invalid] = np.nan
            self._advance(image, invalid.size / (height * width))
            yield row, column, outputs

    def _advance(self, image: ImageReader, share: float) -> None:
        amount = self.amounts.get(image.path, 0) * share
        self.bar.update(min(amount, (self.bar.total or 0) - self.bar.n))  # of rounding beyond it tqdm would warn
