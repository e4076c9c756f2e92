"""Outputs → the three files of a map: probs, polygons and preview, all of them or none."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd

import sn7
from sn7.figures import LONGEST, Preview
from sn7.files import require_writable
from sn7.imagereader import ImageReader
from sn7.polygons import stream_polygons
from sn7.predict.cog import write_cog
from sn7.predict.pooled import Pooling
from sn7.predict.raw import RawOutputs
from sn7.rules import PolygonRules
from sn7.vectors import FORMATS, write_polygons
from sn7.windows import Predictor

__all__ = ["MapOptions", "PredictionFiles", "scratch_folder", "write_map"]


@dataclass(frozen=True)
class MapOptions:
    """How outputs become maps."""

    rules: PolygonRules | None = None
    """Of polygons, in place of the predictor's own."""
    format: str = "geojson"
    """Of polygons, one of `sn7.vectors.FORMATS`."""
    batch_size: int = 4
    """Windows that go through the network at once."""


@dataclass(frozen=True)
class PredictionFiles:
    """What was written for one image, or for several that were pooled."""

    probs: Path
    polygons: Path
    preview: Path
    count: int
    """Number of polygons."""


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Yield a folder in `out` that is gone afterwards, and with it `out`, if that is new and empty.

    Raises FolderUnwritable where there can be none.
    """
    missing = not out.exists()
    require_writable(out)
    try:
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=out) as name:
            yield Path(name)
    finally:
        if missing and not any(out.iterdir()):
            out.rmdir()


def write_map(
    raw: RawOutputs,
    image: ImageReader,
    target: Path,
    predictor: Predictor,
    options: MapOptions,
    scratch: Path,
    pooling: Pooling | None = None,
) -> PredictionFiles:
    """Write `target`, a .tif, and the polygons and the preview beside it; `image` is what the preview shows.

    They come into their places when all three are complete, where polygons of other formats go, since they are of
    other probs; `scratch` is on the same disk. Raises DiskFull.
    """
    rules = options.rules or predictor.rules
    made = [scratch / target.with_suffix(ending).name for ending in (".tif", f".{options.format}", ".png")]
    tags: dict[str, str | float] = {
        **predictor.tags,
        "THRESHOLD": predictor.threshold,
        "UNITS": "probability, 0 to 1",
        "TIFFTAG_SOFTWARE": f"sn7 {sn7.__version__}",
        **{f"POLYGONS_{name.upper()}": str(value) for name, value in rules.to_dict().items()},
    }
    if pooling:
        tags |= {"POOL": pooling.how, "POOL_MONTHS": str(pooling.months)}
    write_cog(raw, made[0], tags, scratch)
    preview = Preview(image.thumbnail(LONGEST), image.shape, image.transform)
    tables = stream_polygons(raw.strips(), rules, raw.transform, raw.crs)
    count = write_polygons(_drawn(tables, preview), made[1])
    preview.save(made[2])
    probs, polygons, picture = (path.replace(target.parent / path.name) for path in made)
    for ending in FORMATS:
        if ending != options.format:
            target.with_suffix(f".{ending}").unlink(missing_ok=True)
    return PredictionFiles(probs, polygons, picture, count)


def _drawn(tables: Iterable[gpd.GeoDataFrame], preview: Preview) -> Iterator[gpd.GeoDataFrame]:
    for table in tables:
        preview.draw(table)
        yield table
