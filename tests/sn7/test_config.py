import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sn7.config import RECIPES, TrainConfig, field_specs
from sn7.errors import ConfigError


def test_the_defaults_are_the_notebook_recipe() -> None:
    """The values of FACTS.md, section 2, one by one."""
    notebook = RECIPES["notebook"]
    assert notebook == TrainConfig()
    assert (notebook.encoder, notebook.tile_size, notebook.batch_size, notebook.epochs) == ("xresnet34", 255, 12, 40)
    assert (notebook.building_weight, notebook.images_per_scene, notebook.undersample) == (0.75, 1, True)
    assert notebook.lr_max == 3e-4
    assert notebook.lr_max * notebook.encoder_lr_factor == pytest.approx(3e-5)
    assert (notebook.dihedral, notebook.rotate) == (0.5, 0.9)
    assert (notebook.brightness, notebook.contrast, notebook.saturation) == (0.2, 0.2, 0.2)


def test_a_configuration_survives_its_dictionary() -> None:
    """from_dict(to_dict(c)) == c, with values other than the defaults."""
    config = TrainConfig(encoder="resnet18d", tile_size=64, undersample=False, lr_max=1e-3)
    assert TrainConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", 0, "from 1 to"),
        ("epochs", True, "is of type bool"),
        ("epochs", 2.0, "is of type float"),
        ("lr_max", "fast", "is of type str"),
        ("lr_max", math.nan, "cannot be used"),
        ("building_weight", 1.0, "from 0.01 to 0.99"),
        ("precision", "fp8", "one of auto, bf16, fp16, fp32"),
        ("undersample", 1, "true or false"),
        ("tile_overlap", 200, "more than half of tile_size"),
    ],
)
def test_a_bad_value_is_refused_with_what_was_wanted(field: str, value: Any, said: str) -> None:
    """Wrong types and values out of range raise, naming field, value and what is wanted."""
    with pytest.raises(ConfigError, match=said) as caught:
        TrainConfig.from_dict({field: value})
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)


def test_a_whole_number_serves_as_a_number() -> None:
    """TOML writes 0 for 0.0."""
    assert TrainConfig(weight_decay=0).weight_decay == 0.0
    assert isinstance(TrainConfig(weight_decay=0).weight_decay, float)


def test_an_unknown_field_names_the_nearest() -> None:
    """A slip of the pen is answered with the field that was meant."""
    with pytest.raises(ConfigError, match="did you mean building_weight"):
        TrainConfig.from_dict({"building_wait": 0.5})


def test_every_field_explains_itself() -> None:
    """Each has a sentence, and each number has bounds that hold its default."""
    for spec in field_specs().values():
        assert len(spec.help) > 10
        if spec.type in (int, float):
            assert spec.low is not None and spec.high is not None
            assert spec.low <= spec.default <= spec.high


@pytest.mark.skipif(
    not (THP := Path("/sys/kernel/mm/transparent_hugepage/enabled")).exists() or "[never]" in THP.read_text(),
    reason="this kernel has no transparent huge pages",
)
@pytest.mark.parametrize("first", ["sn7", "torch", "ray.tune"])
def test_large_tensors_lie_on_huge_pages(first: str) -> None:
    """The package asks for them before torch's first tensor, whatever is imported first, as in a worker of Ray's."""
    code = (
        f"import {first}, sn7, torch\nones = torch.ones(32 * 2**20, dtype=torch.uint8)\n"
        "print(next(line.split()[1] for line in open('/proc/self/smaps_rollup') if line.startswith('AnonHugePages')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) > 16 * 2**10
