"""A trained model as a folder: weights beside readable JSON, rebuilt from that JSON, strictly.

    MODEL/model.json            format, configuration, and what is known of the training
    MODEL/weights.safetensors   every tensor of the U-Net's state

Both load without executing code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sn7.config import TrainConfig
from sn7.errors import ConfigError, ModelInvalid
from sn7.files import atomic_dir, read_json, write_json
from sn7.unet import build_unet

__all__ = ["FORMAT", "WEIGHTS", "ModelFolder", "load_model", "read_model", "save_model"]

FORMAT = 2
WEIGHTS = "weights.safetensors"
WANTED = "wanted a folder that `sn7 train` wrote, model.json beside weights.safetensors"
PICKLED = "a pickled model, which is refused: pickles execute code when they are loaded"
ZIP, PICKLE = b"PK\x03\x04", (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of what torch.save writes, and of a pickle of each protocol in use."""


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
        save_file(state, temporary / WEIGHTS)
        write_json(temporary / "model.json", {"format": FORMAT, "config": config.to_dict(), "training": training})


def read_model(folder: Path) -> ModelFolder:
    """Read model.json of a model folder, not its weights.

    Raises ModelInvalid where it is missing, broken, or of another format.
    """
    path = folder / "model.json"
    try:
        content = read_json(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelInvalid(_no_folder(folder)) from error
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
    path = folder / WEIGHTS
    with torch.random.fork_rng(devices=[]):  # building draws random weights: leave the caller's generator alone
        model = build_unet(described.config)
    state = _read_weights(path)
    _require_fit(path, state, model.state_dict())
    model.load_state_dict(state, strict=True)
    return model.eval(), described


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ModelInvalid(f"{path} is missing; copy the model folder again.") from error
    except (OSError, SafetensorError) as error:
        if _is_pickle(path):
            raise ModelInvalid(f"{path} is {PICKLED}; {WANTED}: copy the model folder again.") from error
        reason = " ".join(str(error).split())[:300]
        raise ModelInvalid(f"{path} is damaged ({reason}); copy the model folder again.") from error


def _require_fit(path: Path, state: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> None:
    """Raise ModelInvalid where the tensors of a file are not those of the network that model.json describes."""
    # torch alone would fill in a missing num_batches_tracked, whatever `strict` says.
    if lost := network.keys() - state.keys():
        raise ModelInvalid(f"{path} lacks {len(lost)} tensors, {min(lost)} among them; copy the folder again.")
    if extra := state.keys() - network.keys():
        raise ModelInvalid(
            f"{path} has {len(extra)} tensors that the network of model.json has not, {min(extra)} among them; copy "
            "the folder again."
        )
    for name, tensor in network.items():
        if state[name].shape != tensor.shape:
            raise ModelInvalid(
                f"{path} has {name} in shape {tuple(state[name].shape)}; wanted {tuple(tensor.shape)}, that of the "
                "network of model.json: copy the folder again."
            )


def _no_folder(path: Path) -> str:
    """Return what is said of a path without model.json."""
    if path.is_file():
        found = PICKLED if _is_pickle(path) else "a file"
        return f"{path} is {found}; {WANTED}."
    if (path / "model" / "model.json").exists():
        return f"{path} is no model folder, it holds one; give {path / 'model'}."
    pickles = [file for file in sorted(path.glob("*")) if file.is_file() and _is_pickle(file)]
    if pickles:
        return f"{path} is no model folder, and {pickles[0].name} in it is {PICKLED}; {WANTED}."
    return f"{path} is no model folder (no model.json); {WANTED}."


def _is_pickle(path: Path) -> bool:
    """Return whether a file that is no safetensors is a pickle, or torch's archive of one."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == ZIP or start[:2] in PICKLE
