"""What is wrong with a cluster file of `ray up`, told before any machine is paid for.

Ray's own validation knows the names of the file's upper levels. It lets through what fails at the provider, minutes
later, or never fails and costs: a machine without its GPU, results that no other node sees, a port that is open.
"""

import contextlib
import io
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from sn7.errors import ClusterFileInvalid
from sweep.awsfile import aws_defects
from sweep.startcommands import start_defects

__all__ = ["cluster_defects", "load_cluster_file"]

PLACEHOLDER = re.compile(r"<[a-z][a-z0-9 -]*>")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
SHARED = re.compile(r"\b(mount|mountpoint)\b")
"""A command that mounts shared storage, or insists that it is."""
OWN = (".venv", "data", "results")
"""Folders of a checkout that are large, and that no node needs."""

Cluster = Mapping[str, Any]


def load_cluster_file(path: Path) -> dict[str, Any]:
    """Return a cluster file's content; raise ClusterFileInvalid where it cannot be read or is none."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ClusterFileInvalid(f"{path} does not exist; wanted a cluster file, such as cluster.yaml.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ClusterFileInvalid(f"{path} cannot be read as YAML ({reason}); mend the file.") from error
    if not isinstance(content, dict) or not isinstance(content.get("provider"), dict):
        raise ClusterFileInvalid(f"{path} has no provider; wanted a cluster file of `ray up`, such as cluster.yaml.")
    return content


def cluster_defects(cluster: Cluster, folder: Path) -> list[str]:
    """Return a sentence for each defect of a cluster file; none where `ray up` may be tried.

    Paths in it are relative to `folder`, where `ray up` is called. Placeholders are told alone, as nothing else can
    be judged before they are filled in.
    """
    if missing := _placeholder_defects(cluster):
        return missing
    kind = cluster["provider"].get("type")
    if kind not in ("aws", "local"):
        return [f"provider.type is {kind!r}; wanted aws or local, which are what this check knows."]
    if refused := _left_out(cluster) or _refused_by_ray(cluster) or _unlisted(cluster):
        return [refused]
    return [
        *(aws_defects(cluster) if kind == "aws" else _local_defects(cluster)),
        *_key_defects(cluster.get("auth") or {}),
        *_mount_defects(cluster.get("file_mounts", {}), folder),
        *_storage_defects(cluster),
        *start_defects(cluster),
    ]


def _placeholders(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield each placeholder that is still there, and where."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _placeholders(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _placeholders(inner, f"{where}[{index}]")
    elif isinstance(value, str):
        yield from ((found, where) for found in PLACEHOLDER.findall(value))


def _placeholder_defects(cluster: Cluster) -> list[str]:
    """Return a sentence for each placeholder, with the first place that has it."""
    places: dict[str, str] = {}
    for found, where in _placeholders(cluster):
        places.setdefault(found, where)
    return [f"{where} still has the placeholder {found}; put your own in its place." for found, where in places.items()]


def _refused_by_ray(cluster: Cluster) -> str:
    """Return why Ray refuses a file, or nothing."""
    said = io.StringIO()  # what Ray has to say of a local file it prints before it gives up
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            validate_config(prepare_config(dict(cluster)))
    except ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path)) or 'the file'}: {error.message}; see Ray's reference of it."
    except (Exception, SystemExit) as error:  # noqa: BLE001 - Ray raises whatever its code stumbles over
        last = ANSI.sub("", said.getvalue()).strip().rpartition("\n")[2]
        reason = last if isinstance(error, (SystemExit, click.ClickException)) else " ".join(str(error).split())
        return f"Ray refuses the file ({type(error).__name__}: {reason[:300]}); see Ray's reference of it."
    return ""


def _left_out(cluster: Cluster) -> str:
    """Return what Ray would take from a file of its own, and this check needs; nothing where it is all there."""
    missing = [name for name in ("head_node_type", "available_node_types") if not cluster.get(name)]
    if cluster["provider"]["type"] == "local" or not missing:
        return ""
    return f"{' and '.join(missing)} left out; Ray would start machines of its own choice: see cluster.yaml."


def _unlisted(cluster: Cluster) -> str:
    """Return why the machines of a local provider cannot be judged; nothing where they can."""
    provider = cluster["provider"]
    if provider["type"] != "local":
        return ""
    if "coordinator_address" in provider:
        return "provider.coordinator_address is none of what this check knows; wanted head_ip and worker_ips."
    wrong = [address for address in (provider["head_ip"], *provider["worker_ips"]) if not isinstance(address, str)]
    return f"provider has {wrong[0]!r} among its machines; wanted the address of each." if wrong else ""


def _local_defects(cluster: Cluster) -> Iterator[str]:
    """Yield what is wrong with a list of one's own machines."""
    provider = cluster["provider"]
    addresses = [provider["head_ip"], *provider["worker_ips"]]
    for twice in sorted({address for address in addresses if addresses.count(address) > 1}):
        yield f"provider names {twice} twice; wanted each machine once, as the head or as a worker."
    if not any("RAY_enable_autoscaler_v2=0" in command for command in cluster.get("head_start_ray_commands", ())):
        yield (
            "head_start_ray_commands leave out RAY_enable_autoscaler_v2=0; without it Ray counts the head as a worker, "
            "and the last worker never joins."
        )


def _key_defects(auth: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the key that machines are reached with."""
    if "ssh_private_key" not in auth:
        yield "auth.ssh_private_key is missing; wanted the path of the private key that the machines know."
        return
    path = Path(auth["ssh_private_key"]).expanduser()
    if not path.is_file():
        yield f"auth.ssh_private_key is {path}, which is no file; give the path of the private key."
    elif path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield f"auth.ssh_private_key {path} can be read by others, and ssh refuses such a key; chmod 600 {path}."


def _mount_defects(mounts: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Yield what is wrong with the files that are copied to the nodes, the token among them."""
    if "~/.ray/auth_token" not in mounts:
        yield "file_mounts have no ~/.ray/auth_token; wanted one file with the token that all nodes ask for."
    for remote, local in mounts.items():
        path = folder / Path(local).expanduser()
        if not path.exists():
            yield f"file_mounts.{remote} is {local}, which does not exist in {folder}; make it, or give another path."
        elif remote == "~/.ray/auth_token" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"{path} can be read by others, and who has the token runs code on all nodes; chmod 600 {path}."
        for name in OWN:
            if (path / name).exists():
                yield (
                    f"file_mounts.{remote} holds {path / name}; Ray reads and copies all of it: mount the folders of "
                    "the code one by one, as cluster.yaml does."
                )


def _storage_defects(cluster: Cluster) -> Iterator[str]:
    """Yield node types that have no storage in common with the others."""
    for name, kind in (cluster.get("available_node_types") or {"provider": {}}).items():
        commands = [
            *kind.get("initialization_commands", cluster.get("initialization_commands", ())),
            *cluster.get("setup_commands", ()),
            *kind.get("worker_setup_commands", cluster.get("worker_setup_commands", ())),
            str(kind.get("node_config", {}).get("UserData", "")),
        ]
        if not any(SHARED.search(command) for command in commands):
            yield (
                f"{name}: no command mounts shared storage; results must lie on one file system that every node has at "
                "the same path: mount it in initialization_commands, as cluster.yaml does."
            )
