#!/bin/bash

# Parameters
#SBATCH --account=vision
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=12
#SBATCH --dependency=afterok:77
#SBATCH --exclude=n7
#SBATCH --exclusive
#SBATCH --gpus-per-node=a100:8
#SBATCH --hold
#SBATCH --job-name=clipa:inverse:0123456789ab
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mail-type=FAIL
#SBATCH --mem=900GB
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --open-mode=append
#SBATCH --output=/runs/files/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=2880

# setup
module load cuda
source env.sh
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/.code/abc${PYTHONPATH:+:$PYTHONPATH}
export OMP_NUM_THREADS=12

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/files/%j_%t_log.out --kill-on-bad-exit=1 --cpus-per-task=12 python JOB
