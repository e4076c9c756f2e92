"""What is wrong with the parts of a cluster file that AWS reads: held against botocore's own description of EC2."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import botocore.session  # type: ignore[import-untyped]
from botocore.model import ListShape, Shape, StringShape, StructureShape  # type: ignore[import-untyped]
from botocore.validate import ParamValidator  # type: ignore[import-untyped]

__all__ = ["aws_defects"]

GPU_TYPE = re.compile(r"(g|gr|p)\d")
"""Families of instance types that have GPUs: g4dn, g5, gr6, p4d …"""
NEEDED = {
    "InstanceType": "wanted one such as g5.xlarge",
    "ImageId": "Ray's own default is an image of Ubuntu 18.04: wanted one such as ami-0123456789abcdef0",
    "IamInstanceProfile": "Ray's own role may do everything in EC2 and S3, and a worker has none: wanted {Name: …}",
    "KeyName": "wanted the name that AWS knows the public half of auth.ssh_private_key by",
    "SecurityGroupIds": "Ray's own group opens SSH to the world: wanted [sg-…], the stack's",
    "MetadataOptions": "a page that is made to fetch a URL would get the role's credentials: {HttpTokens: required}",
}
"""Fields of node_config, and why not without them."""
RAYS_OWN = ("SubnetIds",)
"""Fields of node_config that Ray has beside EC2's: lists of texts."""
THE_WORLD = ("0.0.0.0/0", "::/0")
FEW = 8
"""So many values of a field are told, where what is meant cannot be guessed."""


def aws_defects(cluster: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each defect of a cluster file for AWS that Ray's own validation has let through."""
    yield from _region_defects(cluster["provider"].get("region"))
    if cluster["provider"].get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes is not false; `ray down` would only stop machines, whose disks still cost."
    if opened := [it for it in _texts(cluster["provider"].get("security_group")) if it in THE_WORLD]:
        yield f"provider.security_group lets in {opened[0]}, which is everybody; wanted one such as 203.0.113.7/32."
    head = cluster["head_node_type"]
    if cluster["available_node_types"][head].get("resources", {}).get("CPU") != 0:
        yield f"{head}: resources have no CPU: 0; trials would land on the head, beside the driver."
    for name, kind in cluster["available_node_types"].items():
        where, config = f"available_node_types.{name}", kind["node_config"]
        yield from _missing(where, config)
        yield from _unknown(where + ".node_config", config, _run_instances())
        yield from _mistyped(where + ".node_config", config)
        yield from _foreign(where, config, str(cluster["cluster_name"]))
        yield from _gpu_defects(where, kind)
        if _is_spot(config) and not any("sweep.spot" in it for it in cluster.get("worker_start_ray_commands", ())):
            yield (
                f"{where} is a spot machine, and worker_start_ray_commands start no `python -m sweep.spot`; without "
                "it nobody passes on AWS's notice, and trials lose the epochs since their last checkpoint."
            )


def _region_defects(region: str | None) -> Iterator[str]:
    known = _session().get_available_regions("ec2")
    if not region:
        yield "provider.region is missing; wanted one such as eu-central-1."
    elif region not in known:
        hint = _hint(region, known, "wanted one such as eu-central-1.")
        yield f"provider.region is {region!r}, which AWS does not have; {hint}"


def _hint(found: str, known: Sequence[str], otherwise: str) -> str:
    """Return what may have been meant."""
    near = difflib.get_close_matches(found, known, n=1)
    return f"did you mean {near[0]}?" if near else otherwise


def _missing(where: str, config: Mapping[str, Any]) -> Iterator[str]:
    for name, why in NEEDED.items():
        if not config.get(name):
            yield f"{where}.node_config has no {name}; {why}."
    image = str(config.get("ImageId") or "ami-0")
    if not re.fullmatch(r"ami-[0-9a-f]+", image):
        yield f"{where}.node_config.ImageId is {image!r}; {NEEDED['ImageId']}."
    options = config.get("MetadataOptions")
    if isinstance(options, dict) and options and options.get("HttpTokens", "optional") == "optional":
        yield f"{where}.node_config.MetadataOptions require no tokens; {NEEDED['MetadataOptions']}."


def _foreign(where: str, config: Mapping[str, Any], cluster: str) -> Iterator[str]:
    """Yield a sentence for a profile whose name is as the stack of another cluster has it; one's own has any name."""
    profile = config.get("IamInstanceProfile")
    name = str(profile.get("Name", "")) if isinstance(profile, dict) else ""
    of, _, role = name.rpartition("-")
    if role in ("head", "worker") and of != cluster:
        yield (
            f"{where}.node_config.IamInstanceProfile is {name}, of another cluster than {cluster}, whose stack names "
            f"it {cluster}-{role} and the key {cluster}."
        )


def _unknown(where: str, value: Any, shape: Shape) -> Iterator[str]:
    """Yield a sentence for each field, at any depth, that EC2 does not have, or whose value is none of its."""
    if isinstance(shape, ListShape) and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unknown(f"{where}[{index}]", inner, shape.member)
    elif isinstance(shape, StructureShape) and isinstance(value, dict):
        extra = RAYS_OWN if shape is _run_instances() else ()
        for name, inner in value.items():
            if name in shape.members:
                yield from _unknown(f"{where}.{name}", inner, shape.members[name])
            elif name not in extra:
                known = [*shape.members, *extra]
                hint = _hint(name, known, f"known are {', '.join(sorted(known))}.")
                yield f"{where}.{name} is nothing that EC2 knows; {hint}"
    elif isinstance(shape, StringShape) and isinstance(value, str) and shape.enum and value not in shape.enum:
        hint = _hint(value, shape.enum, f"known are {', '.join(shape.enum[:FEW])}{' …' * (len(shape.enum) > FEW)}.")
        yield f"{where} is {value!r}, which EC2 does not have; {hint}"


def _mistyped(where: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each field whose value is of a wrong type, or that lacks a part."""
    known = {name: value for name, value in config.items() if name in _run_instances().members}
    report = ParamValidator().validate({**known, "MinCount": 1, "MaxCount": 1}, _run_instances()).generate_report()
    for line in report.splitlines():
        if not line.startswith("Unknown parameter"):  # told above, with what may have been meant
            yield f"{where}: {line}."
    for name in (name for name in RAYS_OWN if name in config):
        value = config[name]
        if not isinstance(value, list) or not value or not all(isinstance(it, str) for it in value):
            yield f"{where}.{name} is {value!r}; wanted a list of ids, such as [subnet-0123456789abcdef0]."


def _texts(value: Any) -> Iterator[str]:
    """Yield each text of a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _gpu_defects(where: str, kind: Mapping[str, Any]) -> Iterator[str]:
    machine, gpus = str(kind["node_config"].get("InstanceType", "")), kind.get("resources", {}).get("GPU", 0)
    has = bool(GPU_TYPE.match(machine))
    if has and not gpus:
        yield f"{where} is a {machine} without GPU in its resources; its GPU would be paid for and never used: GPU: 1."
    if gpus and not has:
        yield f"{where} has GPU: {gpus} in its resources, and a {machine} has none; trials would fail there."


def _is_spot(config: Mapping[str, Any]) -> bool:
    options = config.get("InstanceMarketOptions")
    return isinstance(options, dict) and options.get("MarketType") == "spot"


@lru_cache(maxsize=1)
def _session() -> Any:
    return botocore.session.get_session()


@lru_cache(maxsize=1)
def _run_instances() -> StructureShape:
    """Return EC2's own description of what starts a machine."""
    shape: StructureShape = _session().get_service_model("ec2").operation_model("RunInstances").input_shape
    return shape
