"""The processes that train one run together: how they meet, and what they do as one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from clipa_scaling import rundir
from clipa_scaling.rundir import RunDir

# What one process waits for another, at the start and in every common operation. Assumed: far above
# the longest save, and below what a job may waste before it is stopped.
PATIENCE = timedelta(minutes=10)
POLL_SECONDS = 0.1


class PeerLost(RuntimeError):
    """Another process of the run did not come, or is gone."""


@dataclass(frozen=True)
class Seat:
    """A process's place among those of its run; `meeting` names the start that they share."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    meeting: str = ""


def find_seat(gpus: int, environ: Mapping[str, str] = os.environ) -> Seat:
    """The seat that srun gave this process; alone without srun, with one task, or with `gpus` 1.

    A batch script sees SLURM_NTASKS as well, but is a single process: srun alone sets the step.
    """
    if "SLURM_STEP_ID" not in environ or "SLURM_PROCID" not in environ:
        return Seat()
    local_rank = int(environ.get("SLURM_LOCALID", "0"))
    size = int(environ.get("SLURM_NTASKS", "1"))
    if gpus == 1 or size == 1:
        return Seat(local_rank=local_rank)
    start = (environ.get("SLURM_JOB_ID", "0"), environ.get("SLURM_RESTART_COUNT", "0"))
    meeting = "_".join((*start, environ["SLURM_STEP_ID"]))
    return Seat(int(environ["SLURM_PROCID"]), size, local_rank, meeting)


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them; alone, every operation is free.

    All operations are common: every rank calls them, in the same order. PeerLost where one is gone.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process speaks for the run: rank 0 alone writes into its folder."""
        return self.rank == 0

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of the host on the device; the host does not wait for what runs there."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def largest(self, *values: float) -> list[float]:
        """Each value's maximum over the ranks, on the host: it waits for the device."""
        if self.size == 1:
            return list(values)
        agreed = torch.tensor(values, dtype=torch.float64, device=self.device)
        with together():
            dist.all_reduce(agreed, dist.ReduceOp.MAX)
            return list(agreed.tolist())

    def from_first(self, *values: float) -> list[float]:
        """Rank 0's values, whatever the others give."""
        return self.largest(*(values if self.leads else [-torch.inf] * len(values)))

    def copy_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with rank 0's."""
        if self.size > 1:
            with together(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor.data, src=0)

    def average(self, tensor: torch.Tensor) -> None:
        """Replace a tensor by its mean over the ranks, the same bits on each."""
        if self.size > 1:
            with together():
                dist.all_reduce(tensor)
            tensor /= self.size

    def gather(self, x_bE: torch.Tensor) -> torch.Tensor:
        """(B, E): the rows of all ranks in order; gradients flow back to each row's rank."""
        if self.size == 1:
            return x_bE
        gathered: torch.Tensor = GatherRows.apply(x_bE, self.rank, self.size)
        return gathered

    def leave(self) -> None:
        """Wait until every rank is here, then take the group apart.

        srun, told to kill a step at its first bad exit, would kill rank 0 in the middle of a save.
        """
        if self.size > 1:
            with suppress(PeerLost):  # all is written; who is gone need not be waited for
                self.largest(0.0)
            dist.destroy_process_group()


class GatherRows(torch.autograd.Function):
    """All ranks' rows. Backward adds up what every rank's loss says of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x_bE: torch.Tensor, rank: int, size: int) -> torch.Tensor:
        ctx.rows = slice(rank * len(x_bE), (rank + 1) * len(x_bE))
        parts = [torch.empty_like(x_bE) for _ in range(size)]
        with together():
            dist.all_gather(parts, x_bE.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        # Not reduce_scatter, which gloo lacks; features are small beside the weights' gradients.
        total_BE = gradient[0].clone(memory_format=torch.contiguous_format)
        with together():
            dist.all_reduce(total_BE)
        return total_BE[ctx.rows], None, None


@contextmanager
def together() -> Iterator[None]:
    """What a backend says when another process is gone, as PeerLost."""
    try:
        yield
    except (PeerLost, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        said = " ".join(str(error).split())
        raise PeerLost(f"another process of the run does not answer: {said}") from error


def join_world(run_dir: RunDir, gpus: int, patience: timedelta = PATIENCE) -> World:
    """Meet the other processes of this start, if srun made any; PeerLost when one does not come."""
    seat = find_seat(gpus)
    world = World(choose_device(seat.local_rank), seat.rank, seat.size)
    if seat.size == 1:
        return world
    # In its name job, restart and step: no two starts share it, not even two tasks of an array.
    meeting = run_dir.attempts / ".rendezvous" / f"{seat.meeting}.json"
    cuda = world.device.type == "cuda"
    try:
        with together():
            store = open_store(meeting) if world.leads else find_store(meeting, seat, patience)
            store.set_timeout(patience)
            dist.init_process_group(
                "nccl" if cuda else "gloo",
                store=store,
                rank=seat.rank,
                world_size=seat.size,
                timeout=patience,
                device_id=world.device if cuda else None,
            )
        world.largest(0.0)  # all have joined
    finally:
        if world.leads:
            meeting.unlink(missing_ok=True)
    return world


def choose_device(local_rank: int) -> torch.device:
    """This task's GPU. Where srun shows a task its own GPU alone, that is number 0 to each."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def open_store(meeting: Path) -> TCPStore:
    """Rank 0's store, on a port that the system picks, its address published for the others.

    Published is gethostname, which the other nodes of a cluster resolve. Not SLURMD_NODENAME: where
    several Slurm nodes are one machine (tests), that names nothing on the network.
    """
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    meeting.parent.mkdir(parents=True, exist_ok=True)
    rundir.write_json(meeting, {"host": socket.gethostname(), "port": store.port})
    return store


def find_store(meeting: Path, seat: Seat, patience: timedelta) -> TCPStore:
    """Rank 0's store, once its address is published; PeerLost when it is not."""
    deadline = time.monotonic() + patience.total_seconds()
    while (address := rundir.read_json(meeting)) is None:
        if time.monotonic() > deadline:
            raise PeerLost(
                f"rank {seat.rank} of {seat.size} waited {patience.total_seconds():.0f} s for rank "
                f"0 to write {meeting}; see why rank 0 did not start, and that both see this folder"
            )
        time.sleep(POLL_SECONDS)
    # A machine need not be able to resolve its own name, so on the same one go by localhost.
    here = address["host"] == socket.gethostname()
    host = "localhost" if here else address["host"]
    return TCPStore(host, address["port"], is_master=False, timeout=patience)
