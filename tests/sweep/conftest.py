"""Study files for the tests of the driver."""

from collections.abc import Callable
from pathlib import Path

import pytest
from reported import Study

from sn7.prepared import Prepared

STUDY = """
[study]
name = "test"
trials = 4
validation = "random:0"
folds = 2
refit = 1

[train]
encoder = "xresnet18"
tile_size = 32
batch_size = 4
epochs = 2

[search]
lr_max = { loguniform = [1e-4, 1e-2] }
building_weight = { uniform = [0.5, 0.9] }
"""


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small valid study file, with replacements: {old text: new text}."""

    def write(replacements: dict[str, str] | None = None) -> Path:
        text = STUDY
        for old, new in (replacements or {}).items():
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "study.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def study(make_prepared: Callable[..., Prepared], write_study: Callable[..., Path], tmp_path: Path) -> Study:
    """Return what makes the findings of a study on four small scenes."""
    return Study(
        make_prepared(scenes=4, shape=(96, 96)), write_study({"epochs = 2": "epochs = 3"}), tmp_path / "results"
    )
