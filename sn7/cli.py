"""The `sn7` command: one sub-command a stage. Each imports what it needs when it runs, so that --help is quick."""

import argparse
import sys
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sn7
from sn7.config import RECIPES, TrainConfig, field_specs, require_field
from sn7.errors import ConfigError, Sn7Error

__all__ = ["main", "parse_config"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command; return the exit status: 0 done, 1 bad input, 2 usage, 130 Ctrl-C."""
    options = _parser().parse_args(arguments)
    # fastai and torch announce deprecations of their own parts; what this command prints is for its users.
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        print(options.command(options))
        return 0
    except (Sn7Error, OSError) as error:
        if options.verbose:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sn7", description=sn7.__doc__)
    parser.add_argument("--version", action="version", version=f"sn7 {sn7.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_sample, _add_prepare, _add_train, _add_predict):
        command = add(commands)
        command.add_argument("--verbose", action="store_true", help="show the traceback of an error")
        command.formatter_class = argparse.RawDescriptionHelpFormatter  # keeps the lines of the epilog
    return parser


def _add_sample(commands: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        "sample", help="generate a small data set in the SpaceNet 7 layout"
    )
    command.add_argument("out", type=Path, help="folder to make")
    command.add_argument(
        "--scenes",
        type=int,
        default=6,
        help="scenes to train on; a third as many come to predict (default: %(default)s)",
    )
    command.add_argument("--months", type=int, default=4, help="monthly images of each scene (default: %(default)s)")
    command.add_argument("--size", type=int, default=320, help="side of an image, px (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="same seed, same files (default: %(default)s)")
    command.set_defaults(command=_sample)
    return command


def _sample(options: argparse.Namespace) -> str:
    from sn7.sample import make_sample

    report = make_sample(options.out, options.scenes, options.months, options.size, options.seed)
    return (
        f"{options.out}: {report.scenes} scenes to train on, {report.test_scenes} to predict; {report.images} images, "
        f"{report.images_with_udm} of them with UDM; {report.buildings:,} buildings in {report.footprints:,} "
        f"footprints, {report.building_share:.1%} of the pixels"
    )


def _add_prepare(commands: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        "prepare", help="data set → memory-mapped arrays and an index"
    )
    command.add_argument("data", type=Path, help="data set in the SpaceNet 7 layout")
    command.add_argument("out", type=Path, help="folder of the prepared data set")
    command.add_argument("--workers", type=int, help="processes (default: as many as cores, if there is enough to do)")
    command.set_defaults(command=_prepare)
    return command


def _prepare(options: argparse.Namespace) -> str:
    from sn7.prepare import prepare

    done = prepare(options.data, options.out, options.workers)
    lines = [f"left out: {sentence}" for sentence in done.left_out]
    lines.append(
        f"{options.out}: {len(done.prepared.images)} images of {len(done.prepared.scenes)} scenes, "
        f"{done.written} prepared, {done.reused} reused, {done.unlabelled} unlabelled (invalid everywhere)"
    )
    return "\n".join(lines)


def _add_train(commands: Any) -> argparse.ArgumentParser:
    fields = "\n".join(f"  {spec.name:18} {spec.help} (default: {spec.default})" for spec in field_specs().values())
    command: argparse.ArgumentParser = commands.add_parser(
        "train", help="train one configuration on one split", epilog="fields of a configuration:\n" + fields
    )
    command.add_argument("prepared", type=Path, help="folder of `sn7 prepare`")
    command.add_argument("out", type=Path, help="folder for model/, history.csv and result.json")
    command.add_argument(
        "--config", default="notebook", help="a TOML file of fields, or the name of a recipe (default: %(default)s)"
    )
    command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="one field; may be repeated")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--split", default="random:0", help="notebook, lxastro0 or random:SEED (default: %(default)s)")
    which.add_argument("--fold", type=int, help="validate on this fold, from 0")
    command.add_argument("--folds", type=int, default=5, help="number of folds (default: %(default)s)")
    command.set_defaults(command=_train)
    return command


def _train(options: argparse.Namespace) -> str:
    config = parse_config(options.config, options.set)
    from sn7.folds import building_pixels, fold_split, make_folds, named_split
    from sn7.prepared import load_prepared
    from sn7.train import train

    prepared = load_prepared(options.prepared)
    if options.fold is None:
        split = named_split(options.split, prepared)
    else:
        folds = make_folds(prepared.centres(), building_pixels(prepared), options.folds, config.seed)
        split = fold_split(folds, options.fold)
    result = train(config, prepared, split, options.out)
    best = result.best
    return (
        f"{options.out}/model: Dice {best.dice:.4f}, IoU {best.iou:.4f}, precision {best.precision:.4f}, recall "
        f"{best.recall:.4f} on split {split.name} at epoch {best.epoch} of {result.epochs}; "
        f"{result.training_tiles} training tiles, {result.validation_tiles} validation tiles, "
        f"{result.parameters:,} parameters, {result.seconds:.0f} s"
    )


def parse_config(name: str, assignments: Sequence[str]) -> TrainConfig:
    """Return the configuration of a recipe's name or a TOML file, with FIELD=VALUE assignments on top.

    Raises ConfigError for a file that cannot be read, an unknown field, or a value that the field does not take.
    """
    base = RECIPES.get(name) or _config_file(Path(name))
    values: dict[str, Any] = {}
    for assignment in assignments:
        field, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment} is no assignment; wanted FIELD=VALUE, such as epochs=10.")
        values[field] = _parse_value(field, text)
    return TrainConfig.from_dict(values, base)


def _config_file(path: Path) -> TrainConfig:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as TOML ({error}); wanted a file of fields, or one of the recipes "
            f"{', '.join(RECIPES)}."
        ) from error
    try:
        return TrainConfig.from_dict(content.get("train", content))  # a study file's [train] serves as well
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _parse_value(field: str, text: str) -> Any:
    kind = require_field(field).type
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return kind(text)
    except ValueError:
        return text  # the field's own check says what it wanted


def _add_predict(commands: Any) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser("predict", help="images → probs GeoTIFF, polygons, preview")
    command.add_argument("model", type=Path, help="a model folder or an ensemble folder")
    command.add_argument(
        "input",
        type=Path,
        nargs="+",
        help="GeoTIFFs, a scene, or a data set (its test_public scenes, if any)",
    )
    command.add_argument("--out", type=Path, required=True, help="folder to write to")
    command.set_defaults(command=_predict)
    return command


def _predict(options: argparse.Namespace) -> str:
    from sn7.ensemble import load_predictor
    from sn7.predict import predict

    report = predict(load_predictor(options.model), options.input, options.out)
    lines = [f"skipped: {sentence}" for sentence in report.skipped]
    polygons = sum(files.count for files in report.written)
    lines.append(
        f"{options.out}: {len(report.written)} of {report.images} images predicted, {polygons} polygons, "
        f"{len(report.skipped)} skipped"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
