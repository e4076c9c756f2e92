"""Machines on loopback: addresses of one sshd, each with a home folder and processes of its own, to be had and lost.

What a cluster file does on a fresh machine works here: files are copied to it, its commands run in login shells, Ray
starts on its address. Its `make` stands in for the installation, and its `ray` starts on the machine's own address and
in its own folder, and stops the machine's own processes, where Ray's would stop those of all machines.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
from nodes import kill

__all__ = ["Machines", "machines", "missing"]

SSHD = """
Port 22
{listen}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
MaxStartups 100
{homes}
"""

RAY = """#!/bin/sh
command=$1; shift
case $command in
stop) exec {python} {here} $SN7_MACHINE ;;
start) case " $* " in *" --head "*) set -- "$@" --dashboard-port=$SN7_DASHBOARD ;; esac
  for attempt in 1 2 3; do  # Ray gives up soon where a machine is busy with others
    {python} -m ray.scripts.scripts start --node-ip-address=$SN7_IP --temp-dir=$RAY_TMPDIR \\
      --object-store-memory=100000000 "$@" && exit 0
  done; exit 1 ;;
*) exec {python} -m ray.scripts.scripts $command "$@" ;;
esac
"""

PROGRAMS = {
    "sudo": 'exec "$@"',
    "apt-get": "",
    "cloud-init": "",
    "chown": "",
    "mountpoint": "exit $SN7_UNMOUNTED",
    "mount": 'echo "$@" >> $HOME/mounted',
    "make": "mkdir -p .venv/bin && ln -sf {folder}/env/* .venv/bin/",
    # OpenSSH takes the ~ of a key for the home of /etc/passwd, which is no machine's own.
    "ssh": 'for word; do shift; [ "$last" = -i ] && word=${{word/#"~"/$HOME}}; set -- "$@" "$word"; last=$word; done\n'
    'exec /usr/bin/ssh "$@"',
}
"""Programs of a machine that do something else than the system's, as shell scripts."""


def missing() -> str:
    """Return why there can be no machines here, or nothing."""
    programs = [name for name in ("/usr/sbin/sshd", "rsync", "ssh", "ssh-keygen") if not shutil.which(name)]
    if os.geteuid():
        return "machines on loopback need root: port 22, and one home folder for each address"
    return f"{', '.join(programs)} not found; install openssh-server, openssh-client and rsync" if programs else ""


class Machines:
    """Machines at loopback addresses; `folder` is short, since sockets lie below it."""

    def __init__(self, folder: Path, hosts: Sequence[str], variables: Mapping[str, str]) -> None:
        self.folder, self.hosts = folder, hosts
        self.key = folder / "key"
        self.gcs, self.dashboard, self.mlflow = _free_ports(3)
        for name in ("key", "host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
        self._write_programs()
        shared = {
            "PATH": f"{folder}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "SN7_DASHBOARD": str(self.dashboard),
            "SN7_UNMOUNTED": "1",
            "RAY_memory_monitor_refresh_ms": "0",  # what others of this machine hold is no reason to end a trial
            **variables,
        }
        for host in hosts:
            home = self.home(host)
            home.mkdir()
            own = {**shared, "SN7_MACHINE": str(home), "SN7_IP": host, "PYTHONPATH": f"{home}/sn7"}
            own |= {"SN7_CACHE": f"{home}/cache", "RAY_TMPDIR": f"{home}/ray"}
            (home / ".bashrc").write_text("".join(f"export {name}='{value}'\n" for name, value in own.items()))
        listen = "\n".join(f"ListenAddress {host}" for host in hosts)
        homes = "\n".join(f"Match LocalAddress {host}\n  SetEnv HOME={self.home(host)}" for host in hosts)
        (folder / "sshd.conf").write_text(SSHD.format(folder=folder, listen=listen, homes=homes))

    def home(self, host: str) -> Path:
        """Return a machine's home folder."""
        return self.folder / host

    def _write_programs(self) -> None:
        python = sys.executable
        env = {
            "python": f'#!/bin/sh\nexec {python} "$@"\n',
            "mlflow": f'#!/bin/sh\nexec {python} -m mlflow "$@"\n',
            "ray": RAY.format(python=python, here=Path(__file__).resolve()),
        }
        scripts = {name: f"#!/bin/bash\n{text.format(folder=self.folder)}\n" for name, text in PROGRAMS.items()}
        for place, texts in (("env", env), ("bin", scripts)):
            (self.folder / place).mkdir()
            for name, text in texts.items():
                path = self.folder / place / name
                path.write_text(text)
                path.chmod(0o755)

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the machines' sshd, and wait until each address answers."""
        Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "sshd.log").open("wb") as log:
            command = ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd.conf")]
            process = subprocess.Popen(command, stderr=log, stdout=log)
        for host in self.hosts:
            _wait_for_port(host, 22, process)
        return process

    def processes(self) -> dict[str, list[int]]:
        """Return the processes of each machine."""
        there = _by_machine()
        return {host: there.get(str(self.home(host)), []) for host in self.hosts}

    def training(self) -> list[str]:
        """Return the machines that train a trial now."""
        titles = {host: [_title(pid) for pid in pids] for host, pids in self.processes().items()}
        return [
            host for host, of_host in titles.items() if any(it.startswith("ray::") and "train" in it for it in of_host)
        ]

    def lose(self, *hosts: str) -> None:
        """End all that runs on machines, as where their power is cut."""
        there = self.processes()
        for host in hosts:
            for pid in there[host]:
                kill(pid)


def _by_machine() -> dict[str, list[int]]:
    """Return the processes that were started on machines: their environment says on which."""
    found: dict[str, list[int]] = {}
    for process in psutil.process_iter():
        try:
            found.setdefault(process.environ().get("SN7_MACHINE", ""), []).append(process.pid)
        except psutil.Error:  # it has just ended, or is another user's
            continue
    return found


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline()[:1])
    except psutil.Error:
        return ""


def _free_ports(count: int) -> list[int]:
    """Return free ports outside of the range that Ray gives its workers."""
    found: list[int] = []
    for port in range(24_000 + os.getpid() % 4000, 32_000):
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("0.0.0.0", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} free ports from 24000 to 32000")


def _wait_for_port(host: str, port: int, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(100):
        with socket.socket() as client:
            if client.connect_ex((host, port)) == 0:
                return
        assert process.poll() is None, f"sshd has ended with {process.returncode}"
        time.sleep(0.1)
    raise AssertionError(f"nothing answers at {host}:{port}")


@contextlib.contextmanager
def machines(hosts: Sequence[str], **variables: str) -> Iterator[Machines]:
    """Yield machines that are reached over SSH; in the end nothing of them is left."""
    folder = Path(tempfile.mkdtemp(prefix="sn7-"))
    there = Machines(folder, hosts, variables)
    sshd = there.start()
    try:
        yield there
    finally:
        there.lose(*hosts)
        # With its connections: Ray keeps them open for a while, and the next cluster at these addresses would use them.
        for process in [sshd, *psutil.Process(sshd.pid).children(recursive=True)]:
            kill(process.pid)
        sshd.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":  # `ray stop` on a machine: all of its own processes but those that ask for it
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for pid in _by_machine().get(sys.argv[1], []):
        title = " ".join(psutil.Process(pid).cmdline()) if psutil.pid_exists(pid) else ""
        if pid not in own and "ray" in title:
            kill(pid)
