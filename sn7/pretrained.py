"""Weights that the encoder of a new U-Net starts from: timm's for ImageNet, or those of a file.

Tensors of a timm encoder are found by name. An xresnet takes those of its twin, timm's resnet of the same design
(xresnet34: resnet34d), which names its layers otherwise but runs the same ones in the same order.
"""

import pickle
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from sn7.config import TrainConfig
from sn7.encoders import XRESNETS, build_body
from sn7.errors import PretrainedUnusable

__all__ = ["Matched", "load_pretrained", "require_pretrained", "twin_of"]

ENOUGH = 0.95
"""Share of the encoder's tensors that must be in a file, and of the file's that must be the encoder's model's."""
COUNTER = "num_batches_tracked"
"""Batch norm's count of batches, which decides nothing and which older files lack."""
ENCODER = "layers.0."
"""What the names of the encoder's tensors begin with in an sn7 model folder."""
WRAPPERS = re.compile(r"^(module_)?(net_)?(body_|model_)?")
"""What parallel training, TimmBody and timm's classes of feature maps put in front of a name."""


@dataclass(frozen=True)
class Matched:
    """How much of an encoder was loaded: `tensors` of the `wanted` ones, and from where."""

    tensors: int
    wanted: int
    source: str


def twin_of(encoder: str) -> str | None:
    """Return the name of timm's resnet of the same design as an xresnet, if there is one."""
    name = encoder.removeprefix("x") + "d"
    return name if encoder in XRESNETS and timm.is_model(name) else None


def require_pretrained(config: TrainConfig) -> None:
    """Raise PretrainedUnusable where `pretrained` names weights that do not exist; reads nothing, asks no network."""
    if config.pretrained == "imagenet":
        published = timm.get_pretrained_cfg(twin_of(config.encoder) or config.encoder)
        if published is None or not published.has_weights:
            twins = ", ".join(name for name in XRESNETS if twin_of(name))
            raise PretrainedUnusable(
                f"timm has no ImageNet weights for encoder {config.encoder!r}; take another one (of the xresnets, "
                f"{twins} have a twin in timm), or pretrained = none or a file."
            )
    elif config.pretrained != "none" and not Path(config.pretrained).exists():
        raise PretrainedUnusable(
            f"pretrained = {config.pretrained!r} does not exist; wanted none, imagenet, a file of weights "
            "(.safetensors, or a state dict that torch saved) or an sn7 model folder."
        )


def load_pretrained(model: nn.Module, config: TrainConfig) -> Matched | None:
    """Give the encoder of a new U-Net, in place, the weights that `pretrained` names; None if that is none.

    Draws nothing from torch's generator, executes no code of a file, and uses the network for imagenet only. Raises
    PretrainedUnusable where the weights are not to be had, or fill less than 95 % of the encoder's tensors.
    """
    if config.pretrained == "none":
        return None
    require_pretrained(config)
    twin = twin_of(config.encoder)
    wanted = _tensors(model[0])  # type: ignore[index]
    if config.pretrained == "imagenet":
        source, state = f"ImageNet weights of {twin or config.encoder}", _imagenet(twin or config.encoder)
    else:
        source, state = config.pretrained, _read(Path(config.pretrained))
    found = _by_name(wanted, state)
    if twin:
        found = max(found, _by_place(config.encoder, twin, state), key=len)
    _require_fit(config.encoder, source, state, wanted, len(found))
    with torch.no_grad():
        for name, tensor in found.items():
            wanted[name].copy_(tensor)
    said = f"pretrained: {len(found)} of the {len(wanted)} tensors of {config.encoder}, from {source}"
    print(said, file=sys.stderr)
    return Matched(len(found), len(wanted), source)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(COUNTER)}


def _bare(name: str) -> str:
    """Return a tensor's name without wrappers, its dots as underscores: timm's feature classes flatten names so."""
    return WRAPPERS.sub("", name.replace(".", "_"))


def _by_name(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, for each wanted tensor that the state has by its name and in its shape, the state's."""
    bare = {_bare(name): tensor for name, tensor in state.items()}
    pairs = {name: (own, bare.get(_bare(name))) for name, own in wanted.items()}
    return {name: other for name, (own, other) in pairs.items() if other is not None and other.shape == own.shape}


def _by_place(encoder: str, twin: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the state has of the twin, under the names that the encoder has for it.

    Layers are paired in the order in which they run; a pair is of one type and has tensors of the same shapes.
    """
    with torch.device("meta"):  # names, shapes and order without values
        other = build_body(twin)
        pairs = zip(_layers(build_body(encoder)), _layers(other), strict=False)
    found = _by_name(_tensors(other), state)
    taken: dict[str, Tensor] = {}
    for (own_name, own_layer), (name, layer) in pairs:
        own, theirs = _tensors(own_layer), _tensors(layer)
        same_shapes = {key: own[key].shape for key in own} == {key: theirs[key].shape for key in theirs}
        if type(own_layer) is type(layer) and same_shapes:
            taken |= {f"{own_name}.{key}": found[f"{name}.{key}"] for key in own if f"{name}.{key}" in found}
    return taken


def _layers(body: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the innermost modules that have tensors, with their names, in the order in which they run."""
    ran: list[tuple[str, nn.Module]] = []
    for name, layer in body.named_modules():
        if not list(layer.children()) and layer.state_dict():
            layer.register_forward_hook(lambda layer, _, __, name=name: ran.append((name, layer)))
    with torch.no_grad():
        body.eval()(torch.zeros(1, 3, 64, 64))
    return ran


def _imagenet(name: str) -> dict[str, Tensor]:
    """Return the weights that timm publishes for a model, from the hub or its cache on this machine."""
    published = timm.get_pretrained_cfg(name)
    try:
        with torch.random.fork_rng(devices=[]):  # timm draws random weights before it reads these
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        file = published.hf_hub_filename or "model.safetensors"
        place = f"{file} of {published.hf_hub_id} on the Hugging Face hub" if published.hf_hub_id else published.url
        raise PretrainedUnusable(
            f"the ImageNet weights of {name} could not be fetched ({type(error).__name__}: {reason}); download "
            f"{place} on a machine with a network, copy it to this one, and give its path: pretrained = PATH."
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights, or of the encoder in an sn7 model folder; executes no code."""
    try:
        if path.is_dir():
            state = load_file(path / "weights.safetensors")
            return {name.removeprefix(ENCODER): state[name] for name in state if name.startswith(ENCODER)}
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PretrainedUnusable(
            f"{path} is damaged or holds more than tensors, and was not loaded, as that could run code; save the state "
            "dict alone, as .safetensors or with torch.save(model.state_dict(), PATH)."
        ) from error
    except (EOFError, OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PretrainedUnusable(
            f"{path} cannot be read as weights ({reason}); wanted a whole file of them."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    items = content.items() if isinstance(content, Mapping) else ()
    return {name: tensor for name, tensor in items if isinstance(tensor, Tensor)}


def _require_fit(
    encoder: str, source: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], found: int
) -> None:
    """Raise PretrainedUnusable where too much of the encoder is not in the state, or too much of that is foreign."""
    design = twin_of(encoder) or encoder
    if found < ENOUGH * len(wanted):
        raise PretrainedUnusable(
            f"{source} has {found} of the {len(wanted)} tensors of encoder {encoder!r}; wanted {ENOUGH:.0%} or more: "
            f"give the weights of {design}."
        )
    known = {_bare(name) for name in wanted}
    if design not in XRESNETS:
        with torch.device("meta"):  # names without values; with the head, which the body lacks
            known |= {_bare(name) for name in timm.create_model(design).state_dict()}
    names = [name for name in state if not name.endswith(COUNTER)]
    foreign = sum(_bare(name) not in known for name in names)
    if foreign > (1 - ENOUGH) * len(names):
        raise PretrainedUnusable(
            f"{source} is of another model than encoder {encoder!r}, which has no place for {foreign} of its "
            f"{len(names)} tensors; give the weights of {design}."
        )
