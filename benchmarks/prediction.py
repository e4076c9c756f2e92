"""Prediction beside the notebook's way and beside the network alone; polygons; memory; SCOT's growth.

    .venv/bin/python benchmarks/prediction.py [--json] [--large]    some three minutes on two cores, --large ten more

notebook   one `learn.predict` for each of 16 tiles of 255 px, saved as PNG, in fp32
ours       the image from its GeoTIFF, window after window, to its outputs on disk
limit      the same windows, in memory already, through the same network
maps       what is written then: COG, polygons, preview

On the same weights and image; the ratio is that of the best of each, since other work on the machine only ever takes.
On a processor seconds are CPU seconds of all threads, which other work hardly touches.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
import scot
import torch
from notebooktraining import notebook_learner, write_tiles
from PIL import Image
from scipy import ndimage

from sn7.autobatch import window_batch
from sn7.config import TrainConfig
from sn7.device import device_name
from sn7.ensemble import Predictor, load_predictor
from sn7.imagereader import open_image
from sn7.modeldir import save_model
from sn7.polygons import to_polygons
from sn7.predict import MapOptions, predict_image
from sn7.predict.raw import write_raw
from sn7.prepare import prepare
from sn7.prepared import MASK, Prepared
from sn7.rules import PolygonRules
from sn7.sample import make_sample
from sn7.tiles import training_tiles
from sn7.unet import build_unet
from sn7.windows import predict_patches

LARGE = 20_000
"""Side, px, of the image that memory is measured with."""


def main() -> None:
    """Print the table, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default: %(default)s)")
    parser.add_argument("--large", action="store_true", help=f"memory with {LARGE:,} × {LARGE:,} px, too")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    parser.add_argument("--rows", type=int, default=LARGE, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(memory(options.child, options.rows)))
        return
    with tempfile.TemporaryDirectory(prefix="sn7-bench-") as name:
        bench = Bench(Path(name))
        ratios = bench.prediction(options.rounds) | bench.polygons()
        if options.large:
            ratios |= bench.large(options.rows)
    ratios |= {"scot_growth": scot.measure(options.rounds)["scot_growth"]}
    if options.json:
        print(json.dumps(ratios))


def now() -> float:
    """Return CPU seconds, or seconds where there is a GPU, which is waited for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def timed(work: Callable[[], object]) -> float:
    """Return what `work` takes, seconds."""
    started = now()
    work()
    return now() - started


class Bench:
    """An image of 1,024 px, a network with random weights, and the ways from one to the probs of the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.config = folder, TrainConfig(undersample=False)
        make_sample(folder / "sample", scenes=2, months=1, size=1024, seed=0)
        self.prepared: Prepared = prepare(folder / "sample", folder / "prepared").prepared
        save_model(folder / "model", build_unet(self.config), self.config, {})
        self.predictor: Predictor = load_predictor(folder / "model")
        self.batch_size = window_batch(self.predictor)
        self.image = next((folder / "sample").rglob("images_masked/*.tif"))
        self.tiles = folder / "tiles"
        first, second = (training_tiles(self.prepared, [scene], self.config) for scene in self.prepared.scenes[:2])
        write_tiles(self.prepared, first, self.tiles / "training")
        write_tiles(self.prepared, second[:2], self.tiles / "validation")

    def prediction(self, rounds: int) -> dict[str, float]:
        """Return the ratios of a scene's prediction."""
        learner = notebook_learner(self.tiles / "training", self.tiles / "validation", self.config)
        learner.model.load_state_dict(self.predictor.members[0][0].state_dict(), strict=False)
        tiles = sorted((self.tiles / "training" / "images").iterdir())
        ways: dict[str, Callable[[], object]] = {
            "notebook": lambda: self.notebook(learner, tiles),
            "ours": self.ours,
            "limit": self.limit,
            "maps": self.maps,
        }
        best = {name: min(timed(way) for _ in range(rounds)) for name, way in ways.items()}
        best["maps"] -= best["ours"]
        print(f"{self.config.encoder}, 1,024 px, {self.batch_size} windows of {self.predictor.window} px at a time, "
              f"{device_name()}, load {os.getloadavg()[0]:.1f}")  # fmt: skip
        for name, seconds in best.items():
            print(f"{name:10}{seconds:10.2f} s{len(tiles) / 16 * 1.048576 / max(seconds, 1e-9):10.2f} Mpx/s")
        return {
            "vs_notebook": round(best["notebook"] / best["ours"], 3),
            "vs_limit": round(best["limit"] / best["ours"], 3),
            "maps_s": round(best["maps"], 2),
        }

    def notebook(self, learner, tiles: list[Path]) -> None:  # type: ignore[no-untyped-def]
        """Predict tile by tile, as the notebook does, and put the tiles together."""
        probs = np.zeros((1020, 1020), np.float32)
        with learner.no_bar(), learner.no_logging():
            for number, tile in enumerate(tiles):
                row, col = 255 * (number // 4), 255 * (number % 4)
                probs[row : row + 255, col : col + 255] = learner.predict(tile)[2][1].numpy()

    def ours(self) -> None:
        """Predict the image from its file to its outputs on disk."""
        with open_image(self.image) as image:
            patches = predict_patches(image.rgb, *image.shape, self.predictor, batch_size=self.batch_size)
            write_raw(self.folder / "raw", image.shape[1], patches)

    def limit(self) -> None:
        """Pass as many windows of the same size through the network alone."""
        if not hasattr(self, "windows"):
            self.windows: list[tuple[int, ...]] = []
            watched = Watched(self.predictor, self.windows)
            rgb = np.zeros((3, 1024, 1024), np.uint8)
            list(predict_patches(lambda a, b: rgb[:, a:b], 1024, 1024, watched, batch_size=self.batch_size))
        for shape in self.windows:
            self.predictor.outputs(torch.zeros(shape, dtype=torch.uint8))

    def maps(self) -> None:
        """Predict the image to its three files."""
        predict_image(self.predictor, self.image, self.folder / "maps", options=MapOptions(batch_size=self.batch_size))

    def polygons(self) -> dict[str, float]:
        """Return what the polygons of a 1,024 px image take, with seeds and a watershed."""
        image = self.prepared.images[0]
        mask = self.prepared.pixels(image)[MASK].astype(np.float32)
        probs = ndimage.gaussian_filter(mask, 0.7)
        rules = PolygonRules(threshold=0.4, seed_level=0.7, seed_smoothing=0.5)
        with rasterio.open(self.image) as source:
            transform, crs = source.transform, source.crs
        found = to_polygons(probs, rules, transform, crs)
        seconds = min(timed(lambda: to_polygons(probs, rules, transform, crs)) for _ in range(3))
        print(f"{'polygons':10}{seconds:10.2f} s for {len(found):,} of {mask.shape[0]:,} px")
        return {"polygons_s": round(seconds, 3)}

    def large(self, rows: int) -> dict[str, float]:
        """Return the most memory that a process takes to predict an image of 20,000 px of width."""
        command = [sys.executable, __file__, "--child", str(self.folder), "--rows", str(rows)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        found: dict[str, float] = json.loads(answer)
        print(f"{rows:,} × {LARGE:,} px: {found['large_peak_mib']:,.0f} MiB, {found['large_s']:.0f} CPU s")
        return found


class Watched:
    """A predictor that writes down the shapes of its batches, and predicts nothing."""

    def __init__(self, predictor: Predictor, shapes: list[tuple[int, ...]]) -> None:
        self.name, self.threshold, self.window = predictor.name, predictor.threshold, predictor.window
        self.tags = predictor.tags
        self.rules, self.channels, self.scale = predictor.rules, predictor.channels, predictor.scale
        self.shapes = shapes

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return zeros."""
        self.shapes.append(tuple(batch.shape))
        return torch.zeros(len(batch), self.channels, *batch.shape[2:])


class StandIn:
    """A network that predicts one window, and colours in its place for all others: for memory, not for time."""

    def __init__(self, predictor: Predictor) -> None:
        self.name, self.threshold, self.window, self.tags = predictor.name, 0.5, predictor.window, predictor.tags
        self.rules, self.channels, self.scale = PolygonRules(), 1, 1
        predictor.outputs(torch.zeros(1, 3, self.window, self.window, dtype=torch.uint8))

    def outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what is bright, smoothed."""
        bright = batch.float().mean(1, keepdim=True) / 255
        smooth = torch.nn.functional.avg_pool2d(bright, 5, 1, 2)
        return ((smooth - smooth.mean()) * 4 + 0.35).clamp(0, 1)


def memory(folder: Path, rows: int) -> dict[str, float]:
    """Predict an image of 20,000 px of width, made of copies of a sample image, and return what that took."""
    large = folder / "large.tif"
    with Image.open(next((folder / "sample").rglob("images_masked/*.tif"))) as picture:
        copy = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    line = np.tile(copy, (1, 1, LARGE // 1024 + 1))[:, :, :LARGE]
    grid = {"height": rows, "width": LARGE, "crs": "EPSG:32631", "transform": rasterio.Affine(3, 0, 4e5, 0, -3, 5e6)}
    layout = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 1}
    with (
        rasterio.Env(GDAL_CACHEMAX=64 << 20),
        rasterio.open(large, "w", driver="GTiff", count=3, dtype="uint8", **grid, **layout) as target,
    ):
        for row in range(0, rows, 1024):
            target.write(line[:, : rows - row], window=rasterio.windows.Window(0, row, LARGE, min(1024, rows - row)))
    predictor = StandIn(load_predictor(folder / "model"))
    started = time.process_time()
    files = predict_image(predictor, large, folder / "large")
    assert files is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"large_peak_mib": round(peak), "large_s": round(time.process_time() - started, 1), "polygons": files.count}


if __name__ == "__main__":
    main()
