#!/usr/bin/env bash
# The screening job on one node of a Slurm cluster: sbatch cluster/elsewhere/slurm.sh
# SPINEMET_PSEUDONYM_KEY_FILE and AWS_… come from the environment of sbatch.
#SBATCH --job-name=spinemet
#SBATCH --nodes=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=48G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0
# Ray puts its sockets here; the path has to be short.
export TMPDIR=/tmp
.venv/bin/python jobs/screen.py --archive s3://archive --results s3://spinemet/results --model builtin \
  --quiet-minutes 30 --max-hours 11 --max-failed-share 0.2 &
job=$!
# Two minutes before the limit Slurm sends SIGTERM here: the job commits what is done and ends with 143.
trap 'kill -TERM "$job"' TERM
code=0
wait "$job" || code=$?
if kill -0 "$job" 2>/dev/null; then
  code=0
  wait "$job" || code=$?
fi
exit "$code"
