"""The final scenes, which no model saw, predicted by the ensemble: a Ray task a scene."""

from pathlib import Path

import ray

from sn7.catalog import read_catalog
from sn7.ensemble import load_predictor
from sn7.predict import PredictReport, predict
from sweep.board import Board
from sweep.crossval import result
from sweep.study import Resources

__all__ = ["predict_final"]


def predict_final(ensemble: Path, data: Path, out: Path, resources: Resources) -> PredictReport:
    """Predict the scenes below test_public of a data set; without any, the report is empty."""
    scenes = read_catalog(data).final
    task = ray.remote(num_cpus=resources.cpu, num_gpus=resources.gpu)(_predict_scene)
    waiting = [task.remote(ensemble, scene.folder, out) for scene in scenes]
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


def _predict_scene(ensemble: Path, scene: Path, out: Path) -> PredictReport:
    return predict(load_predictor(ensemble), [scene], out)
