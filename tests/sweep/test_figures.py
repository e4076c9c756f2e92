from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from reported import FOLDS
from stages import Here

from sn7.prepared import MASK, VALID, Prepared, PreparedImage
from sweep.figures import CROP, out_of_fold_pictures
from sweep.scoring import Scorer
from sweep.selection import Selection


def test_each_scene_is_shown_as_it_is_scored(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """The first fold's weights take trial 0 alone, the second's trial 1: pictures, like Dice, are of these."""
    prepared = make_prepared(scenes=4)
    for image in prepared.images:
        for trial, share in ((0, 0.25), (1, 0.75)):
            path = tmp_path / "oof" / f"{trial:04d}" / image.array
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((image.height, image.width), share, np.float32))
    scored = Scorer(tmp_path, prepared, Here()).score(Selection({0: 0.5, 1: 0.5}, ({0: 1.0}, {1: 1.0})), FOLDS)

    def probs(weights: Mapping[int, float], image: PreparedImage) -> np.ndarray:
        return np.full((image.height, image.width), sum(weights) / len(weights), np.float32)

    shown = {picture.title.split()[1]: picture.probs for picture in out_of_fold_pictures(scored, probs, prepared)}
    assert {scene: float(np.nanmax(found)) for scene, found in shown.items()} == {
        "scene0,": 0.0,
        "scene1,": 0.0,
        "scene2,": 1.0,
        "scene3,": 1.0,
    }


def test_the_last_rows_and_columns_can_be_shown(make_prepared: Callable[..., Prepared], tmp_path: Path) -> None:
    """Buildings in the last 20 rows alone of an image of 300: the crop reaches its end."""
    prepared = make_prepared(scenes=4, shape=(300, 300))
    for image in prepared.images:
        pixels = np.load(prepared.folder / image.array)
        pixels[MASK] = 0
        pixels[MASK, 280:, 280:] = pixels[VALID, 280:, 280:] = 1
        np.save(prepared.folder / image.array, pixels)
        path = tmp_path / "oof" / "0000" / image.array
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((300, 300), 0.5, np.float32))
    scored = Scorer(tmp_path, prepared, Here()).score(Selection({0: 1.0}), FOLDS)
    (picture, *_) = out_of_fold_pictures(scored, lambda weights, image: np.zeros((300, 300), np.float32), prepared)
    assert picture.mask.shape == (CROP, CROP) and picture.mask.sum() == 20 * 20
