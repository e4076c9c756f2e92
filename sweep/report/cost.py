"""What a study took, and where it comes from."""

from collections.abc import Sequence

from sn7.errors import ModelInvalid
from sn7.predict.way import Way
from sn7.train import TrainResult, read_result
from sweep.fence import training
from sweep.report.findings import Findings
from sweep.report.page import Facts, Section, Table
from sweep.trial import base_folder

__all__ = ["cost", "origin"]


def cost(findings: Findings) -> Section:
    """Return hours, dollars and images of the study as a whole, and the trainings of each stage."""
    spent = findings.summary["spent"]
    facts = {"hours of the clock, all starts": f"{spent['hours']:.2f}", "GPU-hours": f"{spent['gpu_hours']:.2f}"}
    if spent["dollars"]:
        facts["dollars"] = f"{spent['dollars']:.2f}"
    facts["labelled images"] = str(sum(image.labelled for image in findings.plan.prepared.images))
    facts["images predicted"] = str(findings.summary["predicted"])
    seconds = findings.candidates[-1].cost.seconds_per_km2
    if seconds:
        way = Way.of(findings.summary["ensemble"]["way"])
        facts[f"km² a second, predicted by the ensemble{' as ' + way.words if way.tta else ''}"] = f"{1 / seconds:.2g}"
    stages = _stages(findings)
    columns = ["stage", "trainings", "epochs", "tiles trained", "hours of training"]
    return Section(
        "Cost", [Facts(facts), Table(columns, [row for row in stages if row[1]], caption=_caption(findings))]
    )


def _caption(findings: Findings) -> str:
    resources = findings.plan.study.resources
    return (
        f"Hours of training add up what ran side by side, on {float(resources.gpu):g} GPU and {resources.cpu} CPU "
        "each. Tiles of trainings that ended early are not counted."
    )


def _stages(findings: Findings) -> list[list[object]]:
    """Return trainings, epochs, tiles and hours of the search, the further seeds and the cross-validation."""
    search = {base_folder(findings.results, 0, split.name).name for split in findings.plan.validation}
    begun = {training(folder) for folder in findings.results.glob("trials/*/*") if training(folder).name in search}
    done: dict[str, list[TrainResult]] = {"search": [], "seeds": [], "folds": []}
    for path in sorted(findings.results.glob("trials/*/*/result.json")):
        name = training(path.parent).name
        stage = "search" if name in search else "seeds" if "-repeat-" in name else "folds"
        try:
            result = read_result(path.parent)
        except ModelInvalid:
            continue
        done[stage] += [result] if result else []
    measured = [row for row in findings.rows if row["seconds"] != ""]
    return [
        [
            "search",
            len(begun),
            sum(row["epochs_trained"] for row in measured),
            _tiles(done["search"]),
            sum(float(row["seconds"]) for row in measured) / 3600,
        ],
        *(
            [
                what,
                len(results),
                sum(result.epochs for result in results),
                _tiles(results),
                sum(r.seconds for r in results) / 3600,
            ]
            for what, results in (("further seeds", done["seeds"]), ("cross-validation", done["folds"]))
        ),
    ]


def _tiles(results: Sequence[TrainResult]) -> str:
    return f"{sum(result.training_tiles * result.epochs for result in results):,}"


def origin(findings: Findings) -> Section | None:
    """Return commit, data and versions, as the study's run in MLflow has them; None where nothing is known."""
    if not findings.about:
        return None
    return Section("Where it comes from", [Table(["what", ""], [list(pair) for pair in findings.about.items()])])
