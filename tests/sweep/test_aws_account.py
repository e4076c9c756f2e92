"""The CloudFormation stack of docs/aws-account.yaml gives what cluster.yaml asks for."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

ROOT = Path(__file__).parents[2]
ADDRESS, NAME = "203.0.113.7/32", "alice"


@pytest.fixture(scope="module")
def stack() -> Iterator[dict[str, str]]:
    """Make the stack in a mocked account; yield its outputs."""
    with mock_aws():
        ec2 = boto3.client("ec2", "eu-central-1")
        subnet = ec2.describe_subnets()["Subnets"][0]
        values = {
            "Vpc": subnet["VpcId"],
            "Subnet": subnet["SubnetId"],
            "Address": ADDRESS,
            "PublicKey": "ssh-ed25519 A",
            "ClusterName": NAME,
            "InstanceTypes": "g5.xlarge,g5.2xlarge",
        }
        client = boto3.client("cloudformation", "eu-central-1")
        client.create_stack(
            StackName="sn7",
            TemplateBody=(ROOT / "docs" / "aws-account.yaml").read_text(),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
        )
        outputs = client.describe_stacks(StackName="sn7")["Stacks"][0]["Outputs"]
        yield {output["OutputKey"]: output["OutputValue"] for output in outputs}


def _statements(role: str) -> list[dict[str, Any]]:
    iam = boto3.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    # moto gives back what CloudFormation has made as Python's text of it.
    return [statement for document in documents for statement in ast.literal_eval(str(document))["Statement"]]


def test_the_stack_is_what_the_cluster_file_names(stack: dict[str, str]) -> None:
    """Its instance profiles and its key; SSH from one address and all from the group itself, nothing else."""
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    kinds = cluster["available_node_types"].values()
    named, shipped = [kind["node_config"] for kind in kinds], cluster["cluster_name"]
    profiles = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    wanted = {config["IamInstanceProfile"]["Name"].replace(f"{shipped}-", f"{NAME}-") for config in named}
    assert {profile["InstanceProfileName"] for profile in profiles} == wanted
    template = (ROOT / "docs" / "aws-account.yaml").read_text()  # whose key moto does not make
    assert {config["KeyName"] for config in named} == {shipped} and "KeyName: !Ref ClusterName," in template
    group = boto3.client("ec2", "eu-central-1").describe_security_groups(GroupIds=[stack["SecurityGroupId"]])
    rules = group["SecurityGroups"][0]["IpPermissions"]
    opened = [(rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"), *_sources(rule)) for rule in rules]
    assert sorted(opened, key=str) == [("-1", None, None, stack["SecurityGroupId"]), ("tcp", 22, 22, ADDRESS)]


def _sources(rule: dict[str, Any]) -> list[str]:
    return [it["CidrIp"] for it in rule["IpRanges"]] + [it["GroupId"] for it in rule["UserIdGroupPairs"]]


def test_roles_may_do_what_is_needed(stack: dict[str, str]) -> None:
    """A worker reads the bucket; the head starts machines of some types, and ends those of its own cluster alone."""
    profiles = boto3.client("iam").list_instance_profiles()["InstanceProfiles"]
    roles = {profile["InstanceProfileName"]: profile["Roles"][0]["RoleName"] for profile in profiles}
    worker = [it["Action"] for it in _statements(roles[f"{NAME}-worker"])]
    assert worker == ["s3:ListBucket", "s3:GetObject"]
    head = _statements(roles[f"{NAME}-head"])
    ends = [it for it in head if "ec2:TerminateInstances" in it["Action"]]
    assert [it["Condition"] for it in ends] == [{"StringEquals": {"aws:ResourceTag/ray-cluster-name": NAME}}]
    machines, parts = [it for it in head if it["Action"] == "ec2:RunInstances"]
    assert machines["Resource"] == parts["NotResource"] and machines["Resource"].endswith(":instance/*")
    allowed = machines["Condition"]["StringEquals"]
    assert allowed["aws:RequestTag/ray-cluster-name"] == NAME
    assert set(_cluster()["workers"]) <= set(allowed["ec2:InstanceType"])
    everywhere = [it["Action"] for it in head if it.get("Resource") == "*" and "Condition" not in it]
    assert everywhere == ["ec2:Describe*"]


def test_without_parameters_it_is_for_the_cluster_file_that_ships() -> None:
    """Whose name, and whose workers' types, are the defaults."""
    template = (ROOT / "docs" / "aws-account.yaml").read_text()
    defaults = re.findall(r"(ClusterName|InstanceTypes):\n    Type: \w+\n    Default: (\S+)", template)
    assert dict(defaults)["ClusterName"] == _cluster()["name"]
    assert set(_cluster()["workers"]) <= set(dict(defaults)["InstanceTypes"].split(","))


def _cluster() -> dict[str, Any]:
    """Return name and types of workers of the cluster file."""
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    kinds = cluster["available_node_types"].items()
    workers = [kind["node_config"]["InstanceType"] for name, kind in kinds if name != cluster["head_node_type"]]
    return {"name": cluster["cluster_name"], "workers": workers}
