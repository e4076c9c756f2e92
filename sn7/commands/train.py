"""`sn7 train`: one configuration on one split."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sn7.commands.training import add_training_arguments, chosen_split, with_batch_size
from sn7.config import TrainConfig
from sn7.configfile import parse_config
from sn7.errors import Interrupted

if TYPE_CHECKING:
    from sn7.evaluation import Evaluation

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser(
        "train", help="train one configuration on one split", epilog=TrainConfig.help_lines()
    )
    command.add_argument("prepared", help="folder, or URL, of `sn7 prepare`")
    command.add_argument("out", type=Path, help="folder for model/, history.csv, pictures and result.json")
    add_training_arguments(command)
    command.add_argument(
        "--resume", action="store_true", help="continue the training that was interrupted in OUT; else it starts anew"
    )
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    config = parse_config(options.config, options.set)
    from sn7.history import EpochMetrics
    from sn7.prepared import load_prepared
    from sn7.signals import stop_on_signals
    from sn7.train import train

    prepared = load_prepared(options.prepared)
    split = chosen_split(options, prepared, config)
    config = with_batch_size(config, prepared, split, options.out if options.resume else None)
    with stop_on_signals("stopping with a checkpoint after this batch, or this validation") as asked:

        def report(metrics: EpochMetrics) -> None:
            if asked() and metrics.epoch < config.epochs:
                raise Interrupted(f"stopped after epoch {metrics.epoch} of {config.epochs}; go on with --resume.")

        def leave() -> Interrupted | None:
            return Interrupted("stopped within an epoch; go on with --resume.") if asked() else None

        result = train(config, prepared, split, options.out, report, resume=options.resume, urgent=asked, leave=leave)
    best, seen = result.best, result.sampling
    continued = f"; continued after epoch {result.continued_after}" if result.continued_after else ""
    return (
        f"{options.out}/model: Dice {best.dice:.4f}, IoU {best.iou:.4f}, precision {best.precision:.4f}, recall "
        f"{best.recall:.4f} on split {split.name} at epoch {best.epoch} of {result.epochs}; "
        f"{result.training_tiles} training tiles of {seen.images} of {seen.labelled} labelled images "
        f"({seen.tiles_left_out} {'without a building' if config.undersample else 'invalid'} left out), "
        f"{result.validation_tiles} validation tiles, "
        f"{result.parameters:,} parameters, {result.seconds:.0f} s{continued}\n{_evaluation(result.evaluation)}"
    )


def _evaluation(found: "Evaluation") -> str:
    scenes = sorted(found.scenes.items(), key=lambda scene: scene[1]["dice"])
    listed = "".join(f"\n  {metrics['dice']:.4f}  {scene}" for scene, metrics in scenes)
    interval = (
        "too few scenes for an interval"
        if found.dice_low is None
        else f"95 % interval over clusters of scenes {found.dice_low:.3f} to {found.dice_high:.3f}"
    )
    return (
        f"{interval}; at the best threshold, "
        f"{found.threshold:.2f}, Dice {found.threshold_dice:.4f}; ceiling of the labels' resolution "
        f"{found.ceiling_dice:.3f}; Dice by scene:{listed}"
    )
