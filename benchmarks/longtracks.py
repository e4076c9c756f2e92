"""Tracking over more months than a study was trained on: its fold models predict them, each scene by the one that did
not train on it, and the rules of tracking are tuned on that.

    .venv/bin/sn7 sample data/sample12 --months 12
    .venv/bin/python benchmarks/longtracks.py results/sample data/sample12 OUT [--tries 60]

The scenes must be those of the study. OUT gets what `sweep/run.py --tune-tracks` leaves in a study's folder.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sn7.ensemble import load_predictor
from sn7.files import read_json, write_json
from sn7.folds import Split
from sn7.prepare import prepare
from sn7.prepared import RGB
from sn7.windows import predict_array
from sweep.cluster import start_ray, stop_ray
from sweep.ensembles import SUMMARY, read_chosen
from sweep.oof import labelled_images, probs_path
from sweep.plan import Plan
from sweep.records import default_tracking_uri, open_records
from sweep.studyfile import load_study
from sweep.trackstage import track_stage
from sweep.trial import split_folder


def main() -> None:
    """Predict, tune, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of a complete study")
    parser.add_argument("data", type=Path, help="data set of the same scenes, with more months")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--tries", type=int, default=60, help="rules tried in each search (default: %(default)s)")
    options = parser.parse_args()
    out = options.out.resolve()
    plan = long_plan(options.results, options.data.resolve(), out)
    selection, _ = read_chosen(options.results)
    trials = sorted({trial for weights in (selection.weights, *selection.nested) for trial in weights})
    predict_folds(plan, trials, options.results, out)
    write_json(out / SUMMARY, read_json(options.results / SUMMARY))
    records = open_records(default_tracking_uri(out), out, out, plan.study.name, "longtracks", resumed=True)
    start_ray(None)
    try:
        print(track_stage(plan, out, records, options.tries))
    finally:
        stop_ray()
        records.close("COMPLETE")


def long_plan(results: Path, data: Path, out: Path) -> Plan:
    """Return the study's plan on other data, with the very folds of its ensemble."""
    study = replace(load_study(results / "study.toml"), data=str(data))
    prepared = prepare(data, out / "prepared").prepared
    parts = read_json(results / "ensemble" / "ensemble.json")["fitted"]["folds"]
    names = [f"fold{k}" for k in range(len(parts))]
    folds = tuple(
        Split(name, tuple(scene for other in parts if other != part for scene in other), tuple(part))
        for name, part in zip(names, parts, strict=True)
    )
    return Plan(study, prepared, folds, folds)


def predict_folds(plan: Plan, trials: list[int], results: Path, out: Path) -> None:
    """Write the out-of-fold probs of all months."""
    jobs = [(trial, split) for trial in trials for split in plan.folds]
    for trial, split in jobs:
        predictor = load_predictor(split_folder(results, trial, split.name) / "model")
        for image in tqdm(labelled_images(plan.prepared, split), desc=split.name, unit="image", disable=None):
            target = probs_path(out, trial, image)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                probs = predict_array(np.ascontiguousarray(plan.prepared.pixels(image)[RGB]), predictor)
                np.save(target, probs.astype(np.float16))


if __name__ == "__main__":
    main()
