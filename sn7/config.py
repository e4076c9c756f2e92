"""TrainConfig: the one typed description of a training.

The same object is read from the command line, from a study file and from a model folder, and is logged to
MLflow. Its defaults are the notebook recipe (xresnet34 U-Net, one image a scene), the baseline of every study.
"""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from sn7.errors import ConfigError

__all__ = ["RECIPES", "FieldSpec", "TrainConfig", "field_specs"]


@dataclass(frozen=True)
class FieldSpec:
    """What a field of TrainConfig takes.

    `low` and `high` are inclusive bounds, of numbers; `choices` lists the only values, where they are few.
    """

    name: str
    type: type
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    auto: bool = False
    """Whether the text "auto" is taken as well: the training then finds the value itself."""

    def check(self, value: Any) -> Any:
        """Return `value` in the field's type.

        Raises ConfigError with the value found and the values wanted. Whole numbers are taken for a float
        field; True and False are never taken for numbers.
        """
        if self.auto and value == "auto":
            return value
        if self.type is float and type(value) is int:
            value = float(value)
        checked: Any = value
        if type(value) is not self.type:  # isinstance would take True for a whole number
            raise ConfigError(f"{self.name} = {value!r} is of type {type(value).__name__}; wanted {self._wanted()}.")
        low, high = self.low, self.high
        outside = low is not None and high is not None and not low <= checked <= high  # so written, it refuses NaN
        if outside or (self.choices and value not in self.choices):
            raise ConfigError(f"{self.name} = {value!r} cannot be used; wanted {self._wanted()}.")
        return value

    def _wanted(self) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        name = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[self.type]
        wanted = name if self.low is None else f"{name} from {self.low:g} to {self.high:g}"
        return f'{wanted}, or "auto"' if self.auto else wanted


def _field(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    auto: bool = False,
) -> Any:
    metadata = {"help": help, "low": low, "high": high, "choices": choices, "auto": auto}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """A training, complete: with the prepared data and a split it decides the result.

    Raises ConfigError at construction where a value has a wrong type or is out of range.
    """

    encoder: str = _field("xresnet34", "name of a fastai xresnet or a timm encoder, the first half of the U-Net")
    pretrained: str = _field(
        "none", "weights that the encoder starts from: none (random), imagenet (timm's), or a file of weights"
    )
    aspp: bool = _field(False, "atrous spatial pyramid pooling between encoder and decoder")
    self_attention: bool = _field(False, "self-attention in the decoder's third block from the end")
    activation: str = _field("relu", "activation of the decoder", choices=("relu", "mish", "silu"))
    blur: bool = _field(False, "average the decoder's upsampled pixels, against checkerboard patterns")
    separation_weight: float = _field(
        0.0, "weight of the loss of two more outputs, boundary and contact (0: no such outputs)", 0.0, 10.0
    )
    tile_size: int = _field(255, "side of the square training tiles, in pixels of the image", 32, 2048)
    tile_overlap: int = _field(0, "pixels shared by neighbouring training tiles", 0, 1024)
    tile_placement: str = _field(
        "grid",
        "where training tiles lie: grid, or buildings: as many, each around a building drawn anew in every epoch",
        choices=("grid", "buildings"),
    )
    upscale: int = _field(1, "factor by which images are enlarged; labels are rasterised at that scale", 1, 4)
    images_per_scene: int = _field(1, "labelled images taken of each training scene", 1, 1000)
    image_selection: str = _field(
        "first",
        "which they are: first takes the earliest, spread the most valid of each of as many periods, all takes all",
        choices=("first", "spread", "all"),
    )
    validation_images: int = _field(1, "labelled images taken of each validation scene, the earliest first", 1, 1000)
    undersample: bool = _field(True, "leave tiles without buildings out of training (never out of validation)")
    batch_size: int = _field(12, "tiles in a training step; auto takes as many as the device holds", 1, 4096, auto=True)
    epochs: int = _field(40, "passes over the training tiles", 1, 10_000)
    loss: str = _field(
        "cross_entropy",
        "what training minimises, over valid pixels",
        choices=("cross_entropy", "dice", "focal", "cross_entropy_dice", "lovasz"),
    )
    building_weight: float = _field(
        0.75, "class weight of building in cross-entropy and focal loss; background has the rest", 0.01, 0.99
    )
    focal_gamma: float = _field(2.0, "focal loss: how much less a pixel counts that is already right", 0.0, 10.0)
    lr_max: float = _field(3e-4, "peak learning rate of the one-cycle schedule, for the decoder", 1e-8, 10.0)
    encoder_lr_factor: float = _field(
        0.1, "learning rate of the encoder's first layers as a share of lr_max", 1e-4, 1.0
    )
    frozen_epochs: int = _field(0, "first epochs in which the encoder, but for its normalisation, stays", 0, 10_000)
    weight_decay: float = _field(0.01, "decoupled weight decay of Adam", 0.0, 1.0)
    clip_norm: float = _field(0.0, "longest gradient of a step, over all weights (0: any)", 0.0, 1e6)
    ema_decay: float = _field(
        0.0,
        "share of its own past in the moving average of the weights that is validated and kept (0: none)",
        0.0,
        0.99999,
    )
    dihedral: float = _field(0.5, "probability of one of the 8 flips and quarter turns", 0.0, 1.0)
    rotate: float = _field(0.9, "probability of a rotation by any angle", 0.0, 1.0)
    scale_jitter: float = _field(0.0, "greatest change of scale (0 switches it off), either way", 0.0, 0.9)
    brightness: float = _field(0.2, "greatest change of brightness (0 switches it off), at probability 0.75", 0.0, 0.9)
    contrast: float = _field(0.2, "greatest change of contrast (0 switches it off), at probability 0.75", 0.0, 0.9)
    saturation: float = _field(0.2, "greatest change of saturation (0 switches it off), at probability 0.75", 0.0, 0.9)
    cutmix: float = _field(0.0, "probability that a rectangle of a tile is replaced by another tile's", 0.0, 1.0)
    precision: str = _field(
        "auto",
        "arithmetic of the forward pass: auto is bf16 where the hardware computes in it, fp16 on other GPUs, else fp32",
        choices=("auto", "bf16", "fp16", "fp32"),
    )
    seed: int = _field(0, "seed of weights, order of tiles and augmentation", 0, 2**31 - 1)

    def __post_init__(self) -> None:
        for spec in field_specs().values():
            object.__setattr__(self, spec.name, spec.check(getattr(self, spec.name)))
        if self.tile_overlap > self.tile_size // 2:
            raise ConfigError(
                f"tile_overlap = {self.tile_overlap} is more than half of tile_size = {self.tile_size}; "
                f"wanted at most {self.tile_size // 2}."
            )
        if self.frozen_epochs and self.frozen_epochs >= self.epochs:
            raise ConfigError(
                f"frozen_epochs = {self.frozen_epochs} leaves no epoch of epochs = {self.epochs} to train the encoder; "
                f"wanted at most {self.epochs - 1}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], base: "TrainConfig | None" = None) -> "TrainConfig":
        """Return `base` (the notebook recipe, if none) with `values` in place of its own.

        Raises ConfigError for an unknown field, naming the nearest known one.
        """
        for name in values:
            require_field(name)
        return dataclasses.replace(base or cls(), **values)

    def to_dict(self) -> dict[str, str | int | float | bool]:
        """Return all fields with their values, in the order of declaration."""
        return dataclasses.asdict(self)


def field_specs() -> dict[str, FieldSpec]:
    """Return the specification of every TrainConfig field, by name, in the order of declaration."""
    types = get_type_hints(TrainConfig)
    return {
        field.name: FieldSpec(field.name, types[field.name], field.default, **field.metadata)
        for field in dataclasses.fields(TrainConfig)
    }


def require_field(name: str) -> FieldSpec:
    """Return the specification of the field `name`; raise ConfigError, with the nearest name, if there is none."""
    specs = field_specs()
    if name not in specs:
        near = difflib.get_close_matches(name, specs, n=1)
        hint = f"did you mean {near[0]}?" if near else "known fields are " + ", ".join(specs) + "."
        raise ConfigError(f"{name} is not a field of a training configuration; {hint}")
    return specs[name]


RECIPES: dict[str, TrainConfig] = {"notebook": TrainConfig()}
"""Named configurations, for the command line's --recipe and as the first trial of every study."""
