"""The final scenes, which no model saw, predicted by the ensemble: a Ray task a scene."""

from pathlib import Path

import ray

from sn7.catalog import Scene, read_catalog
from sn7.ensemble import load_predictor
from sn7.errors import ImageUnreadable
from sn7.predict import PredictReport, predict_image
from sweep.board import Board
from sweep.crossval import result
from sweep.study import Resources

__all__ = ["predict_final"]


def predict_final(ensemble: Path, data: Path, out: Path, resources: Resources) -> PredictReport:
    """Predict the scenes below test_public of a data set; without any, the report is empty."""
    scenes = read_catalog(data).final
    task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu)(_predict_scene)
    waiting = [task.remote(ensemble, scene, out) for scene in scenes]
    board = Board(len(waiting), 0, "scenes")
    total = PredictReport(0, (), ())
    while waiting:
        done, waiting = ray.wait(waiting)
        report: PredictReport = result(done[0])
        total = PredictReport(
            total.images + report.images, total.written + report.written, total.skipped + report.skipped
        )
        board.end(len(waiting), "COMPLETE")
    board.close()
    return total


def _predict_scene(ensemble: Path, scene: Scene, out: Path) -> PredictReport:
    """Predict a scene; an image that cannot be read is skipped with the reason, after all that it cost to get here."""
    predictor = load_predictor(ensemble)
    written, skipped = [], []
    for image in scene.images:
        try:
            files = predict_image(predictor, image.path, out / scene.name, image.udm)
        except ImageUnreadable as error:
            skipped.append(str(error))
            continue
        if files:
            written.append(files)
        else:
            skipped.append(f"{image.path} has no valid pixel.")
    return PredictReport(len(scene.images), tuple(written), tuple(skipped))
