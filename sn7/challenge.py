"""Footprints with identities over the months of a scene, and the challenge's CSV of them.

The CSV has the columns filename, id, geometry: WKT in pixel coordinates of the image. A month without a building is a
row with an empty geometry, whose id says nothing.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from sn7.catalog import parse_image_name
from sn7.errors import TracksInvalid
from sn7.files import atomic_file

__all__ = ["Tracks", "image_name", "read_csv", "write_csv"]

Geometries = npt.NDArray[np.object_]
COLUMNS = ("filename", "id", "geometry")
DECIMALS = 4
"""Of a pixel's side, in the CSV."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """The footprints of a scene's buildings, true or predicted, month by month.

    Row i of the arrays says: in month `months[month[i]]`, the building `ids[i]` has the outline `geometry[i]`.
    """

    scene: str
    months: tuple[str, ...]
    """YYYY-MM, in order; also those without a building."""
    month: npt.NDArray[np.int64]
    """(n,), places in `months`."""
    ids: npt.NDArray[np.int64]
    """(n,), the same number for the same building; a month has each once."""
    geometry: Geometries
    """(n,), polygons and multipolygons, in pixel coordinates of the scene's images: x right, y down."""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, scene: str, months: Mapping[str, tuple[Sequence[int], Sequence[shapely.Geometry]]]) -> "Tracks":
        """Return the tracks of a scene from the ids and outlines of each of its months, in any order.

        Raises TracksInvalid where a month has an id twice.
        """
        dates = sorted(months)
        counts = [len(months[date][0]) for date in dates]
        geometry = np.empty(sum(counts), object)
        geometry[:] = [shape for date in dates for shape in months[date][1]]
        ids = np.array([number for date in dates for number in months[date][0]], np.int64)
        tracks = cls(scene, tuple(dates), np.repeat(np.arange(len(dates)), counts), ids, geometry)
        _require_once(tracks, f"scene {scene}")
        return tracks


def image_name(scene: str, date: str) -> str:
    """Return the name, without ending, of a scene's image of the month `date`, YYYY-MM."""
    return f"global_monthly_{date.replace('-', '_')}_mosaic_{scene}"


def read_csv(path: Path) -> dict[str, Tracks]:
    """Return the tracks of each scene of a challenge CSV, whose rows may be in any order.

    Raises TracksInvalid where a column is missing, a file name or a geometry cannot be parsed, an id is no whole
    number, or a month has an id twice: with the first line concerned.
    """
    table = _read_table(path)
    scenes, dates = _places(path, table["filename"])
    ids = _whole_numbers(path, table["id"])
    geometry = _geometries(path, table["geometry"])
    tracks = {}
    for scene in sorted(set(scenes)):
        rows = np.flatnonzero(scenes == scene)
        months, month = np.unique(dates[rows], return_inverse=True)
        there = ~shapely.is_empty(geometry[rows])
        kept = rows[there]
        tracks[scene] = Tracks(scene, tuple(months.tolist()), month[there], ids[kept], geometry[kept])
        _require_once(tracks[scene], f"{path} (scene {scene})")
    return tracks


def write_csv(path: Path, scenes: Iterable[Tracks]) -> None:
    """Write tracks as a challenge CSV, whole or not at all; scene by scene, so that one is in memory at a time."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for tracks in scenes:
            writer.writerows(_rows(tracks))


def _rows(tracks: Tracks) -> list[tuple[str, int, str]]:
    order = np.lexsort((tracks.ids, tracks.month))
    texts = shapely.to_wkt(tracks.geometry[order], rounding_precision=DECIMALS)
    names = [image_name(tracks.scene, date) for date in tracks.months]
    placed = zip(tracks.month[order].tolist(), tracks.ids[order].tolist(), texts.tolist(), strict=True)
    bare = [(month, 0, "POLYGON EMPTY") for month in np.setdiff1d(np.arange(len(names)), tracks.month).tolist()]
    return [(names[month], number, text) for month, number, text in sorted([*placed, *bare])]


def _read_table(path: Path) -> pd.DataFrame:
    try:
        # one row a line, so that a row's number tells its line
        table = pd.read_csv(path, dtype=str, skip_blank_lines=False, skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors, as is a wrong encoding
        reason = getattr(error, "strerror", None) or str(error).strip()
        raise TracksInvalid(
            f"{path} cannot be read as a CSV ({reason}); wanted the columns {', '.join(COLUMNS)}: write it again."
        ) from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise TracksInvalid(
            f"{path} has the columns {', '.join(map(str, table.columns))}; wanted {', '.join(COLUMNS)}: "
            f"add {' and '.join(missing)}."
        )
    return table


def _places(path: Path, names: pd.Series) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.str_]]:
    """Return the scene and the month of each row."""
    codes, unique = pd.factorize(names, use_na_sentinel=False)
    parsed = []
    for code, name in enumerate(unique):
        found = parse_image_name(str(name).removesuffix(".tif"))
        if found is None:
            line = int(np.argmax(codes == code)) + 2
            raise TracksInvalid(
                f"{path} has, in line {line}, the filename {str(name)!r}; wanted "
                "global_monthly_YYYY_MM_mosaic_<scene>: correct it."
            )
        parsed.append(found)
    places = np.array(parsed, str).reshape(-1, 2)[codes]
    return places[:, 0], places[:, 1]


def _whole_numbers(path: Path, texts: pd.Series) -> npt.NDArray[np.int64]:
    numbers = pd.to_numeric(texts, errors="coerce")
    wrong = np.flatnonzero(~(np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 2**53)))
    if len(wrong):
        raise TracksInvalid(
            f"{path} has, in line {wrong[0] + 2}, the id {texts.iloc[wrong[0]]!r}; wanted a whole number: correct it."
        )
    return numbers.to_numpy(np.int64)


def _geometries(path: Path, texts: pd.Series) -> Geometries:
    geometry = shapely.from_wkt(texts.fillna("").to_numpy(object), on_invalid="ignore")
    polygonal = np.isin(
        shapely.get_type_id(geometry), (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)
    )
    wrong = np.flatnonzero(shapely.is_missing(geometry) | ~(polygonal | shapely.is_empty(geometry)))
    if len(wrong):
        found = str(texts.iloc[wrong[0]])
        shown = found if len(found) <= 60 else f"{found[:57]}…"
        raise TracksInvalid(
            f"{path} has, in line {wrong[0] + 2}, the geometry {shown!r}; wanted a POLYGON or MULTIPOLYGON as "
            f"WKT, with {len(wrong)} such lines in all: correct them."
        )
    return np.asarray(shapely.force_2d(geometry), object)


def _require_once(tracks: Tracks, where: str) -> None:
    """Raise TracksInvalid where a month has an id twice."""
    order = np.lexsort((tracks.ids, tracks.month))
    month, ids = tracks.month[order], tracks.ids[order]
    twice = np.flatnonzero((month[1:] == month[:-1]) & (ids[1:] == ids[:-1]))
    if len(twice):
        first = twice[0]
        raise TracksInvalid(
            f"{where} has the id {ids[first]} more than once in {tracks.months[month[first]]}; wanted each building "
            f"once a month, with {len(twice)} such rows in all: give each its own id, or join parts to a MULTIPOLYGON."
        )
