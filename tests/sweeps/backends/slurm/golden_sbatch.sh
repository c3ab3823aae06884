#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-1%1
#SBATCH --constraint=ib
#SBATCH --cpus-per-task=12
#SBATCH --dependency=aftercorr:100
#SBATCH --error=<work>/studies/quick/launches/<launch>/workers/%A_%a_0_log.err
#SBATCH --gpus-per-node=1
#SBATCH --job-name=quick
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=120G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=<work>/studies/quick/launches/<launch>/workers/%A_%a_0_log.out
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --reservation=mine
#SBATCH --signal=USR2@120
#SBATCH --time=1382
#SBATCH --wckey=submitit

# setup
module load cuda
export PYTHONSAFEPATH=1
export PYTHONPATH=<work>/studies/quick/launches/<launch>/code${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output <work>/studies/quick/launches/<launch>/workers/%A_%a_%t_log.out --error <work>/studies/quick/launches/<launch>/workers/%A_%a_%t_log.err --cpus-per-task=12 <python> -u -m submitit.core._submit <work>/studies/quick/launches/<launch>/workers
