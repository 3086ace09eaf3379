#!/bin/bash

# Parameters
#SBATCH --array=0-1%2
#SBATCH --cpus-per-task=16
#SBATCH --hold
#SBATCH --job-name=clipa:inverse:0123456789ab
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/files/%A_%a_0_log.out
#SBATCH --partition=cpu
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=240

# setup
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/.code/abc${PYTHONPATH:+:$PYTHONPATH}
export OMP_NUM_THREADS=16

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/files/%A_%a_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=16 python JOB
