"""The final scenes, which no model saw, predicted by the ensemble: a Ray task a scene."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sn7.catalog import Scene, read_catalog, read_scene
from sn7.ensemble import load_predictor
from sn7.errors import MonthsInvalid
from sn7.predict import PredictReport, Way, predict
from sn7.prepared import is_prepared
from sn7.storage import is_url, local
from sn7.symmetries import Symmetries
from sn7.windows import Predictor
from sweep.stage import Stage
from sweep.study import Study

__all__ = ["final_scenes", "predict_final", "why_none"]


def final_scenes(study: Study) -> Sequence[Scene]:
    """Return the scenes below test_public of the study's data set; a prepared one has none."""
    data = local(study.data)
    return () if is_prepared(data) else read_catalog(data).final


def why_none(study: Study, scenes: Sequence[Scene]) -> str:
    """Return why no image of these final scenes was predicted."""
    if scenes:
        return "none of the images below test_public could be used"
    if is_prepared(local(study.data)):
        return "the data set is a prepared one, which has no final scenes; `sn7 predict` takes images of any place"
    return "the data set has no readable images below test_public"


def predict_final(ensemble: Path, scenes: Sequence[Scene], data: str, out: Path, stage: Stage) -> PredictReport:
    """Predict scenes of the data set `data` into the folder `out`; without any, the report is empty.

    Raises KeyboardInterrupt where the study was asked to stop.
    """
    total = PredictReport(0, (), ())
    tasks = [(ensemble, scene, data, out) for scene in scenes]
    for _, report in stage.run(_predict_here, tasks, "scenes", as_trials=True):
        total += report
    return total


def _predict_here(ensemble: Path, scene: Scene, data: str, out: Path) -> PredictReport:
    return _predict_scene(ensemble, _reached(scene, data), out)


def _reached(scene: Scene, data: str) -> Scene:
    """Return a scene of the driver's as this machine has it: of a data set at a URL, a copy of all final scenes."""
    if not is_url(data) or scene.folder.is_dir():
        return scene
    return read_scene(local(f"{data.rstrip('/')}/{scene.folder.parent.name}") / scene.name)


def _predict_scene(ensemble: Path, scene: Scene, out: Path) -> PredictReport:
    """Predict a scene in the way that the ensemble's rules were tuned for; months that cannot be pooled one by one."""
    predictor: Predictor = (model := load_predictor(ensemble))
    way = Way.of(model.way)
    if way.tta:
        predictor = Symmetries(model)
    try:
        return predict(predictor, [scene.folder], out, pooling=way.pooling)
    except MonthsInvalid as error:
        alone = predict(predictor, [scene.folder], out)
        return replace(alone, warnings=(*alone.warnings, f"{scene.name} is not pooled over its months: {error}"))
