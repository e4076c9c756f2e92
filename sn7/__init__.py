"""Data preparation, U-Net training, prediction and scoring for SpaceNet 7 building footprints."""

import os

__version__ = "0.1.0"

# A training's tensors are large: on pages of 4 KiB the kernel spends 0.2 of 2.4 s of a step on them, on pages of 2 MiB
# half of that. torch asks for these only where this is set before its first tensor: it stands where every entry passes.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
