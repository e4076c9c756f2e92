"""Findings of a made-up study, for the tests of the report."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from PIL import Image
from stages import Here

from sn7.evaluation import Evaluation
from sn7.files import write_json
from sn7.folds import Split
from sn7.history import EpochMetrics, write_rows
from sn7.prepared import MASK, Prepared
from sn7.tiles import Sampling
from sn7.train import TrainResult
from sweep.costs import Cost
from sweep.endings import ERROR
from sweep.ensembles import Candidate
from sweep.figures import out_of_fold_pictures
from sweep.leaderboard import leaderboard
from sweep.oof import mean_probs
from sweep.plan import Plan
from sweep.report import SECTIONS, Findings
from sweep.report.page import Section
from sweep.scoring import OutOfFold, Scorer
from sweep.search import NOTEBOOK
from sweep.selection import Selection
from sweep.studyfile import load_study
from sweep.trial import split_folder

EPOCHS = 3
FOLDS = (Split("fold0", ("scene2", "scene3"), ("scene0", "scene1")), Split("fold1", ("scene0",), ("scene2", "scene3")))
VALIDATION = Split("random:0", ("scene1", "scene2", "scene3"), ("scene0",))


COST = Cost(models=2, parameters=2000, mb=0.1, seconds_per_km2=0.25)


class Study:
    """Makes the findings of a study with trials as they are asked for: (state, Dice) of each."""

    def __init__(self, prepared: Prepared, study_file: Path, results: Path, folds: tuple[Split, ...] = FOLDS) -> None:
        self.plan = Plan(load_study(study_file), prepared, (VALIDATION,), folds)
        self.results = results

    def findings(self, *trials: tuple[str, float], final: bool = True, error: str = "it broke") -> Findings:
        """Return the findings; the first trial is the notebook recipe, and was cross-validated beside the best."""
        opened = optuna.create_study(direction="maximize")
        for number, (state, dice) in enumerate(trials):
            self._add(opened, number, state, dice, error)
        rows = leaderboard(opened)
        best = rows[0]["trial"]
        candidates = [
            Candidate(f"trial {trial}", Selection({trial: 1.0}), self._scored(trial, trial == best), COST)
            for trial in sorted({0, best})
            if trials[trial][0] == "COMPLETE"
        ]
        candidates.append(replace(candidates[-1], name="ensemble"))
        summary = {
            "trials": len(rows),
            "winner": rows[0],
            "notebook": next(row for row in rows if row["recipe"]),
            "ensemble": {
                "models": 2,
                "threshold": candidates[-1].scored.threshold,
                "way": "plain",
                "rules": {},
                "out_of_fold": candidates[-1].scored.counts.metrics(),
            },
            "gain": "",
            "tuning": "",
            "predicted": 3 if final else 0,
            "failed": [],
            "skipped": [],
            "none_predicted": "" if final else "the data set has no readable images below test_public",
            "ended_by": "trials",
            "spent": {"hours": 0.1, "gpu_hours": 0.0, "dollars": 0.0},
            "noise": "",
        }
        preview = self.results / "predictions" / "scene9" / "image.png"
        preview.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "green").save(preview)
        examples = out_of_fold_pictures(
            candidates[-1].scored,
            lambda weights, image: mean_probs(weights, self.results, image),
            self.plan.prepared,
        )
        return Findings(
            self.plan,
            opened,
            rows,
            candidates,
            summary,
            self.results,
            examples=examples,
            previews=[preview] if final else [],
            about={"commit": "abc"},
        )

    def _add(self, opened: optuna.Study, number: int, state: str, dice: float, error: str) -> None:
        searched = self.plan.study.space.searched
        values = {
            "lr_max": 3e-4 * 1.1**number,
            "building_weight": 0.75 - 0.005 * number,
            "images_per_scene": (5, 1, 2)[number % 3],
        }
        params = {name: values[name] for name in searched}
        about: dict[str, Any] = {NOTEBOOK: True} if number == 0 else {}
        if state == "FAIL":
            about[ERROR] = error
        else:
            described = {"dice": dice, "dice_std": 0.0, "iou": 0.3, "precision": 0.5, "recall": 0.5}
            about |= {**described, "best_epoch": EPOCHS, "epochs_trained": EPOCHS, "seconds": 60.0}
        opened.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState[state],
                params=params,
                distributions={name: searched[name].distribution for name in params},
                value=dice if state == "COMPLETE" else None,
                user_attrs=about,
            )
        )
        if state == "COMPLETE":
            self._train(number, dice)

    def _train(self, number: int, dice: float) -> None:
        history = [
            EpochMetrics(epoch, 1 / epoch, 1 / epoch, dice * epoch / EPOCHS, 0.3, 0.5, 0.5, 1e-3, 9.0, 20.0, 100.0, 4)
            for epoch in range(1, EPOCHS + 1)
        ]
        metrics = {"dice": dice, "iou": 0.3, "precision": 0.5, "recall": 0.5}
        found = Evaluation({"scene0": metrics}, dice - 0.1, dice + 0.1, 0.4, dice + 0.01, 0.91)
        result = TrainResult(history[-1], EPOCHS, 10, 5, Sampling(3, 3, 0), found, 1000, 60.0)
        folder = split_folder(self.results, number, self.plan.validation[0].name)
        folder.mkdir(parents=True)
        write_rows(folder / "history.csv", history)
        write_json(folder / "result.json", asdict(result))

    def _probs(self, image: Any, best: bool) -> np.ndarray:
        """Return probs that miss columns of buildings, one more from scene to scene, one more if not the best."""
        mask = self.plan.prepared.pixels(image)[MASK]
        probs = np.where(mask == 1, 0.6 if best else 0.5, 0.1).astype(np.float32)
        probs[:, : 16 * (1 + self.plan.prepared.scenes.index(image.scene) + (not best))] = 0.1
        return probs

    def _scored(self, trial: int, best: bool) -> OutOfFold:
        for image in self.plan.prepared.images:
            path = self.results / "oof" / f"{trial:04d}" / image.array
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, self._probs(image, best))
        return Scorer(self.results, self.plan.prepared, Here()).score(Selection({trial: 1.0}), self.plan.folds)


def sections(findings: Findings) -> dict[str, Section]:
    """Return the report's sections by title."""
    return {section.title: section for make in SECTIONS if (section := make(findings))}


def texts(section: Section) -> str:
    """Return the paragraphs of a section."""
    return " ".join(block.text for block in section.blocks if block.kind == "text")
