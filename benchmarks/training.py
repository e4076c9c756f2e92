"""What a training costs beside the notebook's, and beside the model's own steps.

    .venv/bin/python benchmarks/training.py [--json]          some six minutes on two cores, seconds on a GPU

notebook   fastai's DataBlock over PNG tiles on disk, its transforms, fp32, defaults
ours       sn7.train on a prepared set
limit      the same optimizer step as ours on one batch that stays on the device

By turns, on the same model, batch and tile size. Rates are training tiles a second, without the first batch; the ratio
is that of the best of each, since other work on the machine only ever takes.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from fastai.callback.schedule import Learner
from notebooktraining import EpochTimer, notebook_learner, write_tiles

from sn7.config import TrainConfig
from sn7.device import default_device, device_name
from sn7.folds import Split
from sn7.learner import open_learner, rates
from sn7.loader import loaders
from sn7.measure import Rehearsal
from sn7.prepare import prepare
from sn7.prepared import Prepared
from sn7.sample import make_sample
from sn7.tiles import training_tiles, validation_tiles
from sn7.trainloop import TrainLoss, ValidationMetrics
from sn7.unet import build_unet

SCENES = 4
"""Of 1,024 px, one of them to validate on: four batches of the notebook's."""


def main() -> None:
    """Print the table, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each way (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="the ratios as JSON, in the last line")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sn7-bench-") as name:
        bench = Bench(Path(name))
        ways: dict[str, Callable[[], Rates]] = {"notebook": bench.notebook, "ours": bench.ours, "limit": bench.limit}
        measured: dict[str, list[Rates]] = {way: [] for way in ways}
        for number in range(options.rounds):
            for way, measure in ways.items():
                measured[way].append(measure())
                print(f"round {number + 1}, {way}: {measured[way][-1][0]:.2f} tiles/s", flush=True)
    ratios = report(measured, bench.config)
    if options.json:
        print(json.dumps(ratios))


Rates = tuple[float, float, float]
"""Training tiles a second, seconds of validation (0 where there is none), most memory of the device in MiB."""


class Bench:
    """The three ways on the same tiles."""

    def __init__(self, folder: Path) -> None:
        self.config = TrainConfig(epochs=1, undersample=False)
        self.device = default_device()
        make_sample(folder / "sample", scenes=SCENES, months=1, size=1024, seed=0)
        self.prepared: Prepared = prepare(folder / "sample", folder / "prepared").prepared
        *rest, last = self.prepared.scenes
        self.split = Split("bench", tuple(rest), (last,))
        self.tiles = folder / "tiles"
        for part, chosen in (
            ("training", training_tiles(self.prepared, self.split.training, self.config)),
            ("validation", validation_tiles(self.prepared, self.split.validation, self.config)),
        ):
            write_tiles(self.prepared, chosen, self.tiles / part)

    def notebook(self) -> Rates:
        """Return what an epoch of the notebook takes."""
        learner = notebook_learner(self.tiles / "training", self.tiles / "validation", self.config)
        with learner.no_bar(), learner.no_logging():
            return self._timed(learner)

    def ours(self) -> Rates:
        """Return what an epoch of ours takes: the learner of sn7.training, with all that counts."""
        training, validation = loaders(self.config, self.prepared, self.split, self.device)
        model = self._model()
        with open_learner(self.config, model, training, validation, self.device) as learner:
            micro_batch = self.config.batch_size
            learner.add_cbs([TrainLoss(), ValidationMetrics(lambda *_: None, micro_batch)])
            return self._timed(learner)

    def _timed(self, learner: Learner) -> Rates:
        _reset(self.device)
        timer = EpochTimer()
        learner.fit_one_cycle(1, rates(self.config, self.config.lr_max), cbs=timer)
        return timer.rates[0], timer.validation_s[0], _tensors_mib(self.device)

    def limit(self) -> Rates:
        """Return what the steps take of a batch that is there already."""
        training, _ = loaders(self.config, self.prepared, self.split, self.device)
        images, target = next(iter(training))
        rehearsal = Rehearsal(self.config, len(images), self.device)
        _reset(self.device)
        for step in range(len(training)):
            if step == 1:
                started = _now(self.device)
            rehearsal.step((images, target))
        seconds = _now(self.device) - started
        return len(images) * (len(training) - 1) / seconds, 0.0, _tensors_mib(self.device)

    def _model(self) -> torch.nn.Module:
        return build_unet(self.config).to(memory_format=torch.channels_last).to(self.device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _tensors_mib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


def report(measured: dict[str, list[Rates]], config: TrainConfig) -> dict[str, float]:
    """Print a table and return the ratios."""
    best = {way: max(rate for rate, *_ in rounds) for way, rounds in measured.items()}
    print(f"\n{config.encoder}, {config.batch_size} tiles of {config.tile_size} px, {device_name()}")
    print(f"{'':10}{'tiles/s, best':>14}{'lowest':>9}{'validation s':>14}{'peak MiB':>10}")
    for way, rounds in measured.items():
        validation, peak = min(seconds for _, seconds, _ in rounds), max(peak for *_, peak in rounds)
        print(f"{way:10}{best[way]:14.2f}{min(rate for rate, *_ in rounds):9.2f}{validation:14.1f}{peak:10.0f}")
    ratios = {"vs_notebook": best["ours"] / best["notebook"], "vs_limit": best["ours"] / best["limit"]}
    print(f"ours is {ratios['vs_notebook']:.2f} x the notebook's and {ratios['vs_limit']:.3f} of the limit")
    return {name: round(value, 4) for name, value in ratios.items()}


if __name__ == "__main__":
    main()
