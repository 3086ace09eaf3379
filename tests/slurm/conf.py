"""The files that a private Slurm reads."""

from __future__ import annotations

from pathlib import Path

# Two nodes are two slurmd on one host, told apart by name and port (see `nodes`).
SLURM = """\
ClusterName=private
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid

# Plugins that need no cgroups, which containers rarely let one write.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none

# Cores are what jobs compete for; what the machine really has does not matter (config_overrides).
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
GresTypes=gpu

# Whatever a test waits for should come soon.
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=5
MinJobAge=20
MessageTimeout=3
MaxArraySize=101

# A node that was set down stays down; one whose slurmd died is back when that is.
ReturnToService=1

# Partition high pushes jobs of low back into the queue; they get the signal they asked for first.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

{accounting}
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=REQUEUE
PartitionName=short Nodes=ALL MaxTime=10 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""

NODE = """\
NodeName=n{number} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} \
CPUs=2 RealMemory=100000 Gres=gpu:2 State=UNKNOWN
"""

NO_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
"""

# The password is the socket of the munged to ask: this connection does not heed AuthInfo.
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={base}/munge.socket
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
"""

# Slurm counts a GPU for any device file, and these two are everywhere; CUDA finds none behind them.
GRES = """\
AutoDetect=off
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
"""

SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
PidFile={base}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct_db
"""

# A small database, quick to make, that need not survive a crash of the machine; the lock timeout is
# what slurmdbd asks for.
DATABASE_OPTIONS = """\
[mariadbd]
user=root
datadir={base}/db
pid-file={base}/mariadbd.pid
socket={base}/db.socket
bind-address=127.0.0.1
skip-name-resolve
port={port}
innodb-log-file-size=8M
innodb-buffer-pool-size=32M
innodb-lock-wait-timeout=900
innodb-flush-log-at-trx-commit=0
innodb-flush-method=nosync

[client]
user=root
socket={base}/db.socket
"""

DATABASE = """\
create database if not exists slurm_acct_db;
create user if not exists slurm@127.0.0.1 identified by '{password}';
grant all on slurm_acct_db.* to slurm@127.0.0.1;
"""


def slurm_conf(base: Path, port: int, node_ports: list[int], accounting_port: int | None) -> str:
    """With accounting where it has a port."""
    accounting = NO_ACCOUNTING
    if accounting_port:
        accounting = ACCOUNTING.format(base=base, port=accounting_port)
    nodes = "".join(
        NODE.format(number=number, port=node_port)
        for number, node_port in enumerate(node_ports, start=1)
    )
    return SLURM.format(base=base, port=port, accounting=accounting, nodes=nodes)


def slurmdbd_conf(base: Path, port: int, database_port: int, password: str) -> str:
    return SLURMDBD.format(base=base, port=port, database_port=database_port, password=password)


def database_options(base: Path, port: int) -> str:
    return DATABASE_OPTIONS.format(base=base, port=port)
