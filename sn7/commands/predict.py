"""`sn7 predict`: images → probs and polygons."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sn7.pooling import POOLS
from sn7.rules import PolygonRules

if TYPE_CHECKING:
    from sn7.predict import Way

__all__ = ["add", "run"]

EPILOG = f"""\
Below OUT, in a folder a scene: <image>.tif, probs as a Cloud Optimized GeoTIFF, NaN where invalid, with the bands
boundary and contact where the model has such outputs; <image>.geojson, polygons with area_m2 (true ground area) and
mean_prob; <image>.png, the image with their outlines. Pooled over all months, they have the scene's name.

An image in a scene's folder is invalid where its mask in UDM_masks says so, also when it is given by itself. An image
that cannot be read, or has no valid pixel, is skipped; after one that cannot be read the exit status is 1.

An image without a CRS is predicted with a warning: its probs have none either, its polygons are in the file's own
coordinates (pixels where it has no geotransform), area_m2 is null, and what is dropped is under 4 px².

{PolygonRules.help_lines()}

The threshold is the model's by default, and so are the other rules where they were tuned. A model with separation
outputs has seed_level 0.4 otherwise."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "predict", help="images → probs GeoTIFF, polygons, preview", epilog=EPILOG
    )
    command.add_argument("model", type=Path, help="a model folder or an ensemble folder")
    command.add_argument(
        "input",
        nargs="+",
        help="GeoTIFFs, a scene, or a data set (its test_public scenes, if any); the latter two also at a URL",
    )
    command.add_argument("--out", type=Path, required=True, help="folder to write to")
    command.add_argument(
        "--tta",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="mean over the 8 flips and quarter turns; 8 times as slow (default: as the model's rules were tuned)",
    )
    command.add_argument(
        "--pool",
        choices=(*POOLS, "none"),
        help="pool the months of a scene; pixels invalid in a month do not count there (default: as with --tta)",
    )
    command.add_argument(
        "--pool-months",
        type=_odd,
        default=0,
        metavar="N",
        help="pool each month with those up to (N - 1) / 2 before and after it (default: 0, all months into one map)",
    )
    command.add_argument(
        "--fine", action="store_true", help="keep the grid of models that enlarge images (default: the image's own)"
    )
    command.add_argument(
        "--format", choices=("geojson", "gpkg", "parquet"), default="geojson", help="of polygons (default: %(default)s)"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="RULE=VALUE", help="a rule of polygons, see below; repeatable"
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    command.add_argument(
        "--batch-size",
        type=_batch,
        default="auto",
        metavar="N",
        help="windows at a time (default: what the device holds)",
    )
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints. Where an image cannot be read it prints that itself and raises ImageUnreadable."""
    from sn7.autobatch import window_batch
    from sn7.device import named_device
    from sn7.ensemble import load_predictor
    from sn7.errors import ConfigError, ImageUnreadable, MonthsInvalid
    from sn7.predict import MapOptions, Way, jobs_of, predict
    from sn7.storage import local
    from sn7.symmetries import Symmetries

    if options.pool_months and options.pool in (None, "none"):
        raise ConfigError("--pool-months says over how many months to pool, not how; add --pool mean or --pool median.")
    device, inputs = named_device(options.device), [local(place) for place in options.input]
    for path in inputs:
        jobs_of(path, options.out)  # what is not there is found before the model is loaded
    model = load_predictor(options.model, device, options.fine)
    batch_size = window_batch(model) if options.batch_size == "auto" else options.batch_size
    maps = MapOptions(PolygonRules.from_texts(options.set, model.rules), options.format, batch_size)
    tuned = Way.of(model.way)
    way = _way(options, tuned)
    predictor = Symmetries(model) if way.tta else model
    notes = [_note(way, tuned)] if tuned != Way() else []
    try:
        report = predict(predictor, inputs, options.out, maps, way.pooling)
    except MonthsInvalid as error:
        if options.pool:
            raise
        notes = [f"not pooled over months, as the rules of this model's polygons were tuned: {error}"]
        report = predict(predictor, inputs, options.out, maps)
    polygons = sum(files.count for files in report.written)
    text = "\n".join(
        [
            *(f"note: {note}" for note in notes),
            *(f"skipped: {sentence}" for sentence in report.skipped),
            *(f"warning: {sentence}" for sentence in report.warnings),
            f"{options.out}: {report.images - len(report.skipped)} of {report.images} images predicted "
            f"({report.km2:.1f} km²), {len(report.written)} maps, {polygons} polygons, {len(report.skipped)} skipped",
        ]
    )
    if report.unreadable:
        print(text)
        raise ImageUnreadable(
            f"{report.unreadable} of {report.images} images cannot be read; wanted all of them: get those again that "
            "are named above, or leave them out."
        )
    return text


def _way(options: argparse.Namespace, tuned: "Way") -> "Way":
    """Return what the options ask for, and of what they leave open how the model's rules were tuned."""
    from sn7.predict import Pooling, Way

    tta = tuned.tta if options.tta is None else options.tta
    if options.pool is None:
        return Way(tta, tuned.pooling)
    return Way(tta, None if options.pool == "none" else Pooling(options.pool, options.pool_months))


def _note(way: "Way", tuned: "Way") -> str:
    if way == tuned:
        return f"probs are made as the rules of this model's polygons were tuned: {way.options}"
    return f"the rules of this model's polygons were tuned on probs of {tuned.options}; these are of {way.options}"


def _odd(text: str) -> int:
    if not text.isdecimal() or (int(text) and int(text) % 2 == 0):
        raise argparse.ArgumentTypeError(f"{text} cannot be used; wanted 0 or an odd number of months, such as 3")
    return int(text)


def _batch(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} cannot be used; wanted 1 or more windows, or auto")
    return int(text)
