"""The report for people: a table of the scenes, what is wrong with which file, the splits, a closing line."""

from collections.abc import Iterator
from itertools import groupby

from sn7.check.findings import CONSEQUENCES, KINDS
from sn7.check.report import Report
from sn7.check.scenes import SceneReport
from sn7.check.splits import SplitReport

__all__ = ["report_text"]

FILES = 3
"""Files that are named of each kind; --json names all."""
HEAD = (
    "scene", "images", "missing", "size, px", "bands", "CRS", "place", "unusable", "UDM", "match/pix/labels",
    "labelled", "footprints", "building",
)  # fmt: skip
NAMES = {"scene", "size, px", "bands", "CRS", "place"}
LEGEND = (
    "missing: months of the data set without an image. place: the image against the tile in the scene's name. "
    "unusable: pixels with\nalpha 0 or under the UDM. UDM: images with a mask. match/pix/labels: label files by "
    "folder. labelled: images with usable\nfootprints. building: share of the usable pixels. "
    "size: height × width; where images differ, the most common, and how many differ."
)


def report_text(report: Report) -> str:
    """Return the report as text of at most some 150 columns but for long file names."""
    parts = [*_tables(report), LEGEND, *_findings(report), _splits(report), _closing(report)]
    return "\n\n".join(parts)


def _tables(report: Report) -> Iterator[str]:
    for part, rows in groupby(report.scenes, key=lambda row: row.part):
        table = [(f"{part}/", *HEAD[1:]), *(_row(row) for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        yield "\n".join("  ".join(_aligned(row, widths)).rstrip() for row in table)


def _aligned(row: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    """Yield the cells of a row, padded: names to the left, numbers to the right."""
    for name, cell, width in zip(HEAD, row, widths, strict=True):
        yield cell.ljust(width) if name in NAMES else cell.rjust(width)


def _row(row: SceneReport) -> tuple[str, ...]:
    return (
        row.scene,
        str(row.images),
        str(len(row.months_missing) or "–"),
        _most(row.sizes),
        _most(row.bands),
        _most(row.crs),
        _most(row.positions),
        _percent(row.unusable_share),
        str(row.with_udm or "–"),
        "/".join(map(str, row.labels.values())) if any(row.labels.values()) else "–",
        str(row.labelled or "–"),
        f"{row.footprints:,}" if row.footprints else "–",
        _percent(row.building_share),
    )


def _most(counts: dict[str, int]) -> str:
    """Return the most common value, and how many images have another one."""
    if not counts:
        return "–"
    (value, count), others = next(iter(counts.items())), sum(counts.values())
    return f"{value} +{others - count}" if others > count else value


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _findings(report: Report) -> Iterator[str]:
    """Yield a block for each consequence, with a paragraph for each kind."""
    for consequence, found in groupby(report.findings, key=lambda found: found.consequence):
        lines = [f"{consequence.upper()} – {CONSEQUENCES[consequence]}"]
        for kind, same in groupby(found, key=lambda found: found.kind):
            findings = list(same)
            lines.append(f"  {len(findings):,} × {KINDS[kind][1]}")
            for one in findings[:FILES]:
                lines.append(f"      {report.place(one)}" + f": {one.found}" * bool(one.found))
            if len(findings) > FILES:
                lines.append(f"      and {len(findings) - FILES:,} more (all with --json)")
        yield "\n".join(lines)


def _splits(report: Report) -> str:
    scenes = sum(row.part == "train" for row in report.scenes)
    lines = [f"SPLITS – {_many(scenes, 'scene')} to train on in {_many(report.clusters, 'cluster')} of neighbours"]
    return "\n".join(lines + [line for split in report.splits for line in _split(split)])


def _split(split: SplitReport) -> Iterator[str]:
    there = f"  {split.split}: {split.validation} of its {split.wanted} validation scenes are there"
    if not split.training or not split.validation:
        yield f"{there}, {split.training} to train on: of no use here"
        return
    yield f"{there}; it separates {_many(len(split.leaks), 'pair')} of neighbours within 60 km"
    for leak in split.leaks:
        yield f"      {leak.training} trains, {leak.validation} validates, {leak.km:.0f} km apart"


def _closing(report: Report) -> str:
    training = [row for row in report.scenes if row.part == "train"]
    images, final = sum(row.images for row in training), [row for row in report.scenes if row.part != "train"]
    counts = report.to_dict()["consequences"]
    findings = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "none"
    return (
        f"{report.data}: {_many(len(training), 'scene')} with {_many(images, 'image')} to train on, "
        f"{sum(row.labelled for row in training):,} of them labelled; {_many(len(final), 'scene')} with "
        f"{_many(sum(row.images for row in final), 'image')} to predict; findings: {findings}"
    )


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"
