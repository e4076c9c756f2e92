"""make_sample: a procedural data set, complete or not there at all."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from sn7.errors import ConfigError, ResultsConflict
from sn7.files import atomic_dir
from sn7.sample.layout import write_scene
from sn7.sample.place import FULL_SIZE, place_of
from sn7.sample.render import make_scene

__all__ = ["SampleReport", "make_sample"]

SMALLEST = 64


@dataclass(frozen=True)
class SampleReport:
    """What make_sample wrote; all counts are over the labelled and the test scenes together unless named."""

    scenes: int
    """Labelled scenes, in train/."""
    test_scenes: int
    """Scenes whose labels lie apart, in test_truth/."""
    images: int
    images_with_udm: int
    buildings: int
    """Different buildings, each counted once."""
    footprints: int
    """Outlines in the labels of all images."""
    building_share: float
    """Share of the valid pixels that is building, 0 to 1."""


def make_sample(out: Path, scenes: int = 6, months: int = 4, size: int = 320, seed: int = 0) -> SampleReport:
    """Write a data set in the SpaceNet 7 layout to the new folder `out` and say what is in it.

    `scenes` labelled scenes go to train/, max(1, scenes // 3) further ones without labels to test_public/,
    and the truth of those to test_truth/. Each scene has `months` consecutive images from 2018-01 on, of
    `size` × `size` px (4.78 m of EPSG:3857 a pixel). The same arguments give the same bytes, and more scenes
    or months leave the first ones as they were. Over 2 seconds it shows a bar, if stderr is a terminal.

    Raises ConfigError for arguments out of range, ResultsConflict if `out` exists and is not an empty folder.
    """
    _check(out, scenes, months, size, seed)
    places = [place_of("train", index) for index in range(scenes)]
    places += [place_of("test", index) for index in range(max(1, scenes // 3))]
    with atomic_dir(out) as folder, tqdm(places, "sample", unit="scene", delay=2, disable=None) as bar:
        counts = [write_scene(folder, make_scene(seed, place, place.grid(size)), months) for place in bar]
    return SampleReport(
        scenes=scenes,
        test_scenes=len(places) - scenes,
        images=months * len(places),
        images_with_udm=sum(count.images_with_udm for count in counts),
        buildings=sum(count.buildings for count in counts),
        footprints=sum(count.footprints for count in counts),
        building_share=sum(c.building_pixels for c in counts) / sum(c.valid_pixels for c in counts),
    )


def _check(out: Path, scenes: int, months: int, size: int, seed: int) -> None:
    for name, value, low, high in (
        ("scenes", scenes, 1, 10_000),
        ("months", months, 1, 1200),
        ("size", size, SMALLEST, FULL_SIZE),
        ("seed", seed, 0, 2**31 - 1),
    ):
        if not low <= value <= high:
            raise ConfigError(
                f"{name} = {value} cannot be used for a sample; wanted a whole number from {low} to {high}."
            )
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ResultsConflict(f"{out} exists and is not an empty folder; give another folder or remove it first.")
