"""Recipes at equal wall-clock, trained on some scenes and judged on others.

    .venv/bin/python benchmarks/recipes.py [--mini DIR] [--seconds 180] [--seeds 3] [--only NAME …] [--json]

Three places: the two labelled scenes of real fragments, each trained on to be judged on the other, and the sample.
Every training gets as many epochs as fit into the same seconds: what an epoch takes, validation included, follows from
tiles a second of each recipe, measured by turns before (the best of some rounds, since other work on the machine only
ever takes). The one-cycle schedule spans these epochs, and the model is that of the last. Its threshold is fitted on
the scenes that it was trained on; Dice is of all labelled images of the other scenes. Without --mini the sample alone.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sn7.config import TrainConfig
from sn7.device import device_name
from sn7.ensemble import Predictor, load_predictor
from sn7.folds import Split, named_split
from sn7.measure import measure_batch
from sn7.metrics import ThresholdCurve
from sn7.prepare import prepare
from sn7.prepared import MASK, RGB, VALID, Prepared
from sn7.sample import make_sample
from sn7.tiles import training_tiles, validation_tiles
from sn7.train import train
from sn7.windows import predict_array

NOTEBOOK = TrainConfig()
SMALL = replace(
    NOTEBOOK,
    encoder="resnet18d",
    tile_size=128,
    tile_placement="buildings",
    batch_size=8,
    images_per_scene=2,
    image_selection="spread",
    loss="cross_entropy_dice",
    lr_max=3e-3,
    encoder_lr_factor=1.0,
)
RECIPES = {
    "notebook": NOTEBOOK,
    "small": SMALL,
}
"""What is compared, by the names of the table."""
ROUNDS = 3
"""Of measuring what an epoch takes."""


@dataclass(frozen=True)
class Place:
    """Scenes to train on and scenes to be judged on."""

    name: str
    prepared: Prepared
    split: Split


@dataclass(frozen=True)
class Outcome:
    """One training."""

    place: str
    recipe: str
    seed: int
    epochs: int
    steps: int
    seconds: float
    """As it ran; longer than was planned where other work took part of the machine."""
    dice: float
    """On scenes not trained on, at the threshold fitted on those trained on."""
    dice_half: float
    """The same at 0.5."""
    dice_best: float
    """At the threshold that is best there, which nobody knows: what a better threshold could bring."""
    everything: float
    """Dice of "everything is a building"."""


def main() -> None:
    """Print a line a training, the table, and its means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mini", type=Path, help="folder of labelled fragments of two scenes, in the SN7 layout")
    parser.add_argument("--seconds", type=float, default=180, help="of a training (default: %(default)g)")
    parser.add_argument("--seeds", type=int, default=3, help="of each recipe (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="recipes (default: all)")
    parser.add_argument("--json", action="store_true", help="the means as JSON, in the last line")
    options = parser.parse_args()
    print(f"{device_name()}, {options.seconds:g} s a training", flush=True)
    rates = _rates(options.only)
    with tempfile.TemporaryDirectory(prefix="sn7-bench-") as folder:
        outcomes = []
        for place in _places(Path(folder), options.mini):
            for seed in range(options.seeds):  # recipes by turns: a slow minute of the machine hits them all
                for recipe in options.only:
                    outcomes.append(_outcome(place, recipe, seed, rates[recipe], options.seconds, Path(folder)))
                    print(_line(outcomes[-1]), flush=True)
    means = report(outcomes)
    if options.json:
        print(json.dumps(means))


def _rates(recipes: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return training and validation tiles a second of each recipe, the best of some rounds by turns."""
    best = dict.fromkeys(recipes, (0.0, 0.0))
    for _ in range(ROUNDS):
        for recipe in recipes:
            cost = measure_batch(RECIPES[recipe])
            training, validation = best[recipe]
            best[recipe] = max(training, cost.tiles_per_s), max(validation, cost.validation_tiles_per_s)
    for recipe, (training, validation) in best.items():
        print(f"{recipe}: {training:.2f} training and {validation:.2f} validation tiles/s", flush=True)
    return best


def _places(folder: Path, mini: Path | None) -> Iterator[Place]:
    """Yield the places, prepared for every recipe."""
    upscales = sorted({config.upscale for config in RECIPES.values()} - {1})
    if mini:
        prepared = prepare(mini, folder / "mini", upscales=tuple(upscales)).prepared
        one, two = prepared.scenes
        for trained, judged in ((one, two), (two, one)):
            yield Place(f"{_short(trained)} → {_short(judged)}", prepared, Split("bench", (trained,), (judged,)))
    make_sample(folder / "sample")
    sample = prepare(folder / "sample", folder / "prepared", upscales=tuple(upscales)).prepared
    yield Place("sample", sample, named_split("random:0", sample))


def _short(scene: str) -> str:
    return scene.split("-")[1]


def _outcome(place: Place, recipe: str, seed: int, rates: tuple[float, float], seconds: float, folder: Path) -> Outcome:
    """Train once, and judge."""
    config = replace(RECIPES[recipe], seed=seed)
    tiles = len(training_tiles(place.prepared, place.split.training, config))
    steps = max(1, tiles // config.batch_size)  # of an epoch: a last batch that is not full is left out
    judged = len(validation_tiles(place.prepared, place.split.validation, config))
    epochs = max(1, int(seconds / (min(tiles, steps * config.batch_size) / rates[0] + judged / rates[1])))
    out = folder / f"{place.name}-{recipe}-{seed}"
    started = time.monotonic()
    with contextlib.redirect_stderr(io.StringIO()):
        train(replace(config, epochs=epochs), place.prepared, place.split, out, keep="last")
    took = time.monotonic() - started
    predictor = load_predictor(out / "model")
    threshold = _curve(place.prepared, place.split.training, predictor).best_threshold()
    curve = _curve(place.prepared, place.split.validation, predictor)
    return Outcome(
        place.name,
        recipe,
        seed,
        epochs,
        epochs * steps,
        took,
        curve.counts(threshold).dice,
        curve.counts(0.5).dice,
        curve.counts(curve.best_threshold()).dice,
        curve.counts(0.0).dice,
    )


def _curve(prepared: Prepared, scenes: Sequence[str], predictor: Predictor) -> ThresholdCurve:
    """Return the threshold curve over all labelled images of the scenes."""
    total = ThresholdCurve.empty()
    for image in (image for scene in scenes for image in prepared.scene_images(scene)):
        pixels = prepared.pixels(image)
        probs = predict_array(np.ascontiguousarray(pixels[RGB]), predictor)
        total += ThresholdCurve.of(probs, pixels[MASK], pixels[VALID])
    return total


def _line(outcome: Outcome) -> str:
    return (
        f"{outcome.place}, {outcome.recipe}, seed {outcome.seed}: Dice {outcome.dice:.3f} (at 0.5 "
        f"{outcome.dice_half:.3f}, at best {outcome.dice_best:.3f}; all building {outcome.everything:.3f}), "
        f"{outcome.epochs} epochs, {outcome.steps} steps, {outcome.seconds:.0f} s"
    )


def report(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Print mean and range by place and recipe; return the means by recipe and place."""
    means: dict[str, dict[str, float]] = {}
    header = f"{'Dice: mean':>11}{'range':>16}{'at 0.5':>8}{'at best':>9}{'epochs':>8}{'steps':>7}"
    print(f"\n{'place':16}{'recipe':14}{header}")
    for place, recipe in dict.fromkeys((outcome.place, outcome.recipe) for outcome in outcomes):
        found = [outcome for outcome in outcomes if (outcome.place, outcome.recipe) == (place, recipe)]
        dice = [outcome.dice for outcome in found]
        half, best = (float(np.mean([getattr(o, name) for o in found])) for name in ("dice_half", "dice_best"))
        mean, spread = float(np.mean(dice)), f"{min(dice):.3f} to {max(dice):.3f}"
        print(
            f"{place:16}{recipe:14}{mean:11.3f}{spread:>16}{half:8.3f}{best:9.3f}{found[0].epochs:8}{found[0].steps:7}"
        )
        means.setdefault(recipe, {})[place] = round(mean, 4)
    return means


if __name__ == "__main__":
    main()
