"""A trained model as a folder: weights beside readable JSON, rebuilt from that JSON, strictly.

    MODEL/model.json            format, configuration, and what is known of the training
    MODEL/weights.safetensors   every tensor of the U-Net's state

Both load without executing code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from sn7.config import TrainConfig
from sn7.errors import ConfigError, ModelInvalid
from sn7.files import atomic_dir, read_json, write_json
from sn7.unet import build_unet

__all__ = ["FORMAT", "ModelFolder", "load_model", "read_model", "save_model"]

FORMAT = 2


@dataclass(frozen=True)
class ModelFolder:
    """What model.json says."""

    folder: Path
    config: TrainConfig
    training: dict[str, Any]
    """Split, scenes, data fingerprint and the metrics of the epoch that the weights are from."""


def save_model(folder: Path, model: nn.Module, config: TrainConfig, training: dict[str, Any]) -> None:
    """Write a model folder, in place of an older one, whole or not at all."""
    # safetensors refuses tensors that share memory or are not laid out row by row (channels_last is not).
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_dir(folder) as temporary:
        save_file(state, temporary / "weights.safetensors")
        write_json(temporary / "model.json", {"format": FORMAT, "config": config.to_dict(), "training": training})


def read_model(folder: Path) -> ModelFolder:
    """Read model.json of a model folder, not its weights.

    Raises ModelInvalid where it is missing, broken, or of another format.
    """
    path = folder / "model.json"
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise ModelInvalid(
            f"{folder} is no model folder (no model.json); wanted one that `sn7 train` wrote."
        ) from error
    except (OSError, ValueError) as error:
        raise ModelInvalid(f"{path} cannot be read ({error}); copy the model folder again.") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if found != FORMAT:
        raise ModelInvalid(f"{path} has format {found!r}; wanted {FORMAT}: train the model again with this version.")
    try:
        return ModelFolder(folder, TrainConfig.from_dict(content["config"]), content["training"])
    except (ConfigError, KeyError, TypeError) as error:
        raise ModelInvalid(f"{path} does not describe a model of this version ({error}); train it again.") from error


def load_model(folder: Path) -> tuple[nn.Module, ModelFolder]:
    """Rebuild the U-Net of a model folder with its weights, in evaluation mode, on the CPU.

    Raises ModelInvalid where the folder is damaged or a tensor is missing, left over or of another shape.
    """
    described = read_model(folder)
    path = folder / "weights.safetensors"
    with torch.random.fork_rng(devices=[]):  # building draws random weights: leave the caller's generator alone
        model = build_unet(described.config)
    try:
        state = load_file(path)
        # torch alone would fill in a missing num_batches_tracked, whatever `strict` says.
        if lost := model.state_dict().keys() - state.keys():
            raise ModelInvalid(f"{path} lacks {len(lost)} tensors, {min(lost)} among them; copy the folder again.")
        model.load_state_dict(state, strict=True)
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path} is missing; copy the model folder again.") from error
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelInvalid(f"{path} does not fit {folder / 'model.json'} ({reason}); copy the folder again.") from error
    return model.eval(), described
