#!/usr/bin/env bash
# One torchrun for each node of a Slurm job, which starts the ranks of a training there:
#
#   srun --nodes=2 --ntasks=2 --ntasks-per-node=1 workflow/scripts/train_on_nodes.sh RANKS_PER_NODE lightpool train ...
#
# RANKS_PER_NODE is a number, or gpu: one rank for each GPU that the job has on the node. A rank that dies is started
# again with all others, MAX_RESTARTS times (3); they go on from the last checkpoint, for which the command needs
# --resume if it has --force. SIGUSR1 and SIGTERM are passed on to the ranks, which save their state and end.
set -euo pipefail
if [ $# -lt 2 ] || [ -z "${SLURM_STEP_NODELIST:-}" ]; then
  echo "usage, within a job of Slurm: srun --ntasks-per-node=1 $0 RANKS_PER_NODE lightpool train ..." >&2
  exit 2
fi
n_ranks=$1
shift
# The first node of the step leads. Its address, for a host name need not be known everywhere.
leader=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
address=$(scontrol show node "$leader" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
# Each start of the ranks gets a new meeting place. By default they share one, sorted by the number of restarts, which
# differs between the node of a rank that died and the others: they then meet ranks that are gone (torch 2.13).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun \
  --nnodes="$SLURM_STEP_NUM_NODES" \
  --nproc-per-node="$n_ranks" \
  --max-restarts="${MAX_RESTARTS:-3}" \
  --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$address:$((20000 + SLURM_JOB_ID % 10000))" \
  --rdzv-conf="is_host=$([ "$SLURM_NODEID" = 0 ] && echo 1 || echo 0)" \
  --shutdown-timeout="${SHUTDOWN_S:-60}" \
  --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
  --no-python "$@"
