#!/bin/bash

# Parameters
#SBATCH --array=0-2%2
#SBATCH --gpus-per-node=1
#SBATCH --hold
#SBATCH --job-name=clipa:inverse:0123456789ab
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/files/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=480

# setup
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/.code/abc${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/files/%A_%a_%t_log.out --kill-on-bad-exit=1 python JOB
