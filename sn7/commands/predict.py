"""`sn7 predict`: images → probs and polygons."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser("predict", help="images → probs GeoTIFF, polygons, preview")
    command.add_argument("model", type=Path, help="a model folder or an ensemble folder")
    command.add_argument(
        "input",
        nargs="+",
        help="GeoTIFFs, a scene, or a data set (its test_public scenes, if any); the latter two also at a URL",
    )
    command.add_argument("--out", type=Path, required=True, help="folder to write to")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    from sn7.ensemble import load_predictor
    from sn7.predict import predict
    from sn7.storage import local

    report = predict(load_predictor(options.model), [local(place) for place in options.input], options.out)
    lines = [f"skipped: {sentence}" for sentence in report.skipped]
    polygons = sum(files.count for files in report.written)
    lines.append(
        f"{options.out}: {len(report.written)} of {report.images} images predicted, {polygons} polygons, "
        f"{len(report.skipped)} skipped"
    )
    return "\n".join(lines)
