"""Every configuration of a grid, trained once on a small generated data set → benchmarks/grid.csv.

    nice -n 15 .venv/bin/python benchmarks/grid.py          about an hour on two cores; one that was cut off goes on

A row a configuration, in the grid's order: the fields that vary, seconds of one core, and the validation Dice of each
epoch as it was, not the best so far. `benchmarks/search.py` looks trials up in it instead of training them.
"""

import argparse
import csv
import itertools
import random
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch
from tqdm import tqdm

from sn7.config import TrainConfig
from sn7.errors import ResultsConflict
from sn7.files import atomic_file, lock
from sn7.folds import named_split
from sn7.prepare import prepare
from sn7.prepared import load_prepared
from sn7.sample import make_sample
from sn7.train import EpochMetrics, train

__all__ = ["BASE", "GRID", "TABLE", "key", "points", "read_rows"]

TABLE = Path(__file__).with_name("grid.csv")
SAMPLE = {"scenes": 6, "months": 1, "size": 128, "seed": 0}
BASE = TrainConfig(encoder="test_efficientnet", tile_size=32, epochs=20, precision="fp32")
"""What all trainings share. timm's test_efficientnet is a real encoder, with channels few enough for a core."""
GRID: dict[str, tuple[float, ...] | tuple[int, ...]] = {
    "lr_max": (2.2e-4, 4.6e-4, 1e-3, 2.2e-3, 4.6e-3, 1e-2),
    "encoder_lr_factor": (0.1, 0.3, 1.0),
    "building_weight": (0.5, 0.6, 0.75, 0.9),
    "batch_size": (4, 8),
}
DICE = tuple(f"dice_{epoch}" for epoch in range(1, BASE.epochs + 1))
Point = dict[str, float | int]


def points() -> list[Point]:
    """Return the configurations of the grid, the last field varying first."""
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def key(row: dict[str, str] | Point) -> tuple[float, ...]:
    """Return the fields that vary, of a configuration or of a row."""
    return tuple(float(row[name]) for name in GRID)


def read_rows(table: Path = TABLE) -> list[dict[str, str]]:
    """Return the rows of the table, as text; none where there is no table yet.

    Raises ResultsConflict where the table is of another grid.
    """
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    known = {key(point) for point in points()}
    for row in rows:
        if tuple(row) != (*GRID, "seconds", *DICE) or key(row) not in known:
            raise ResultsConflict(f"{table} has a row of another grid ({row}); move it away and train again.")
    return rows


def train_point(point: Point, prepared: Path) -> list[float | int]:
    """Return a row of the table: the point, seconds, and the Dice of each epoch."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    dice: list[float] = []

    def report(metrics: EpochMetrics) -> None:
        dice.append(metrics.dice)

    opened = load_prepared(prepared)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        config = TrainConfig.from_dict(point, base=BASE)
        train(config, opened, named_split("random:0", opened), Path(out), report, keep="last")
    return [*point.values(), round(time.process_time() - started, 1), *(round(value, 6) for value in dice)]


def train_points(missing: Sequence[Point], prepared: Path, workers: int) -> Iterator[list[float | int]]:
    """Yield the rows of the points as they come, `workers` processes at work."""
    with ProcessPoolExecutor(workers) as pool:
        futures = [pool.submit(train_point, point, prepared) for point in missing]
        for future in tqdm(as_completed(futures), total=len(futures), unit=" configurations", desc="grid"):
            yield future.result()


def sort_table(table: Path) -> None:
    """Put the rows into the grid's order."""
    order = {key(point): position for position, point in enumerate(points())}
    rows = sorted(read_rows(table), key=lambda row: order[key(row)])
    with atomic_file(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*GRID, "seconds", *DICE], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Train what the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TABLE, help="table to write or to go on with")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="train at most so many configurations")
    options = parser.parse_args()
    with lock(options.out), tempfile.TemporaryDirectory() as folder:
        make_sample(Path(folder, "data"), **SAMPLE)
        prepare(Path(folder, "data"), Path(folder, "prepared"), 1)
        done = {key(row) for row in read_rows(options.out)}
        missing = [point for point in points() if key(point) not in done]
        # In a mixed order, so that the bar's rate, and a table that was cut off, are of the whole grid.
        random.Random(0).shuffle(missing)
        missing = missing[: options.limit]
        if not options.out.stat().st_size:  # the lock has made it
            options.out.write_text(",".join((*GRID, "seconds", *DICE)) + "\n", encoding="utf-8")
        with options.out.open("a", encoding="utf-8") as file:
            for row in train_points(missing, Path(folder, "prepared"), options.workers):
                file.write(",".join(map(repr, row)) + "\n")
                file.flush()
        sort_table(options.out)
    print(f"{options.out}: {len(done)} configurations were there, {len(missing)} trained, {len(points())} in the grid")


if __name__ == "__main__":
    main()
