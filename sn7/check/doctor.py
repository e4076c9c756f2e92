"""check_data: every file of a data set → a report, one image a task, in parallel."""

import re
from pathlib import Path

from sn7.catalog import Catalog, Scene, read_catalog
from sn7.check.findings import CONSEQUENCES, KINDS, Finding, finding
from sn7.check.images import ImageReport, examine_image
from sn7.check.inventory import ImageFiles, Part, inventory
from sn7.check.report import Report
from sn7.check.scenes import SceneReport, months_between, scene_findings, scene_report
from sn7.check.splits import count_clusters, split_reports
from sn7.errors import DataMissing
from sn7.parallel import each

__all__ = ["check_data"]


def check_data(data: Path, workers: int | None = None) -> Report:
    """Read every file of the data set `data`, `workers` images at a time (default: as many as cores).

    Held in memory are one image a worker, and some kB of facts for each image read.
    Raises DataMissing where `data` is no folder or holds no scene, ConfigError where `workers` is below 1; whatever
    else is wrong is in the report.
    """
    refused: list[tuple[Path, DataMissing]] = []
    try:
        catalog = read_catalog(data, lambda path, error: refused.append((path, error)))
    except DataMissing as error:  # what hides every scene says more than that there is none
        raise (refused[0][1] if refused else error) from None
    scenes = _scenes(catalog)
    findings = [_refusal(path, error, scenes) for path, error in refused]
    if not catalog.training:
        findings.append(finding("nothing_to_train", data, f"{len(catalog.final)} scenes to predict"))
    tasks: list[ImageFiles] = []
    for scene, part in scenes:
        images, strays = inventory(scene, part)
        tasks += images
        findings += strays
    return _report(data, scenes, list(each(examine_image, tasks, workers, "check")), findings)


def _scenes(catalog: Catalog) -> list[tuple[Scene, Part]]:
    training: list[tuple[Scene, Part]] = [(scene, "train") for scene in catalog.training]
    return training + [(scene, "test_public") for scene in catalog.final]


def _refusal(path: Path, error: DataMissing, scenes: list[tuple[Scene, Part]]) -> Finding:
    """Return what the catalog refuses as a finding, told from `sn7 prepare`'s own sentence."""
    found = str(error).removeprefix(f"{path} ")
    scene = {scene.folder: scene for scene, _ in scenes}.get(path.parent.parent)
    if scene is None or path.suffix.lower() not in (".tif", ".tiff"):
        return finding("folder", path, found)
    month = re.search(r"(\d{4})_(\d{2})_mosaic_" + re.escape(scene.name), path.name)
    twice = month and f"{month[1]}-{month[2]}" in {image.date for image in scene.images}
    return finding("duplicate_month" if twice else "image_name", path, found)


def _report(data: Path, scenes: list[tuple[Scene, Part]], images: list[ImageReport], findings: list[Finding]) -> Report:
    dates = [image.files.image.date for image in images]
    span = (min(dates), max(dates)) if dates else None
    months = months_between(*span) if span else []
    rows: list[SceneReport] = []
    for scene, part in scenes:
        own = [image for image in images if image.files.part == part and image.files.image.scene == scene.name]
        rows.append(scene_report(scene, part, own, months))
        findings += scene_findings(scene, rows[-1], own)
        findings += [found for image in own for found in image.findings]
    order = {kind: place for place, kind in enumerate(KINDS)}
    gravity = {consequence: place for place, consequence in enumerate(CONSEQUENCES)}
    findings.sort(key=lambda found: (gravity[found.consequence], order[found.kind], found.path))
    return Report(data, span, count_clusters(rows), tuple(rows), tuple(split_reports(rows)), tuple(findings))
