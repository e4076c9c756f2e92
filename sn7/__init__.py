"""Data preparation, U-Net training, prediction and scoring for SpaceNet 7 building footprints."""

__version__ = "0.1.0"
