"""What a fold does when its training is over."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sn7.config import TrainConfig
from sn7.folds import Split
from sn7.prepared import Prepared
from sweep.crossval import _predict_out_of_fold
from sweep.fits import Fit
from sweep.oof import PROBS, labelled_images
from sweep.stopping import StopFile, Stopped


def test_its_prediction_stops_between_images(
    make_prepared: Callable[..., Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked while it predicts the first image: the second is not predicted, and the next start does both."""
    prepared = make_prepared(scenes=3)
    split = Split("fold0", prepared.scenes[:1], prepared.scenes[1:])
    assert len(labelled_images(prepared, split)) > 1
    done: list[int] = []

    def predict(pixels: np.ndarray, predictor: object) -> np.ndarray:
        done.append(len(done))
        StopFile(tmp_path).request()
        return np.zeros(pixels.shape[-2:], np.float32)

    monkeypatch.setattr("sweep.crossval.load_predictor", lambda folder: None)
    monkeypatch.setattr("sweep.crossval.predict_array", predict)
    fit, out = Fit(0, "fold 0", 0, TrainConfig(), split, tmp_path / "fold0", "last"), tmp_path / "fold0"
    with pytest.raises(Stopped):
        _predict_out_of_fold(tmp_path, fit, out, prepared)
    assert done == [0] and len(list((out / PROBS).rglob("*.npy"))) == 1
    monkeypatch.setattr(StopFile, "requested", lambda self: False)
    _predict_out_of_fold(tmp_path, fit, out, prepared)
    assert len(list((out / PROBS).rglob("*.npy"))) == len(labelled_images(prepared, split))
