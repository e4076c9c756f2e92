import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sn7.config import TrainConfig
from sn7.ensemble import fit_threshold, load_predictor, save_ensemble
from sn7.errors import ModelInvalid
from sn7.metrics import ThresholdCurve
from sn7.modeldir import save_model
from sn7.rules import PolygonRules
from sn7.unet import build_unet

CONFIG = TrainConfig(encoder="xresnet18", tile_size=32, precision="fp32")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two model folders with different weights."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_model(folder / str(seed), build_unet(CONFIG), CONFIG, {})
    return [folder / "0", folder / "1"]


def test_an_ensemble_is_the_mean_of_its_members(models: list[Path], tmp_path: Path) -> None:
    """Probs of the ensemble against those of each member alone; the threshold travels with it."""
    save_ensemble(tmp_path / "ensemble", models, 0.375, {"study": "test"})
    batch = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    alone = [load_predictor(model) for model in models]
    together = load_predictor(tmp_path / "ensemble")
    mean = torch.stack([one.probs(batch) for one in alone]).mean(0)
    assert torch.allclose(together.probs(batch), mean, atol=1e-6)
    assert not torch.allclose(alone[0].probs(batch), alone[1].probs(batch), atol=1e-3)
    assert (together.threshold, alone[0].threshold) == (0.375, 0.5)
    assert together.probs(batch).dtype == torch.float32
    assert together.probs(batch).shape == (2, 64, 32)


def test_weights_say_what_each_member_counts(models: list[Path], tmp_path: Path) -> None:
    """3 to 1 is three quarters and one; a folder of the format before weights has equal ones."""
    save_ensemble(tmp_path / "ensemble", models[:2], 0.5, {}, [3, 1])
    batch = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, second = (load_predictor(model).probs(batch) for model in models[:2])
    assert torch.allclose(load_predictor(tmp_path / "ensemble").probs(batch), 0.75 * first + 0.25 * second, atol=1e-6)
    path = tmp_path / "ensemble" / "ensemble.json"
    before = json.loads(path.read_text())
    del before["weights"]
    path.write_text(json.dumps({**before, "format": 1}))
    assert load_predictor(tmp_path / "ensemble").weights == [0.5, 0.5]


def test_what_was_tuned_travels_with_it(models: list[Path], tmp_path: Path) -> None:
    """Rules of polygons and the way to probs; without, the threshold and the other rules' own values."""
    tuned = {"probs": "mean 3", "rules": {"threshold": 0.625, "min_area_m2": 55.0}}
    save_ensemble(tmp_path / "ensemble", models[:1], 0.5, {}, None, tuned)
    predictor = load_predictor(tmp_path / "ensemble")
    assert (predictor.rules, predictor.way) == (PolygonRules(threshold=0.625, min_area_m2=55.0), "mean 3")
    save_ensemble(tmp_path / "untuned", models[:1], 0.25, {})
    predictor = load_predictor(tmp_path / "untuned")
    assert (predictor.rules, predictor.way) == (PolygonRules(threshold=0.25), "plain")


def test_an_ensemble_stands_alone(models: list[Path], tmp_path: Path) -> None:
    """It does not need its members' folders any more."""
    copies = tmp_path / "copies"
    for model in models:
        (copies / model.name).mkdir(parents=True)
        for file in model.iterdir():
            (copies / model.name / file.name).write_bytes(file.read_bytes())
    save_ensemble(tmp_path / "ensemble", [copies / model.name for model in models], 0.5, {})
    for file in copies.rglob("*"):
        if file.is_file():
            file.unlink()
    assert len(load_predictor(tmp_path / "ensemble").members) == 2


def _tuned(tuned: str) -> str:
    return f'{{"format": 2, "threshold": 0.5, "members": ["a"], "weights": [1], "tuned": {tuned}}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ('{"format": 9}', "has format 9; wanted 2"),
        ('{"format": 1}', "has members None; wanted the names of folders"),
        ('{"format": 2, "threshold": 0.5, "members": [3], "weights": [1]}', r"has members \[3\]; wanted the names"),
        ('{"format": 2, "threshold": 0.5, "members": "a", "weights": [1]}', "has members 'a'; wanted the names"),
        ('{"format": 2, "members": ["a"], "weights": [1]}', "threshold = None is of type NoneType; wanted a number"),
        ('{"format": 2, "threshold": 1, "members": ["a"], "weights": [1]}', "threshold = 1.0 cannot be used; wanted"),
        ('{"format": 2, "threshold": 0.0, "members": ["a"], "weights": [1]}', "threshold = 0.0 cannot be used; wanted"),
        (_tuned('{"rules": {}, "probs": "mean"}'), "probs = 'mean' cannot be used; wanted plain, tta, mean 3"),
        (_tuned('{"rules": {}, "probs": 3}'), "cannot be used"),
        (_tuned('{"rules": {}}'), "cannot be used"),
        (_tuned('["plain"]'), "cannot be used"),
        ('{"format": 2, "threshold": 0.5, "members": ["members/0"]}', "has weights None; wanted a number above 0"),
        ('{"format": 2, "threshold": 0.5, "members": ["a", "b"], "weights": [1]}', "each of its 2 members"),
        ('{"format": 2, "threshold": 0.5, "members": ["a"], "weights": [NaN]}', "has weights .nan.; wanted"),
        (_tuned('{"rules": {"a": 1}}'), "cannot be used"),
    ],
)
def test_a_damaged_ensemble_is_refused(tmp_path: Path, content: str, said: str) -> None:
    """Broken JSON, another format, no members, weights that are none."""
    (tmp_path / "ensemble.json").write_text(content)
    with pytest.raises(ModelInvalid, match=rf"ensemble\.json .*{said}"):
        load_predictor(tmp_path)


def _curve(building: float, background: float) -> ThresholdCurve:
    probs = np.array([[building, background]], np.float32)
    return ThresholdCurve.of(probs, np.array([[1, 0]], np.uint8), np.ones((1, 2), np.uint8))


def test_a_fold_is_reported_at_a_threshold_that_it_did_not_choose() -> None:
    """Fold 0 wants about 0.3, the others about 0.7: fold 0 is reported at theirs, where it finds nothing."""
    curves = [_curve(0.35, 0.25), _curve(0.75, 0.65), _curve(0.75, 0.65)]
    _, nested = fit_threshold(curves)
    assert nested[0] == pytest.approx(0.7, abs=0.02)
    assert curves[0].counts(nested[0]).dice == 0


def test_one_fold_keeps_the_middle() -> None:
    """There is nothing else to fit on."""
    assert fit_threshold([_curve(0.35, 0.25)])[1] == [0.5]


def test_separation_outputs_are_means_of_those_that_have_them(tmp_path: Path) -> None:
    """Of two members one has boundary and contact: probs are the mean of both, the other two are its own."""
    with_separation = TrainConfig(encoder="xresnet18", tile_size=32, precision="fp32", separation_weight=1.0)
    for seed, config in enumerate((CONFIG, with_separation)):
        torch.manual_seed(seed)
        save_model(tmp_path / str(seed), build_unet(config), config, {})
    save_ensemble(tmp_path / "ensemble", [tmp_path / "0", tmp_path / "1"], 0.5, {})
    batch = torch.randint(0, 256, (1, 3, 32, 64), dtype=torch.uint8)
    plain, separated, both = (load_predictor(tmp_path / name) for name in ("0", "1", "ensemble"))
    assert (plain.channels, separated.channels, both.channels) == (1, 3, 3)
    assert (plain.rules.seed_level, separated.rules.seed_level) == (0, 0.4)
    found, own = both.outputs(batch), separated.outputs(batch)
    assert found.shape == (1, 3, 32, 64)
    assert torch.allclose(found[:, 1:], own[:, 1:], atol=1e-6)
    assert torch.allclose(found[:, 0], (plain.probs(batch) + own[:, 0]) / 2, atol=1e-6)


def test_a_fine_grid_averages_to_the_images_own(tmp_path: Path) -> None:
    """Of a model that enlarges twice, 2 × 2 outputs of the fine grid average to one of the others."""
    config = TrainConfig(encoder="xresnet18", tile_size=32, precision="fp32", upscale=2)
    save_model(tmp_path / "m", build_unet(config), config, {})
    batch = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    fine, coarse = load_predictor(tmp_path / "m", fine=True), load_predictor(tmp_path / "m")
    assert (fine.scale, coarse.scale) == (2, 1)
    assert fine.outputs(batch).shape == (1, 1, 64, 64)
    assert torch.allclose(torch.nn.functional.avg_pool2d(fine.outputs(batch), 2), coarse.outputs(batch), atol=1e-6)


def test_a_batch_that_does_not_fit_is_halved(models: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five windows where two fit: what comes out is what comes out of them one by one."""
    predictor = load_predictor(models[0])
    batch = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    expected = torch.cat([predictor.outputs(batch[i : i + 1]) for i in range(5)])
    mean = predictor._mean

    def small(rgb: torch.Tensor, precision: str = "") -> torch.Tensor:
        if len(rgb) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return mean(rgb, precision)

    monkeypatch.setattr(predictor, "_mean", small)
    assert torch.allclose(predictor.outputs(batch), expected, atol=1e-5)


def test_files_can_tell_models_of_one_name(models: list[Path], tmp_path: Path) -> None:
    """Study and data where they are known; and a checksum, which is another of other members or other weights."""
    fitted = {"study": "sample", "data_fingerprint": "f00d", "trials": [1]}
    for name, members, weights in (
        ("a", models, [1, 1]),
        ("b", models, [1, 1]),
        ("c", models, [1, 2]),
        ("d", models[:1], [1]),
    ):
        save_ensemble(tmp_path / name / "ensemble", members, 0.5, fitted, weights)
    tags = [load_predictor(tmp_path / name / "ensemble").tags for name in "abcd"]
    assert {(tag["MODEL"], tag["STUDY"], tag["DATA_FINGERPRINT"]) for tag in tags} == {("ensemble", "sample", "f00d")}
    assert tags[0] == tags[1] and len({tag["MODEL_SHA256"] for tag in tags}) == 3
    assert set(load_predictor(models[0]).tags) == {"MODEL", "MODEL_SHA256"}


def test_windows_are_multiples_of_32(tmp_path: Path) -> None:
    """Of a model that enlarges three times, 512 / 3 px rounded up."""
    config = TrainConfig(encoder="xresnet18", tile_size=64, precision="fp32", upscale=3)
    save_model(tmp_path / "m", build_unet(config), config, {})
    assert load_predictor(tmp_path / "m").window == 192
