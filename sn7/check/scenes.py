"""A scene's images side by side: months, grids, labels."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from sn7.catalog import LABEL_FOLDERS, Scene
from sn7.check.findings import Finding, finding
from sn7.check.grids import TOLERANCE, Grid
from sn7.check.images import ImageReport
from sn7.check.inventory import Part
from sn7.xyz import TILE_PIXELS, scene_tile

__all__ = ["SceneReport", "months_between", "scene_findings", "scene_report"]


@dataclass(frozen=True)
class SceneReport:
    """One row of the report; counts are of images where nothing else is said."""

    scene: str
    part: Part
    images: int
    months_missing: tuple[str, ...]
    """Months of the data set, from its first to its last, YYYY-MM, that the scene has no image of."""
    sizes: dict[str, int]
    """Height × width, px → images; as the next four, of the images that can be used."""
    crs: dict[str, int]
    transforms: dict[str, int]
    """Affine coefficients a b c d e f, in units of the CRS."""
    bands: dict[str, int]
    """Dtype and number of bands."""
    positions: dict[str, int]
    """Against the tile in the name: "its tile", "inside it", "other grid", "elsewhere", "unknown"."""
    lon: float | None
    lat: float | None
    """Centre of the first image that can be used, else of the tile in the name, degrees."""
    unusable_share: float | None
    """Mean over the images of the share of pixels with alpha 0 or under the UDM, 0 to 1."""
    with_udm: int
    labels: dict[str, int]
    """Label folder → images with a label file there."""
    labelled: int
    """Images with usable footprints."""
    footprints: int
    """Usable footprints of all images, from the label files that count."""
    building_share: float | None
    """Mean over the labelled images of the share of usable pixels that are building, 0 to 1."""


def scene_report(scene: Scene, part: Part, images: list[ImageReport], months: Iterable[str]) -> SceneReport:
    """Return the row of a scene; `months` are those of the whole data set."""
    present = {image.date for image in scene.images}
    grids = [image.grid for image in images if image.grid]
    tile = scene_tile(scene.name)
    lon, lat = (grids[0].lon, grids[0].lat) if grids else tile.centre if tile else (None, None)
    return SceneReport(
        scene=scene.name,
        part=part,
        images=len(images),
        months_missing=tuple(month for month in months if month not in present),
        sizes=_count(grid.size for grid in grids),
        crs=_count(grid.crs for grid in grids),
        transforms=_count(" ".join(f"{number:.12g}" for number in grid.transform) for grid in grids),
        bands=_count(f"uint8 × {grid.bands}" for grid in grids),
        positions=_count(grid.position for grid in grids),
        lon=lon,
        lat=lat,
        unusable_share=_mean(image.unusable_share for image in images),
        with_udm=sum(image.udm is not None for image in scene.images),
        labels={kind: sum(kind in image.files.labels for image in images) for kind in LABEL_FOLDERS},
        labelled=sum(bool(image.footprints) for image in images),
        footprints=sum(image.footprints or 0 for image in images),
        building_share=_mean(image.building_share for image in images),
    )


def scene_findings(scene: Scene, row: SceneReport, images: list[ImageReport]) -> list[Finding]:
    """Return what only shows when the images of a scene stand side by side."""
    found = []
    if row.months_missing:
        months = row.months_missing
        listed = ", ".join(months[:3]) + f" … {months[-1]}" * (len(months) > 3)
        found.append(finding("months_missing", scene.folder, listed, len(months)))
    if scene_tile(scene.name) is None:
        found.append(finding("tile_unknown", scene.folder))
    if row.part == "train" and images and all(image.footprints == 0 for image in images):
        found.append(finding("scene_unlabelled", scene.folder, f"{len(images)} images"))
    return found + _mixed_grids(images) + _same_pixels(images)


def months_between(first: str, last: str) -> list[str]:
    """Return the months from `first` to `last`, both included, YYYY-MM."""
    start, end = (12 * int(month[:4]) + int(month[5:]) - 1 for month in (first, last))
    return [f"{month // 12:04}-{month % 12 + 1:02}" for month in range(start, end + 1)]


def _mixed_grids(images: list[ImageReport]) -> list[Finding]:
    """Return the images whose size, CRS, pixels or corner are not those of most of the scene."""
    grids = {image.files.image.path: image.grid for image in images if image.grid}
    if not grids:
        return []
    usual = Counter(grids.values()).most_common(1)[0][0]
    found = ((path, "; ".join(_differences(grid, usual))) for path, grid in grids.items())
    return [finding("mixed_grids", path, different) for path, different in found if different]


def _differences(grid: Grid, usual: Grid) -> Iterator[str]:
    """Yield in what a grid is not the usual one; positions that differ by less than TOLERANCE are the same."""
    if grid.size != usual.size:
        yield f"{grid.size} px, most {usual.size} px"
    if grid.crs != usual.crs:
        yield f"{grid.crs}, most {usual.crs}"
        return
    (a, _, c, _, e, f), (ua, _, uc, _, ue, uf) = grid.transform, usual.transform
    if max(abs(a / ua - 1), abs(e / ue - 1)) * TILE_PIXELS > TOLERANCE:
        yield f"pixels of {a:.6g} × {-e:.6g}, most of {ua:.6g} × {-ue:.6g}"
    if max(abs((c - uc) / ua), abs((f - uf) / ue)) > TOLERANCE:
        yield f"corner at {c:.9g}, {f:.9g}, most at {uc:.9g}, {uf:.9g}"


def _same_pixels(images: list[ImageReport]) -> list[Finding]:
    first: dict[str, str] = {}
    found = []
    for report in images:
        image = report.files.image
        if report.pixels in first:
            found.append(finding("same_pixels", image.path, f"those of {first[report.pixels]}"))
        elif report.pixels:
            first[report.pixels] = image.date
    return found


def _count(values: Iterable[Hashable]) -> dict[str, int]:
    return {str(value): count for value, count in Counter(values).most_common()}


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
