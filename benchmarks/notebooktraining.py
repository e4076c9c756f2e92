"""The notebook's way to train, written anew: a DataBlock over PNG tiles on disk, its transforms, fp32, defaults."""

import time
from pathlib import Path

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.block import DataBlock
from fastai.data.transforms import FuncSplitter, Normalize, get_image_files
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import Dice
from fastai.vision.augment import Brightness, Contrast, Dihedral, Rotate, Saturation
from fastai.vision.core import imagenet_stats
from fastai.vision.data import ImageBlock, MaskBlock
from fastai.vision.learner import unet_learner
from fastai.vision.models.xresnet import xresnet34
from PIL import Image

from sn7.config import TrainConfig
from sn7.prepared import MASK, RGB, VALID, Prepared
from sn7.tiles import Tile, cut

__all__ = ["EpochTimer", "notebook_learner", "write_tiles"]


class EpochTimer(Callback):
    """Times training and validation of the epochs, without the first batch of each, in which kernels are chosen."""

    def before_fit(self) -> None:
        self.rates: list[float] = []
        self.validation_s: list[float] = []

    def before_train(self) -> None:
        self.tiles, self.started = 0, 0.0

    def after_batch(self) -> None:
        if not self.training:
            return
        if self.started:
            self.tiles += len(self.yb[0])
        else:
            _wait()
            self.started = time.perf_counter()

    def after_train(self) -> None:
        _wait()
        self.rates.append(self.tiles / (time.perf_counter() - self.started))

    def before_validate(self) -> None:
        self.validating = time.perf_counter()

    def after_validate(self) -> None:
        _wait()
        self.validation_s.append(time.perf_counter() - self.validating)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def write_tiles(prepared: Prepared, tiles: list[Tile], folder: Path) -> None:
    """Write image and mask of each tile as PNG, as the notebook does before it trains."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, tile in enumerate(tiles):
        part = cut(prepared.pixels(tile.image), tile)
        Image.fromarray(np.ascontiguousarray(part[RGB].transpose(1, 2, 0))).save(folder / "images" / f"{number}.png")
        Image.fromarray(part[MASK] * part[VALID]).save(folder / "masks" / f"{number}.png")


def notebook_learner(training: Path, validation: Path, config: TrainConfig) -> Learner:
    """Return the notebook's learner over two folders of tiles."""
    block = DataBlock(
        blocks=(ImageBlock, MaskBlock(codes=["background", "building"])),
        get_items=lambda _: get_image_files(training / "images") + get_image_files(validation / "images"),
        splitter=FuncSplitter(lambda path: validation in path.parents),
        get_y=lambda path: path.parent.parent / "masks" / path.name,
        batch_tfms=[
            Dihedral(0.5),
            Rotate(max_deg=180, p=0.9),
            Brightness(0.2, p=0.75),
            Contrast(0.2),
            Saturation(0.2),
            Normalize.from_stats(*imagenet_stats),
        ],
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = block.dataloaders(training, bs=config.batch_size, device=device)
    weights = torch.tensor([1 - config.building_weight, config.building_weight], device=device)
    loss = CrossEntropyLossFlat(axis=1, weight=weights)
    learner = unet_learner(data, xresnet34, n_out=2, pretrained=False, loss_func=loss, metrics=[Dice()])
    learner.unfreeze()
    return learner
