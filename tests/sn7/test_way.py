"""`sn7 predict` makes probs as the rules of a model were tuned, unless its options say otherwise."""

from pathlib import Path

import pytest
from brightness import Brightness, mean_probs, write_month

from sn7.cli import main
from sn7.predict import Pooling, Way

SCENE = "L15-0331E-1257N_1327_3160_13"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Return a scene of a dark month, 0.2, and a bright one, 0.8; a window each."""
    write_month(tmp_path / SCENE, "2018_01", 51)
    write_month(tmp_path / SCENE, "2018_02", 204)
    return tmp_path / SCENE


@pytest.mark.parametrize(
    ("tuned", "options", "probs", "symmetries", "note"),
    [
        ("plain", [], [0.2, 0.8], 1, None),
        ("mean 3", [], [0.5, 0.5], 1, "as the rules of this model's polygons were tuned: --no-tta --pool mean"),
        (
            "mean 25",
            ["--pool", "none"],
            [0.2, 0.8],
            1,
            "--pool mean --pool-months 25; these are of --no-tta --pool none",
        ),
        ("tta", [], [0.2, 0.8], 8, "were tuned: --tta --pool none"),
        ("tta", ["--no-tta"], [0.2, 0.8], 1, "tuned on probs of --tta --pool none; these are of --no-tta --pool none"),
        ("plain", ["--tta", "--pool", "median"], [0.5], 8, None),
    ],
)
def test_the_way_of_a_command(
    tuned: str,
    options: list[str],
    probs: list[float],
    symmetries: int,
    note: str | None,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What an option leaves open is done as it was tuned; a note says which way was taken."""
    model = Brightness(tuned)
    monkeypatch.setattr("sn7.ensemble.load_predictor", lambda *_: model)
    command = ["predict", "model", str(scene), "--out", str(tmp_path / "out"), "--batch-size", "4", *options]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert (note in said) if note else ("note:" not in said)
    assert mean_probs(tmp_path / "out") == pytest.approx(probs, abs=1e-3)
    assert model.windows == 2 * 4 * symmetries


def test_files_that_cannot_be_pooled(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A GeoTIFF without a month has no neighbours: it is predicted by itself, with a note; asked for, it is refused."""
    monkeypatch.setattr("sn7.ensemble.load_predictor", lambda *_: Brightness("mean 3"))
    image = next(scene.rglob("*.tif")).rename(tmp_path / "somewhere.tif")
    command = ["predict", "model", str(image), "--out", str(tmp_path / "out"), "--batch-size", "4"]
    assert main([*command, "--pool", "mean"]) == 1
    assert "somewhere.tif" in capsys.readouterr().err and not list(tmp_path.glob("out/*.tif"))
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "note: not pooled over months" in said and "1 of 1 images predicted" in said
    assert (tmp_path / "out" / "somewhere.tif").is_file()


def test_texts() -> None:
    """Of a model's folder, and back as options."""
    assert Way.of("plain") == Way() and Way.of("tta") == Way(tta=True)
    assert Way.of("median 7") == Way(pooling=Pooling("median", 7))
    assert Way.of("median 7").options == "--no-tta --pool median --pool-months 7"
