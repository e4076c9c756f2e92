"""A model or an ensemble → one ONNX file: uint8 RGB in, probs out, for runtimes that know nothing of torch.

OUT.onnx        the graph: normalisation, enlargement, every member, softmax and their weighted mean; the threshold and
                what else a reader needs are its metadata
OUT.onnx.data   the weights, where they are too large for one file
"""

import math
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

import sn7
from sn7.augment import enlarge
from sn7.ensemble import Predictor
from sn7.errors import ExportFailed
from sn7.files import atomic_file
from sn7.trainloop import native_probs
from sn7.unet import normalize

__all__ = ["TOLERANCE", "ExportReport", "export_onnx"]

TOLERANCE = 1e-4
"""Largest difference between a prob of torch and one of onnxruntime, on the same processor in fp32."""
FILE_LIMIT = 2**31 - 2**26
"""Bytes of weights that one file holds: an ONNX file ends at 2 GiB, and the graph needs some of them."""
EXAMPLE = (2, 3, 64, 96)
"""Shape of the batch that the graph is traced with; no size in it must become a constant."""
CHECKED = ((1, 3, 64, 64), (3, 3, 96, 160))
"""Shapes of the batches that are compared, beside one of the model's own window."""


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    files: tuple[Path, ...]
    members: int
    parameters: int
    difference: float
    """Largest difference between a prob of onnxruntime and one of torch, over all batches that were compared."""
    batches: int


class _Graph(nn.Module):
    """uint8 RGB (N, 3, H, W) → building probs, float32 (N, H, W), in fp32 throughout."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        # Of weights that are channels_last, torch's exporter concludes that height and width are multiples of 32.
        self.models = nn.ModuleList(model.to(memory_format=torch.contiguous_format) for model, _ in predictor.members)
        self.upscales = [config.upscale for _, config in predictor.members]
        self.weights = predictor.weights

    def forward(self, rgb: Tensor) -> Tensor:
        normal = normalize(rgb.float() / 255)
        probs = [
            weight * native_probs(model(enlarge(normal, upscale)), upscale)
            for model, upscale, weight in zip(self.models, self.upscales, self.weights, strict=True)
        ]
        return torch.stack(probs).sum(dim=0).clamp(0, 1)


def export_onnx(predictor: Predictor, out: Path) -> ExportReport:
    """Write `predictor` as an ONNX file, and read it back: it appears under its name only if it computes the same.

    Its input `rgb` is uint8 (N, 3, H, W), its output `probs` float32 (N, H, W); N is any number, H and W are multiples
    of 32 (most encoders take all others, too). The predictor is one on the CPU. Raises ExportFailed where the packages
    for it are not installed, the network has no ONNX form, or probs in onnxruntime differ from those of torch by more
    than TOLERANCE.
    """
    _require_packages()
    graph = _Graph(predictor).eval()
    parameters = sum(parameter.numel() for parameter in graph.parameters())
    batches = [_batch(shape) for shape in (*CHECKED, (1, 3, predictor.window, predictor.window))]
    with (
        tqdm(total=1 + len(batches), desc="export", unit="step", disable=None) as bar,
        atomic_file(out) as temporary,
        tempfile.TemporaryDirectory(prefix=".tmp-", dir=out.parent) as folder,
    ):
        written = Path(folder) / out.name  # which the file of weights is named after, inside the graph
        _write(graph, written, _metadata(predictor), 4 * parameters > FILE_LIMIT)
        bar.update()
        difference = 0.0
        for batch in batches:
            difference = max(difference, _difference(predictor, written, batch))
            bar.update()
        if not difference <= TOLERANCE:  # NaN is not
            raise ExportFailed(
                f"{out} is not written: its probs differ from those of {predictor.name} by up to {difference:.2g}; "
                f"wanted {TOLERANCE:g} at most, so use the model itself (`sn7 predict`, `mlflow models serve`)."
            )
        weights = written.with_name(f"{out.name}.data")
        files = [out]
        if weights.exists():  # put in place first: no graph is ever without them
            files.append(weights.replace(out.with_name(weights.name)))
        written.replace(temporary)
    return ExportReport(tuple(files), len(predictor.members), parameters, difference, len(batches))


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401 - torch's exporter needs these two, and says so in many lines
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportFailed(
            f"export to ONNX needs {error.name}, which is not installed; run pip install 'sn7[export]'."
        ) from error


def _metadata(predictor: Predictor) -> dict[str, str]:
    """Return what a reader of the file alone needs to use it."""
    return {
        "name": predictor.name,
        **{tag.lower(): value for tag, value in predictor.tags.items()},
        "threshold": repr(predictor.threshold),
        "members": str(len(predictor.members)),
        "window": str(predictor.window),
        "input": "rgb: uint8 (N, 3, height, width), red, green, blue as in the image, nothing subtracted; height and "
        "width multiples of 32",
        "output": "probs: float32 (N, height, width), probability of building; building from the threshold on",
        "made_by": f"sn7 {sn7.__version__}",
    }


def _write(graph: _Graph, path: Path, metadata: dict[str, str], external_data: bool) -> None:
    dimensions = {0: torch.export.Dim("N"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch to itself: names of dimensions, deprecations
            program = torch.onnx.export(
                graph,
                (torch.zeros(EXAMPLE, dtype=torch.uint8),),
                input_names=["rgb"],
                output_names=["probs"],
                dynamic_shapes=(dimensions,),
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises what it likes; only its causes say why
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ExportFailed(f"{path.name} cannot be written: the network has no ONNX form ({reason}).") from error
    assert program is not None  # which it is only in the exporter of old
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=external_data)


def _batch(shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """Return images of patches of 1, 4, 16 and 64 px: on noise alone a network may be sure of itself everywhere."""
    random, (count, bands, height, width) = np.random.default_rng(0), shape
    images = np.zeros(shape, np.uint8)
    for patch in (1, 4, 16, 64):
        values = random.integers(0, 64, (count, bands, -(-height // patch), -(-width // patch)), np.uint8)
        images += values.repeat(patch, axis=2).repeat(patch, axis=3)[:, :, :height, :width]
    return images


def _difference(predictor: Predictor, path: Path, batch: npt.NDArray[np.uint8]) -> float:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(["probs"], {"rgb": batch})[0]
    wanted = predictor.probs(torch.from_numpy(batch), "fp32").numpy()
    if found.shape != wanted.shape:
        return math.inf
    return float(np.abs(found - wanted).max())
