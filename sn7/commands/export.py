"""`sn7 export`: a model or an ensemble → a file for other runtimes."""

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add", "run"]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    command: argparse.ArgumentParser = commands.add_parser("export", help="model or ensemble → ONNX")
    command.add_argument("model", type=Path, help="a model folder or an ensemble folder")
    command.add_argument(
        "out",
        type=Path,
        help="file to write, FILE.onnx: uint8 RGB (N, 3, height, width) in, probs (N, height, width) out, threshold in "
        "its metadata; weights beyond 2 GiB go to FILE.onnx.data beside it",
    )
    command.add_argument("--format", choices=["onnx"], default="onnx", help="format of the file (default: %(default)s)")
    command.set_defaults(command=run)
    return command


def run(options: argparse.Namespace) -> str:
    """Run it; return what it prints."""
    import torch

    from sn7.ensemble import load_predictor
    from sn7.export import TOLERANCE, export_onnx

    report = export_onnx(load_predictor(options.model, torch.device("cpu")), options.out)
    size = sum(path.stat().st_size for path in report.files) / 1e6
    return (
        f"{' and '.join(map(str, report.files))}: {report.members} models, {report.parameters:,} parameters, "
        f"{size:.1f} MB; probs in onnxruntime differ from torch's by at most {report.difference:.1g} over "
        f"{report.batches} batches ({TOLERANCE:g} is allowed)"
    )
