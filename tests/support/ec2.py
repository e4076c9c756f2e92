"""A mocked EC2 whose machines are on loopback: moto hands out addresses from 127.0.0.4 on, and what it ends is lost."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from machines import Machines
from moto.server import ThreadedMotoServer

__all__ = ["MockedEc2", "mocked_ec2", "power"]

REGION = "eu-central-1"


class MockedEc2:
    """An account with all that cluster.yaml asks for; `values` are what its placeholders stand for."""

    def __init__(self, url: str) -> None:
        self.variables = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.ec2, self.iam, self.s3 = (self._client(name, url) for name in ("ec2", "iam", "s3"))
        vpc = self.ec2.create_vpc(CidrBlock="127.0.0.0/24")["Vpc"]["VpcId"]
        subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="127.0.0.0/28")["Subnet"]["SubnetId"]
        group = self.ec2.create_security_group(GroupName="sn7", Description="sn7", VpcId=vpc)["GroupId"]
        for name in ("sn7-head", "sn7-worker"):
            self.iam.create_instance_profile(InstanceProfileName=name)
        images = self.ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"]
        self.values = {
            "region": REGION,
            "image-id": images[0]["ImageId"],
            "subnet-id": subnet,
            "security-group-id": group,
            "file-system-id": "fs-0123456789abcdef0",
        }

    @staticmethod
    def _client(name: str, url: str) -> Any:
        secrets = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        return boto3.client(name, endpoint_url=url, region_name=REGION, **secrets)

    def import_key(self, public: Path) -> None:
        """Make a public key known as sn7."""
        self.ec2.import_key_pair(KeyName="sn7", PublicKeyMaterial=public.read_bytes())

    def machines(self, *states: str) -> dict[str, str]:
        """Return the type in the cluster file of each machine in one of these states, or that runs, by its address."""
        found = self.ec2.describe_instances(
            Filters=[{"Name": "instance-state-name", "Values": list(states) or ["pending", "running"]}]
        )
        there = [machine for reservation in found["Reservations"] for machine in reservation["Instances"]]
        return {
            machine["PrivateIpAddress"]: next(
                tag["Value"] for tag in machine["Tags"] if tag["Key"] == "ray-user-node-type"
            )
            for machine in there
        }

    def take_away(self, ip: str) -> None:
        """End a machine, as the spot market does."""
        found = self.ec2.describe_instances(Filters=[{"Name": "private-ip-address", "Values": [ip]}])
        self.ec2.terminate_instances(InstanceIds=[found["Reservations"][0]["Instances"][0]["InstanceId"]])


@contextmanager
def mocked_ec2() -> Iterator[MockedEc2]:
    """Serve EC2, IAM and S3 on a free port until the end of the block."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line a request to stderr
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield MockedEc2(f"http://{host}:{port}")
    finally:
        server.stop()


@contextmanager
def power(ec2: MockedEc2, machines: Machines) -> Iterator[None]:
    """Cut the power of each machine that EC2 has ended, until the end of the block."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            machines.lose(*set(machines.hosts) - set(ec2.machines()))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
