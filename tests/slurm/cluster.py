"""A real Slurm on this machine alone: its own ports, folder, keys and, if asked, database."""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil

from slurm.conf import DATABASE, GRES, database_options, slurm_conf, slurmdbd_conf

# Names as the kernel cuts and keeps them. slurmstepd runs a job's step; it outlives its slurmd.
DAEMONS = frozenset(
    ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmscriptd", "slurmd", "slurmstepd")
)
# Program → Debian package.
PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "munged": "munge"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server"}
# Below the range from which kernels serve outgoing connections, so that none takes a port of ours.
PORTS = range(20_000, 32_000)
LONGEST_SOCKET = 107  # bytes of a path that a socket can have
START_SECONDS = 120.0
STOP_SECONDS = 20.0
COMMAND_SECONDS = 60.0


class Cluster:
    """Daemons in sessions of their own: they outlive the process that started them, until stop."""

    def __init__(self, base: Path, accounting: bool = False, nodes: int = 2) -> None:
        """Name a cluster, running or not, by its folder; only `start` touches the disk."""
        self.base = base.resolve()
        self.accounting = accounting
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {"SLURM_CONF": str(self.base / "slurm.conf")}
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    # Life

    def start(self) -> None:
        """Up, every node idle; RuntimeError with the end of the log that tells why not."""
        if self.is_running():
            raise RuntimeError(f"already runs: {self.base}")
        if len(str(self.base / "spool-n1/n1_100000.4294967291")) > LONGEST_SOCKET:
            raise RuntimeError(f"the path is too long for Slurm's sockets: {self.base}")
        try:
            self._write_files()
            self._start_munged()
            if self.accounting:
                self._start_accounting()
            self.start_controller()
            for node in self.nodes:
                self._spawn(f"slurmd-{node}", "slurmd", "-D", "-N", node)
            for node in self.nodes:
                self._await(f"slurmd-{node}", partial(self._is_idle, node))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the daemons and all jobs, whoever started them; the files stay."""
        for child in self._children.values():
            child.kill()
            child.wait()
        self._children.clear()
        end = time.monotonic() + STOP_SECONDS
        while ours := list(self._find_processes()):
            for process in ours:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            if time.monotonic() > end:
                raise RuntimeError(f"these do not end: {ours}")
            time.sleep(0.05)

    def stop_controller(self) -> None:
        """End slurmctld as an administrator would: it saves its state first."""
        controller = self._children.pop("slurmctld")
        controller.terminate()
        controller.wait(START_SECONDS)

    def start_controller(self) -> None:
        """Start slurmctld, which goes on from the state it saved, if any."""
        self._spawn("slurmctld", "slurmctld", "-D")
        self._await("slurmctld", lambda: self._succeeds("scontrol", "ping"))

    def is_running(self) -> bool:
        """Whether anything of this cluster runs."""
        return any(self._find_processes())

    # Use

    def run(self, *command: str, check: bool = True) -> str:
        """What a command prints, its errors apart; RuntimeError with them when it fails."""
        done = self._try(*command)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """Job → state of all that the controller remembers; tasks of an array as `7_0`."""
        lines = self.run("squeue", "-r", "-t", "all", "-h", "-o", "%i %T").splitlines()
        return {job: state for job, state in map(str.split, lines)}

    def node_state(self, name: str) -> str:
        """Such as idle, mixed, allocated, down, or idle* (it does not answer)."""
        # Not from sinfo: it can go on calling a node mixed whose jobs ended as it went down.
        said = self.run("scontrol", "show", "node", name, "--oneliner", check=False)
        state = re.search(r"\bState=(\S+)", said)
        return state[1].lower() if state else "unknown"

    def node_down(self, name: str) -> None:
        """Let a node fail: its jobs are requeued, or end as NODE_FAIL."""
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=test")
        self.wait_for(lambda: self.node_state(name) == "down")

    def node_up(self, name: str) -> None:
        """Let it take jobs again, as soon as its slurmd answers."""
        self.run("scontrol", "update", f"nodename={name}", "state=resume")
        self.wait_for(lambda: self.node_state(name) in ("idle", "mixed", "allocated"))

    def start_now(self, job: str) -> None:
        """Let a requeued job start in seconds: Slurm holds it back for two minutes."""
        self.wait_for(lambda: self.jobs().get(job) == "PENDING")
        # In the second in which its last run ended, a node refuses the job, which then fails.
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def clear(self) -> None:
        """Cancel all jobs and wait for their end: what comes next finds idle nodes."""
        self.run("scancel", "--user=root")
        self.wait_for(lambda: not self.run("squeue", "--noheader"))

    def wait_for(self, happens: Callable[[], bool], seconds: float = 240) -> None:
        """Return once it happens; TimeoutError with the queue if it does not."""
        end = time.monotonic() + seconds
        while not happens():
            if time.monotonic() > end:
                queue = self.run("squeue", "-r", "-t", "all", check=False)
                raise TimeoutError(f"did not happen in {seconds:g} s; the queue:\n{queue}")
            time.sleep(0.2)

    # Parts

    def _write_files(self) -> None:
        controller, dbd, database, *nodes = find_free_ports(3 + len(self.nodes))
        self.base.mkdir(parents=True, exist_ok=True)
        (self.base / "state").mkdir(exist_ok=True)
        self._write_private("munge.key", secrets.token_bytes(128))
        accounting_port = dbd if self.accounting else None
        slurm = slurm_conf(self.base, controller, nodes, accounting_port)
        (self.base / "slurm.conf").write_text(slurm)
        (self.base / "gres.conf").write_text(GRES)
        if self.accounting:
            password = secrets.token_hex(16)
            text = slurmdbd_conf(self.base, dbd, database, password)
            self._write_private("slurmdbd.conf", text.encode())
            text = database_options(self.base, database)
            self._write_private("database.cnf", text.encode())
            text = DATABASE.format(password=password)
            self._write_private("database.sql", text.encode())

    def _write_private(self, name: str, data: bytes) -> None:
        """Munge and slurmdbd refuse files that others may read."""
        path = self.base / name
        path.touch(mode=0o600)
        path.write_bytes(data)

    def _start_munged(self) -> None:
        """Forced, since it takes offence at folders that others own or that hide its socket."""
        files = {name: self.base / f"munge.{name}" for name in ("socket", "key", "pid", "seed")}
        options = [f"--{name}{'' if name == 'socket' else '-file'}={files[name]}" for name in files]
        self._spawn("munged", "munged", "--foreground", "--force", *options)
        ask = ("munge", "--no-input", "--socket", str(files["socket"]))
        self._await("munged", lambda: self._succeeds(*ask))

    def _start_accounting(self) -> None:
        options = f"--defaults-file={self.base / 'database.cnf'}"
        self.run("mariadb-install-db", options, "--auth-root-authentication-method=normal")
        self._spawn("mariadbd", "mariadbd", options)
        create = f"source {self.base / 'database.sql'}"
        self._await("mariadbd", lambda: self._succeeds("mariadb", options, "-e", create))
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._await("slurmdbd", lambda: self._succeeds("sacctmgr", "-n", "list", "cluster"))
        self.run("sacctmgr", "-i", "add", "cluster", "private")

    def _spawn(self, name: str, *command: str) -> None:
        """Start a daemon in the foreground; its folder is the mark by which `stop` finds it."""
        with (self.base / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                cwd=self.base,
                env=self._whole_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + START_SECONDS
        while not ready():
            code = self._children[name].poll()
            if code is not None or time.monotonic() > end:
                what = "is not ready" if code is None else f"ended with {code}"
                log = (self.base / f"{name}.log").read_text(errors="replace").splitlines()
                raise RuntimeError("\n".join([f"{name} {what}; its log ends:", *log[-20:]]))
            time.sleep(0.1)

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = self._whole_environment()
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )

    def _is_idle(self, node: str) -> bool:
        return self.node_state(node) == "idle"

    def _succeeds(self, *command: str) -> bool:
        return self._try(*command).returncode == 0

    def _whole_environment(self) -> dict[str, str]:
        """Without what another Slurm, in one of whose jobs this may run, says to its commands."""
        outer = {key: os.environ[key] for key in os.environ if not key.startswith("SLURM")}
        return outer | self.environment | {"PATH": search_path()}

    def _find_processes(self) -> Iterator[psutil.Process]:
        """Ours, also those of a process that is no more, so that no list of them can be lost."""
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if not is_dead(process) and (self._is_daemon(process) or self._is_job(process)):
                    yield process

    def _is_daemon(self, process: psutil.Process) -> bool:
        if process.name() not in DAEMONS:
            return False
        return self.base in (folder := Path(process.cwd()), folder.parent)

    def _is_job(self, process: psutil.Process) -> bool:
        """A job knows its cluster; so does a user's shell, which has no job."""
        environment = process.environ()
        if "SLURM_JOB_ID" not in environment:
            return False
        return environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]


def find_hindrance(accounting: bool = False) -> str | None:
    """Why no cluster can start on this machine; None when one can."""
    needed = PROGRAMS | (ACCOUNTING_PROGRAMS if accounting else {})
    for program, package in needed.items():
        if not shutil.which(program, path=search_path()):
            return f"needs {program}, which is not here; as root: apt-get install {package}"
    return "needs root, as whom its daemons run" if os.geteuid() else None


def search_path() -> str:
    """With the folder of daemons, which is not on everybody's PATH."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


def is_dead(process: psutil.Process) -> bool:
    """Gone, or a zombie: in a container, nobody may care to collect those."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def find_free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; at random, so that clusters starting at once do not meet."""
    ports: list[int] = []
    with ExitStack() as held:
        for port in random.sample(PORTS, len(PORTS)):
            if len(ports) == count:
                break
            with suppress(OSError):
                held.enter_context(socket.socket()).bind(("", port))
                ports.append(port)
    return ports
