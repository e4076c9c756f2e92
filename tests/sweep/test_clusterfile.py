"""The cluster files that ship, filled in, and what can be wrong with them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sn7.errors import ClusterFileInvalid
from sweep.cluster import main
from sweep.clusterfile import cluster_defects, load_cluster_file

ROOT = Path(__file__).parents[2]
FILLED = {
    "<region>": "eu-central-1",
    "<image-id>": "ami-0123456789abcdef0",
    "<subnet-id>": "subnet-1",
    "<security-group-id>": "sg-1",
    "<file-system-id>": "fs-1",
    "<head-address>": "10.0.0.1",
    "<worker-address>, <worker-address>": "10.0.0.2, 10.0.0.3",
    "<user>": "someone",
    "<shared-folder>": "/mnt/shared",
}

Change = Callable[[dict[str, Any]], object]
ABSENT = object()


@pytest.fixture
def filled(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a cluster file that ships, with a key, a token and values of its own."""

    def write(name: str) -> Path:
        text = (ROOT / name).read_text()
        for old, new in FILLED.items():
            text = text.replace(old, new)
        for secret in ("key", "token"):
            (tmp_path / secret).touch(mode=0o600)
        text = re.sub(r"(ssh_private_key:) \S+", rf"\1 {tmp_path}/key", text)
        text = re.sub(r"(auth_token:) \S+", rf"\1 {tmp_path}/token", text)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-ssh.yaml"])
def test_the_files_that_ship_have_nothing_but_placeholders(
    name: str, filled: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they are, each placeholder is named once; filled in, nothing is found, and the most machines are told."""
    monkeypatch.chdir(ROOT)
    assert main(["check", name]) == 1
    told = capsys.readouterr().out
    placeholders = set(re.findall(r"<[a-z-]+>", (ROOT / name).read_text()))
    assert {found: told.count(f"the placeholder {found}") for found in placeholders} == dict.fromkeys(placeholders, 1)
    path = filled(name)
    assert main(["check", str(path)]) == 0
    most = {
        "cluster.yaml": "8 workers; the stack's ClusterName is to be sn7, its InstanceTypes g5.xlarge",
        "cluster-ssh.yaml": "2 workers",
    }[name]
    assert capsys.readouterr().out == f"{path}: no defect found; a head and at most {most}\n"


def test_without_a_limit_it_is_rays_own(
    filled: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two, and not none."""
    monkeypatch.chdir(ROOT)
    path = filled("cluster.yaml")
    path.write_text(re.sub(r"(?m)^max_workers: .*$", "", path.read_text()))
    assert main(["check", str(path)]) == 0
    assert "a head and at most 2 workers;" in capsys.readouterr().out


def _set(keys: str, value: Any) -> Change:
    """Return what puts a value at a path of keys; ABSENT takes the key away."""
    *outer, last = keys.split("/")

    def change(cluster: dict[str, Any]) -> None:
        for key in outer:
            cluster = cluster[int(key) if key.isdigit() else key]
        if value is ABSENT:
            del cluster[last]
        else:
            cluster[last] = value

    return change


def _replace(old: str, new: str) -> Change:
    """Return what puts another text in the place of one in all commands."""

    def change(cluster: dict[str, Any]) -> None:
        for name, commands in cluster.items():
            if name.endswith("commands"):
                cluster[name] = [text.replace(old, new) for text in commands]

    return change


def _without(command: str) -> Change:
    """Return what takes a text out of all commands."""
    return _replace(command, "")


def _typeless(cluster: dict[str, Any]) -> None:
    """Leave all types of machines to Ray."""
    del cluster["head_node_type"], cluster["available_node_types"]


def _coordinated(cluster: dict[str, Any]) -> None:
    """Have Ray's coordinator look after the machines."""
    cluster["provider"] = {"type": "local", "coordinator_address": "10.0.0.1:8000"}
    cluster["min_workers"] = cluster["max_workers"] = 1


SPOT = "available_node_types/g5.xlarge-spot"
CONFIG = f"{SPOT}/node_config"
OPEN = {"IpPermissions": [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("provider/region", ABSENT), "provider.region is missing; wanted one such as eu-central-1."),
        (_set("provider/region", "eu-centrl-1"), "did you mean eu-central-1?"),
        (_set("provider/type", "gcp"), "provider.type is 'gcp'; wanted aws or local"),
        (_set("max_wrkers", 3), "'max_wrkers' was unexpected"),
        (_set(f"{SPOT}/resources/GPU", 0.5), "resources.GPU: 0.5 is not of type 'integer'"),
        (_set("head_node_type", "haed"), "Ray refuses the file (ValueError: `head_node_type` must be one of"),
        (_set("cache_stopped_nodes", True), "'cache_stopped_nodes' was unexpected"),
        (_set("provider/cache_stopped_nodes", ABSENT), "provider.cache_stopped_nodes is not false"),
        (_set("available_node_types/head/resources", {}), "head: resources have no CPU: 0"),
        (
            _set(f"{CONFIG}/ImageId", ABSENT),
            "g5.xlarge-spot.node_config has no ImageId; Ray's own default is",
        ),
        (_set(f"{CONFIG}/ImageId", "ubuntu"), "node_config.ImageId is 'ubuntu'; Ray's own default is"),
        (_set(f"{CONFIG}/KeyName", ABSENT), "node_config has no KeyName"),
        (_set(f"{CONFIG}/IamInstanceProfile", ABSENT), "node_config has no IamInstanceProfile"),
        (
            _set("cluster_name", "alice"),
            "of another cluster than alice, whose stack names it alice-",
        ),
        (
            _set(f"{CONFIG}/InstanceTyp", "x"),
            "node_config.InstanceTyp is nothing that EC2 knows; did you mean ",
        ),
        (
            _set(f"{CONFIG}/BlockDeviceMappings/0/Ebs/VolumTyp", "gp3"),
            "BlockDeviceMappings[0].Ebs.VolumTyp is nothing that EC2 knows; did you mean VolumeType?",
        ),
        (
            _set(f"{CONFIG}/BlockDeviceMappings/0/Ebs/VolumeSize", "100"),
            "Invalid type for parameter BlockDeviceMappings[0].Ebs.VolumeSize",
        ),
        (_set(f"{SPOT}/resources", {"CPU": 4}), "is a g5.xlarge without GPU in its resources"),
        (_set("available_node_types/head/resources/GPU", 1), "has GPU: 1 in its resources, and a m7i.xlarge has none"),
        (_set("auth/ssh_private_key", "/no/key"), "auth.ssh_private_key is /no/key, which is no file"),
        (_set("auth/ssh_private_key", ABSENT), "auth.ssh_private_key is missing"),
        (_set("file_mounts", {}), "file_mounts have no ~/.ray/auth_token"),
        (_set("file_mounts/x", "nowhere"), "which does not exist in"),
        (_without("mount"), "no command mounts shared storage; results must lie on one file system"),
        (_without("sweep.spot"), "is a spot machine, and worker_start_ray_commands start no `python -m sweep.spot`"),
        (_without("RAY_AUTH_MODE=token"), "`ray start` without RAY_AUTH_MODE=token"),
        (_replace("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=token_off"), "`ray start` without RAY_AUTH_MODE=token"),
        (_replace("RAY_AUTH_MODE=token", "RAY_AUTH_MODE=token RAY_AUTH_MODE=none"), "without RAY_AUTH_MODE=token"),
        (_without("RAY_enable_metrics_collection=0"), "`ray start` without RAY_enable_metrics_collection=0"),
        (_without("DASHBOARD_METRIC_PORT=70000"), "head_start_ray_commands: `ray start` without DASHBOARD_METRIC_PORT"),
        (_without("AUTOSCALER_METRIC_PORT=70000"), "`ray start` without AUTOSCALER_METRIC_PORT=70000"),
        (
            _replace("--host 127.0.0.1", "--host 0.0.0.0"),
            "_commands: --host is 0.0.0.0; wanted 127.0.0.1",
        ),
        (_replace("--host 127.0.0.1", "-h 0.0.0.0"), "_commands: -h is 0.0.0.0; wanted 127.0.0.1"),
        (_replace("--dashboard-host=127.0.0.1", "--dashboard-host=::"), "--dashboard-host is ::; wanted 127.0.0.1"),
        (_without("unset OMP_NUM_THREADS"), "`ray start` without `unset OMP_NUM_THREADS`"),
        (_set("head_start_ray_commands", []), "head_start_ray_commands have no `ray start`"),
        (_set("auth", ABSENT), "auth.ssh_private_key is missing"),
        (_set("head_node_type", ABSENT), "head_node_type left out; Ray would start machines of its own choice"),
        (_set("available_node_types", ABSENT), "available_node_types left out"),
        (_typeless, "head_node_type and available_node_types left out; Ray would"),
        (_set("provider/security_group", OPEN), "provider.security_group lets in 0.0.0.0/0, which is everybody"),
        (
            _set(f"{CONFIG}/SecurityGroupIds", ABSENT),
            "no SecurityGroupIds; Ray's own group opens SSH",
        ),
        (
            _set(f"{CONFIG}/MetadataOptions", ABSENT),
            "has no MetadataOptions; a page that is made to fetch a URL",
        ),
        (
            _set(f"{CONFIG}/MetadataOptions/HttpTokens", "optional"),
            "MetadataOptions require no tokens; a page",
        ),
        (
            _set(f"{CONFIG}/MetadataOptions/HttpTokens", "x"),
            "is 'x', which EC2 does not have; known are ",
        ),
        (
            _set(f"{CONFIG}/InstanceType", "g5.xlrage"),
            "'g5.xlrage', which EC2 does not have; did you mean g5.x",
        ),
        (
            _set(f"{CONFIG}/InstanceMarketOptions/MarketType", "sopt"),
            "MarketType is 'sopt', which EC2 does not",
        ),
        *[
            (_set(f"{CONFIG}/SubnetIds", value), f"SubnetIds is {value!r}; wanted a list of ids, such as")
            for value in ("subnet-1", 3, [], [3])
        ],
        (_set(f"{CONFIG}/SubnetIds", None), "SubnetIds is None; wanted a list of ids"),
    ],
)
def test_what_ray_up_misses_on_aws(change: Change, sentence: str, filled: Callable[[str], Path]) -> None:
    """Each defect in a sentence, of each machine that has it, and nothing else is found."""
    cluster = load_cluster_file(filled("cluster.yaml"))
    change(cluster)
    found = cluster_defects(cluster, ROOT)
    assert found and all(sentence in defect for defect in found), found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_set("provider/worker_ips", ["10.0.0.1"]), "provider names 10.0.0.1 twice"),
        (_set("provider/worker_ips", [None]), "provider has None among its machines; wanted the address of each"),
        (_coordinated, "provider.coordinator_address is none of what this check knows; wanted head_ip and worker_ips"),
        (_set("auth", ABSENT), "auth.ssh_private_key is missing"),
        (_set("provider/head_ip", ABSENT), "Please supply a `head_ip` and list of `worker_ips`"),
        (_without("RAY_enable_autoscaler_v2=0"), "the last worker never joins"),
        (_without("mountpoint"), "provider: no command mounts shared storage"),
    ],
)
def test_what_ray_up_misses_on_own_machines(change: Change, sentence: str, filled: Callable[[str], Path]) -> None:
    """The same for the local provider."""
    cluster = load_cluster_file(filled("cluster-ssh.yaml"))
    change(cluster)
    (found,) = cluster_defects(cluster, ROOT)
    assert sentence in found


def test_secrets_that_others_can_read(filled: Callable[[str], Path], tmp_path: Path) -> None:
    """The key, as ssh would refuse it, and the token, with which anybody runs code."""
    cluster = load_cluster_file(filled("cluster.yaml"))
    for secret in ("key", "token"):
        (tmp_path / secret).chmod(0o644)
    key, token = cluster_defects(cluster, ROOT)
    assert "ssh refuses such a key; chmod 600" in key and "who has the token runs code" in token


def test_a_mount_of_all_there_is(filled: Callable[[str], Path], tmp_path: Path) -> None:
    """Environment and data below a folder that is mounted would be read, hashed and copied."""
    cluster = load_cluster_file(filled("cluster.yaml"))
    (tmp_path / "checkout" / "data").mkdir(parents=True)
    cluster["file_mounts"]["~/all"] = str(tmp_path / "checkout")
    (found,) = cluster_defects(cluster, ROOT)
    assert "Ray reads and copies all of it" in found


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "does not exist"), ("a: [", "cannot be read as YAML"), ("a: 1", "has no provider"), ("[]", "no provider")],
)
def test_no_cluster_file(text: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, exit status 1."""
    path = tmp_path / "file.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ClusterFileInvalid, match=sentence):
        load_cluster_file(path)
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {path}")
