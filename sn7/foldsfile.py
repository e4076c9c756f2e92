"""folds.csv: which scene is in which fold, as written by `sn7 folds` or by hand."""

import csv
from collections.abc import Iterable
from pathlib import Path

from sn7.errors import FolderUnwritable, SplitInvalid
from sn7.files import atomic_file, require_writable

__all__ = ["read_folds", "write_folds"]

COLUMNS = ("scene", "fold")


def write_folds(folds: Iterable[Iterable[str]], path: Path) -> None:
    """Write folds as a CSV of scene and fold (from 0), sorted by scene, atomically.

    Raises FolderUnwritable where no file of that name can be written, DiskFull.
    """
    rows = sorted((scene, fold) for fold, scenes in enumerate(folds) for scene in scenes)
    require_writable(path.parent)
    if path.is_dir():
        raise FolderUnwritable(f"{path} is a folder; wanted the name of a file: give {path / 'folds.csv'}.")
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def read_folds(path: Path, scenes: Iterable[str]) -> list[list[str]]:
    """Return the folds of a CSV with the columns scene and fold, each a sorted list of scenes.

    Raises SplitInvalid where it cannot be read, lacks one of the data's `scenes` or names another, has a scene twice,
    or where the folds are not 0, 1 … without a gap, two at least.
    """
    fold_of: dict[str, int] = {}
    for line, scene, fold in _rows(path):
        if scene in fold_of:
            raise SplitInvalid(f"{path}, line {line}: {scene} stands there a second time; wanted each scene once.")
        if not fold.isdecimal():
            raise SplitInvalid(f"{path}, line {line}: fold {fold!r} of {scene}; wanted a whole number from 0.")
        fold_of[scene] = int(fold)
    _check_scenes(path, set(fold_of), set(scenes))
    numbers = sorted(set(fold_of.values()))
    if len(numbers) < 2 or numbers != list(range(len(numbers))):
        found = ", ".join(map(str, numbers)) or "none"
        raise SplitInvalid(f"{path} has the folds {found}; wanted 0, 1 … without a gap, two at least.")
    return [sorted(scene for scene, fold in fold_of.items() if fold == number) for number in numbers]


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """Return number of the line, scene and fold of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # Excel writes a mark before the first column
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise SplitInvalid(f"{path} has the columns {found}; wanted scene and fold: `sn7 folds` writes such.")
            return [(reader.line_num, (row["scene"] or "").strip(), (row["fold"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SplitInvalid(
            f"{path} cannot be read as CSV ({error}); give a file with columns scene and fold."
        ) from error


def _check_scenes(path: Path, found: set[str], wanted: set[str]) -> None:
    for names, what, mend in (
        (found - wanted, "names scenes that the data has not", "remove them, or get their data"),
        (wanted - found, "lacks scenes of the data", "add a line for each"),
    ):
        if names:
            listed = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise SplitInvalid(f"{path} {what} ({listed}); wanted each scene of the data once: {mend}.")
