"""A data set → pictures and numbers.json, before anything is spent on it.

    OUT/numbers.json         counts and shares; sn7.explore.numbers says what each key means
    OUT/scenes.png           sample scenes
    OUT/months.png           one scene through its months
    OUT/footprints.png       an image, and of one tile the mask and the outlines of the footprints
    OUT/tiles.png            random tiles beside their masks
    OUT/building_share.png   histogram of the building share per tile
    OUT/unusable.png         share of unusable pixels by scene and month
    OUT/map.png              the scenes on the earth, coloured by fold

It reads the files themselves, each once, in parallel, and keeps their numbers only; the at most 33 images that a
picture shows are read again. To prepare the data set first would take 5 MB an image, 7.5 GB for SpaceNet 7, and
lack what is shown here too: the scenes to predict, and the UDM of unlabelled images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sn7.catalog import read_catalog
from sn7.config import TrainConfig
from sn7.errors import ResultsConflict
from sn7.explore.atlas import draw_footprints, draw_months, draw_scenes, draw_tiles
from sn7.explore.charts import draw_building_share, draw_unusable
from sn7.explore.numbers import Surveyed
from sn7.explore.scenemap import draw_map
from sn7.explore.survey import survey
from sn7.files import require_writable, write_json

__all__ = ["Exploration", "explore"]

Draw = Callable[[Surveyed, Path], None]


@dataclass(frozen=True)
class Exploration:
    """What `explore` made."""

    numbers: dict[str, Any]
    pictures: tuple[Path, ...]
    left_out: tuple[str, ...]
    """One sentence for each picture that could not be made, and for what no picture shows."""


def explore(
    data: Path, out: Path, tile_size: int = TrainConfig().tile_size, seed: int = 0, workers: int | None = None
) -> Exploration:
    """Write pictures and numbers.json of the data set `data` to the folder `out`, in place of earlier ones.

    `tile_size` is the side of tiles in pixels, `seed` draws the random ones; `workers` images are read at a time
    (default: as many as cores, if there is enough to do). An unlabelled image counts as unlabelled, not as empty.
    Raises DataMissing, ImageUnreadable, LabelsUnreadable, ConfigError where a number is out of range,
    FolderUnwritable, ResultsConflict where `out` lies in `data`.
    """
    TrainConfig(tile_size=tile_size, seed=seed)  # says what these can be
    catalog = read_catalog(data)
    if out.resolve().is_relative_to(data.resolve()):
        raise ResultsConflict(f"{out} lies in the data set {data}, where it would be taken for a scene; give another.")
    require_writable(out)
    images = [image for scene in catalog.training for image in scene.images]
    # labels of a scene to predict are its truth, not ours to look at
    images += [replace(image, labels=None, label_kind=None) for scene in catalog.final for image in scene.images]
    found = Surveyed(catalog, survey(images, tile_size, workers), tile_size)
    pictures, left_out = _draw(found, out, seed)
    numbers = found.numbers()
    write_json(out / "numbers.json", numbers)
    return Exploration(numbers, pictures, left_out)


def _draw(found: Surveyed, out: Path, seed: int) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Draw what there is something to show for; remove what is left of another data set's."""
    always: dict[str, Draw] = {
        "scenes.png": draw_scenes,
        "months.png": draw_months,
        "unusable.png": draw_unusable,
        "map.png": draw_map,
    }
    labelled: dict[str, Draw] = {
        "footprints.png": draw_footprints,
        "tiles.png": partial(draw_tiles, seed=seed),
        "building_share.png": draw_building_share,
    }
    todo = always | labelled if found.tiles else always
    for name, draw in tqdm(todo.items(), "draw", unit="picture", disable=None):
        draw(found, out / name)
    missing = [name for name in labelled if name not in todo]
    for name in missing:
        (out / name).unlink(missing_ok=True)
    return tuple(out / name for name in todo), tuple(
        f"{name}: no labelled image has a valid pixel." for name in missing
    )
