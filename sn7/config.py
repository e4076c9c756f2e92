"""TrainConfig: the one typed description of a training.

The same object is read from the command line, from a study file and from a model folder, and is logged to
MLflow. Its defaults are the notebook recipe (xresnet34 U-Net, one image a scene), the baseline of every study.
"""

from dataclasses import dataclass
from typing import ClassVar

from sn7.errors import ConfigError
from sn7.fields import Fields, FieldSpec, field

__all__ = ["RECIPES", "FieldSpec", "TrainConfig", "field_specs"]


@dataclass(frozen=True)
class TrainConfig(Fields):
    """A training, complete: with the prepared data and a split it decides the result.

    Raises ConfigError at construction where a value has a wrong type or is out of range.
    """

    what: ClassVar[str] = "a training configuration"

    encoder: str = field("xresnet34", "name of a fastai xresnet or a timm encoder, the first half of the U-Net")
    pretrained: str = field(
        "none", "weights that the encoder starts from: none (random), imagenet (timm's), or a file of weights"
    )
    aspp: bool = field(False, "atrous spatial pyramid pooling between encoder and decoder")
    self_attention: bool = field(False, "self-attention in the decoder's third block from the end")
    activation: str = field("relu", "activation of the decoder", choices=("relu", "mish", "silu"))
    blur: bool = field(False, "average the decoder's upsampled pixels, against checkerboard patterns")
    separation_weight: float = field(
        0.0, "weight of the loss of two more outputs, boundary and contact (0: no such outputs)", 0.0, 10.0
    )
    tile_size: int = field(255, "side of the square training tiles, in pixels of the image", 32, 2048)
    tile_overlap: int = field(0, "pixels shared by neighbouring training tiles", 0, 1024)
    tile_placement: str = field(
        "grid",
        "where training tiles lie: grid, or buildings: as many, each around a building drawn anew in every epoch",
        choices=("grid", "buildings"),
    )
    upscale: int = field(1, "factor by which images are enlarged; labels are rasterised at that scale", 1, 4)
    images_per_scene: int = field(1, "labelled images taken of each training scene", 1, 1000)
    image_selection: str = field(
        "first",
        "which they are: first takes the earliest, spread the most valid of each of as many periods, all takes all",
        choices=("first", "spread", "all"),
    )
    validation_images: int = field(1, "labelled images taken of each validation scene, the earliest first", 1, 1000)
    undersample: bool = field(True, "leave tiles without buildings out of training (never out of validation)")
    batch_size: int = field(12, "tiles in a training step; auto takes as many as the device holds", 1, 4096, auto=True)
    epochs: int = field(40, "passes over the training tiles", 1, 10_000)
    loss: str = field(
        "cross_entropy",
        "what training minimises, over valid pixels",
        choices=("cross_entropy", "dice", "focal", "cross_entropy_dice", "lovasz"),
    )
    building_weight: float = field(
        0.75, "class weight of building in cross-entropy and focal loss; background has the rest", 0.01, 0.99
    )
    focal_gamma: float = field(2.0, "focal loss: how much less a pixel counts that is already right", 0.0, 10.0)
    lr_max: float = field(3e-4, "peak learning rate of the one-cycle schedule, for the decoder", 1e-8, 10.0)
    encoder_lr_factor: float = field(0.1, "learning rate of the encoder's first layers as a share of lr_max", 1e-4, 1.0)
    frozen_epochs: int = field(0, "first epochs in which the encoder, but for its normalisation, stays", 0, 10_000)
    weight_decay: float = field(0.01, "decoupled weight decay of Adam", 0.0, 1.0)
    clip_norm: float = field(0.0, "longest gradient of a step, over all weights (0: any)", 0.0, 1e6)
    ema_decay: float = field(
        0.0,
        "share of its own past in the moving average of the weights that is validated and kept (0: none)",
        0.0,
        0.99999,
    )
    dihedral: float = field(0.5, "probability of one of the 8 flips and quarter turns", 0.0, 1.0)
    rotate: float = field(0.9, "probability of a rotation by any angle", 0.0, 1.0)
    scale_jitter: float = field(0.0, "greatest change of scale (0 switches it off), either way", 0.0, 0.9)
    brightness: float = field(0.2, "greatest change of brightness (0 switches it off), at probability 0.75", 0.0, 0.9)
    contrast: float = field(0.2, "greatest change of contrast (0 switches it off), at probability 0.75", 0.0, 0.9)
    saturation: float = field(0.2, "greatest change of saturation (0 switches it off), at probability 0.75", 0.0, 0.9)
    cutmix: float = field(0.0, "probability that a rectangle of a tile is replaced by another tile's", 0.0, 1.0)
    precision: str = field(
        "auto",
        "arithmetic of the forward pass: auto is bf16 where the hardware computes in it, fp16 on other GPUs, else fp32",
        choices=("auto", "bf16", "fp16", "fp32"),
    )
    seed: int = field(0, "seed of weights, order of tiles and augmentation", 0, 2**31 - 1)

    def require_batch_size(self) -> None:
        """Raise ConfigError where batch_size is still "auto"."""
        if self.batch_size == "auto":
            raise ConfigError(
                "batch_size = 'auto' depends on the device; wanted the number that sn7.autobatch finds there."
            )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile_overlap > self.tile_size // 2:
            raise ConfigError(
                f"tile_overlap = {self.tile_overlap} is more than half of tile_size = {self.tile_size}; "
                f"wanted at most {self.tile_size // 2}."
            )
        if self.batch_size == 1 and self.tile_size * self.upscale == 32:  # the encoder's stride
            raise ConfigError(
                "batch_size = 1 with tile_size = 32 leaves batch norm one value a channel, of which there is no "
                "variance; wanted batch_size = 2 or more, or larger tiles."
            )
        if self.frozen_epochs and self.frozen_epochs >= self.epochs:
            raise ConfigError(
                f"frozen_epochs = {self.frozen_epochs} leaves no epoch of epochs = {self.epochs} to train the encoder; "
                f"wanted at most {self.epochs - 1}."
            )


def field_specs() -> dict[str, FieldSpec]:
    """Return the specification of every TrainConfig field, by name, in the order of declaration."""
    return TrainConfig.specs()


def require_field(name: str) -> FieldSpec:
    """Return the specification of the field `name`; raise ConfigError, with the nearest name, if there is none."""
    return TrainConfig.spec(name)


RECIPES: dict[str, TrainConfig] = {"notebook": TrainConfig()}
"""Named configurations, for the command line's --recipe and as the first trial of every study."""
