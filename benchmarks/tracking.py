"""What `sn7 track` costs on 25 months of 1,024 px, and where the time goes.

    .venv/bin/python benchmarks/tracking.py [--json]          about a minute, 150 MB of disk

The scene is a generated town; its probs are stand-ins for a model's: each month's own share of building in a pixel,
blurred, shifted by a fraction of a pixel, with errors that stay and errors that change from month to month, clouds
among the months. One process, one thread of it at work, so seconds of the clock on one core.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import shapely
from rasterio.features import rasterize
from scipy import ndimage

from sn7.sample.place import Grid, place_of
from sn7.sample.render import make_scene
from sn7.tracking.config import NAIVE, TrackConfig
from sn7.tracking.months import Months
from sn7.tracking.read import find_scenes, read_months
from sn7.tracking.run import track_folder
from sn7.tracking.track import track

FINE = 3
"""Parts of a pixel's side at which shares of building are counted."""


def main() -> None:
    """Print the table, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--months", type=int, default=25, help="(default: %(default)s)")
    parser.add_argument("--size", type=int, default=1024, help="side of an image, px (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    options = parser.parse_args()
    found = measure(options.months, options.size)
    if options.json:
        print(json.dumps(found))


def measure(months: int = 25, size: int = 1024) -> dict[str, float]:
    """Print what tracking a scene takes.

    Returns `track_s` and `track_cpu_s`, of the command, and `track_rules_cpu_s`, of one more set of rules.
    """
    with tempfile.TemporaryDirectory(prefix="sn7-bench-") as name:
        folder = Path(name) / "scene"
        make_probs(folder, months, size)
        start, cpu = time.perf_counter(), time.process_time()
        (report,) = track_folder(folder, Path(name) / "out").scenes
        whole, whole_cpu = time.perf_counter() - start, time.process_time() - cpu
        seconds = _parts(folder)
    print(
        f"{months} months of {size} px: {report.buildings:,} buildings ({report.new:,} new), {report.footprints:,} "
        f"footprints; load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':44}{'seconds':>9}{'of CPU':>9}")
    print(f"{'sn7 track, from probs to all its files':44}{whole:>9.2f}{whole_cpu:>9.2f}")
    for part, (clock, processor) in seconds.items():
        print(f"  {part:42}{clock:>9.2f}{processor:>9.2f}")
    rules = seconds["pool, one set of rules"][1]
    return {"track_s": round(whole, 2), "track_cpu_s": round(whole_cpu, 2), "track_rules_cpu_s": round(rules, 3)}


def _parts(folder: Path) -> dict[str, tuple[float, float]]:
    (files,) = find_scenes(folder)
    seconds: dict[str, tuple[float, float]] = {}

    def timed(name: str, function: Any, *arguments: Any) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        result = function(*arguments)
        seconds[name] = time.perf_counter() - start, time.process_time() - cpu
        return result

    read: Months = timed("reading", read_months, files).months
    timed("pool, one set of rules", track, read, TrackConfig())
    timed("match with bridging, one set of rules", track, read, TrackConfig(method="match"))
    timed("match as the baseline does", track, read, NAIVE)
    return seconds


def make_probs(folder: Path, months: int, size: int, seed: int = 0) -> None:
    """Write stand-ins for the probs of a generated scene's months, as `sn7 predict` would."""
    place = place_of("train", 3)
    scene = make_scene(seed, place, Grid(size, size))
    rng = np.random.default_rng(seed)
    born = np.where(scene.town.born > 0, rng.integers(1, months, len(scene.town.born)), 0)
    lasting = _noise(rng, size, 0.6)
    folder.mkdir(parents=True)
    for month in range(months):
        share = _share(scene.town.footprints[born <= month], size)
        probs = stand_in(share, lasting, rng)
        if month % 6 == 4:
            probs[_noise(rng, size, 1.0, 40) > 1.2] = np.nan
        name = f"global_monthly_{2018 + month // 12}_{month % 12 + 1:02}_mosaic_{place.scene}.tif"
        _write(folder / name, probs, place.transform)


def stand_in(
    share: npt.NDArray[np.float32], lasting: npt.NDArray[np.float32], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return probs (h, w) as a model may see the `share` of building in each pixel (0 to 1).

    `lasting` are errors of its log-odds that are the same in every month.
    """
    moved = ndimage.shift(ndimage.gaussian_filter(share, 0.7), rng.uniform(-0.5, 0.5, 2), order=1, mode="nearest")
    odds = 7 * moved - 3 + lasting + _noise(rng, len(share), 0.8)
    probs: npt.NDArray[np.float32] = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return probs


def _noise(rng: np.random.Generator, size: int, sigma: float, length: float = 1.5) -> npt.NDArray[np.float32]:
    """Return noise (size, size) of the standard deviation `sigma`, correlated over some `length` px."""
    rough = ndimage.gaussian_filter(rng.standard_normal((size, size)), length)
    return (rough * (sigma / rough.std())).astype(np.float32)


def _share(footprints: npt.NDArray[np.object_], size: int) -> npt.NDArray[np.float32]:
    fine = rasterize(shapely.transform(footprints, lambda xy: xy * FINE), (size * FINE, size * FINE), dtype="uint8")
    return fine.reshape(size, FINE, size, FINE).mean(axis=(1, 3)).astype(np.float32)


def _write(path: Path, probs: npt.NDArray[np.float32], transform: Any) -> None:
    height, width = probs.shape
    grid = {"height": height, "width": width, "crs": "EPSG:3857", "transform": transform}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 3}
    with rasterio.open(path, "w", driver="GTiff", count=1, dtype="float32", nodata=np.nan, **grid, **layout) as file:
        file.write(probs, 1)
        file.update_tags(THRESHOLD=0.5)


if __name__ == "__main__":
    main()
