#!/bin/bash
# ECGCLIP r34 at a global batch of 65,536 on 8 hosts of 8 GPUs: sbatch experiments/launch/slurm.sh
# One process per host, with all its GPUs. What is between << >> is yours to fill in; README.md here explains the rest.

#SBATCH --job-name=ecgclip-r34
#SBATCH --partition=<<partition>>
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ecgclip-r34-%j.log

set -uo pipefail

SHARED="<<folder that every host sees>>"
export ECGCLIP_DATA="$SHARED/cohorts"
export HF_HOME="$SHARED/huggingface"
export JAX_COMPILATION_CACHE_DIR="$SHARED/compiled"
# Proxy variables can make jax.distributed hang.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY

source "$SHARED/ecgclip_jax/.venv/bin/activate"
cd "$SHARED/ecgclip_jax" || exit 1

# --label puts the number of the process before each line; one process that fails ends the others.
srun --label --kill-on-bad-exit=1 \
  ecgclip train experiments/ecgclip.py --variant r34 \
  --workdir "$SHARED/runs/ecgclip_r34" \
  --data.batch-global 65536
code=$?

# SIGTERM before the time limit, a preemption or a lost host: the same job again goes on from the newest checkpoint.
if [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 20 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
