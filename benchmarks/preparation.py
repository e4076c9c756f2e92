"""What masks and preparation cost beside the notebook's way and beside the least that has to be done.

    .venv/bin/python benchmarks/preparation.py [--json]          some three minutes, 2 GB of disk

masks      one real image, by turns: our way, the notebook's, and the limit (both files read, one rasterize call)
prepare    a data set of copies of that image, on one core and on two, and what a worker holds in memory
open       a prepared data set of 1,423 images, whose arrays are not even there

Masks are in CPU time, which other work on the machine disturbs least. The rest is in seconds of the clock, where other
work only ever adds, so the ratio of the cores is that of the lowest.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from notebookmasks import limit_mask, notebook_mask

from sn7.catalog import Image, read_catalog
from sn7.footprints import read_footprints
from sn7.imagearray import image_arrays
from sn7.masks import rasterize_mask
from sn7.prepared import load_prepared, save_index
from sn7.rasters import read_image
from sn7.sample import make_sample

MINI = Path(__file__).parents[2] / "shared" / "data" / "sn7_mini"
SN7_IMAGES = 1423
MONTHS = 24
"""Images of a scene of copies."""
PREPARE = """
import json, resource, sys, time
from pathlib import Path
from sn7.prepare import prepare
start = time.perf_counter()
prepare(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
seconds = time.perf_counter() - start
print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""
"""A process of its own, so that workers start without what this one has imported."""


def main() -> None:
    """Print the tables, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set whose largest image is used (default: the real 1615E)")
    parser.add_argument("--rounds", type=int, default=15, help="of the masks (default: %(default)s)")
    parser.add_argument("--prepare-rounds", type=int, default=3, help="of prepare (default: %(default)s)")
    parser.add_argument("--images", type=int, default=384, help="copies to prepare (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sn7-bench-") as name:
        folder = Path(name)
        image = largest_image(options.data or (MINI if MINI.is_dir() else sample(folder / "sample")))
        ratios = masks(image, options.rounds)
        ratios |= preparing(image, folder, options.images, options.prepare_rounds)
        ratios |= opening(image, folder / "index")
    if options.json:
        print(json.dumps(ratios))


def sample(out: Path) -> Path:
    """Generate a data set with an image of 1024 px."""
    make_sample(out, scenes=2, months=1, size=1024, seed=0)
    return out


def largest_image(data: Path) -> Image:
    """Return the labelled training image whose file of labels is the largest."""
    images = [image for scene in read_catalog(data).training for image in scene.images]
    return max(
        (image for image in images if image.label_kind == "labels_match"),
        key=lambda image: image.labels.stat().st_size if image.labels else 0,
    )


def by_turns(
    ways: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Return the median CPU seconds of each way; they run by turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            start = clock()
            way()
            if number:
                seconds[name].append(clock() - start)
    return {name: median(found) for name, found in seconds.items()}


def masks(image: Image, rounds: int) -> dict[str, float]:
    """Print what a mask costs; the ways give the same one but for filled interior rings."""
    raster = read_image(image.path)
    grid = raster.shape, raster.transform, raster.crs
    labels, kind = image.labels, image.label_kind
    assert labels is not None
    assert kind is not None

    def ours() -> Any:
        return rasterize_mask(read_footprints(labels, kind), *grid)

    def whole() -> Any:
        found = read_image(image.path)
        return rasterize_mask(read_footprints(labels, kind), found.shape, found.transform, found.crs)

    ways = {
        "labels → mask, ours": ours,
        "labels → mask, notebook's way": lambda: notebook_mask(image, *grid[:2]),
        "image + labels → mask, ours": whole,
        "image + labels → mask, the limit": lambda: limit_mask(image),
    }
    differs = {name: int((way() != ours()).sum()) for name, way in ways.items()}
    found = by_turns(ways, rounds)
    footprints = len(read_footprints(labels, kind))
    print(f"{image.name}: {footprints:,} footprints, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print(f"{'':36}{'CPU ms':>8}{'pixels that differ from ours':>32}")
    for name, seconds in found.items():
        print(f"{name:36}{1000 * seconds:>8.1f}{differs[name]:>32}")
    ours_s, notebook_s, whole_s, limit_s = found.values()
    return {"masks_vs_notebook": round(notebook_s / ours_s, 2), "masks_vs_limit": round(whole_s / limit_s, 3)}


def preparing(image: Image, folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Print what `prepare` takes on one core and on two, and the memory of a worker over a quarter and over all."""
    data = copies(image, folder / "data", count)
    quarter = copies(image, folder / "quarter", -(-count // 4))
    runs: dict[int, list[float]] = {1: [], 2: []}
    memory = 0.0
    for number in range(1, rounds + 1):
        for workers, seconds in runs.items():
            took, held = prepare_apart(data, folder / "out", workers)
            seconds.append(took)
            memory = max(memory, held)
        print(f"round {number}: one core {runs[1][-1]:.1f} s, two {runs[2][-1]:.1f} s", file=sys.stderr)
    _, memory_quarter = prepare_apart(quarter, folder / "out", 2)
    print(f"\nprepare, {count} images, wall seconds, {rounds} rounds by turns, load {os.getloadavg()[0]:.1f}")
    print(f"{'':12}{'median':>8}{'lowest':>8}{'highest':>9}{'images/s':>10}{f'{SN7_IMAGES:,} images':>16}")
    for name, found in (("one core", runs[1]), ("two cores", runs[2])):
        figures = f"{median(found):>8.1f}{min(found):>8.1f}{max(found):>9.1f}{count / median(found):>10.1f}"
        print(f"{name:12}{figures}{SN7_IMAGES * min(found) / count:>14.0f} s")
    print(f"a worker's peak: {memory_quarter:.0f} MB over {-(-count // 4)} images, {memory:.0f} MB over {count}")
    return {"scaling_2_cores": round(min(runs[1]) / min(runs[2]), 2), "worker_mb": round(memory)}


def copies(image: Image, data: Path, count: int) -> Path:
    """Make a data set of `count` images, all links to one copy of `image` and its labels."""
    assert image.labels is not None
    data.mkdir()
    tif, geojson = data / "image", data / "labels"
    tif.write_bytes(image.path.read_bytes())
    geojson.write_bytes(image.labels.read_bytes())
    for number in range(count):
        scene = f"L15-{number // MONTHS:04}E-0000N_{number // MONTHS}_0_13"
        year, month = divmod(number % MONTHS, 12)
        stem = f"global_monthly_{2018 + year}_{month + 1:02}_mosaic_{scene}"
        for source, name in (
            (tif, f"images_masked/{stem}.tif"),
            (geojson, f"{image.label_kind}/{stem}_Buildings.geojson"),
        ):
            target = data / "train" / scene / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(source)
    return data


def prepare_apart(data: Path, out: Path, workers: int) -> tuple[float, float]:
    """Prepare `data` in a process of its own; return its seconds, and the peak of its largest worker in MB."""
    command = [sys.executable, "-c", PREPARE, str(data), str(out), str(workers)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        shutil.rmtree(out, ignore_errors=True)
    seconds, megabytes = json.loads(done.stdout)
    return seconds, megabytes


def opening(image: Image, folder: Path) -> dict[str, float]:
    """Print what it takes to open a prepared data set as large as SpaceNet 7, of an index alone."""
    row = image_arrays(image, "0" * 64).row
    rows = [
        dataclasses.replace(row, scene=f"{row.scene}-{number // MONTHS}", image=f"{row.image}-{number}")
        for number in range(SN7_IMAGES)
    ]
    save_index(folder, rows, "0" * 64, [])
    seconds = by_turns({"open": lambda: load_prepared(folder)}, 15, time.perf_counter)["open"]
    print(f"\nopening a prepared data set of {SN7_IMAGES:,} images: {1000 * seconds:.0f} ms, without reading a pixel")
    return {"open_1423_ms": round(1000 * seconds, 1)}


if __name__ == "__main__":
    main()
