#!/usr/bin/env bash
# The complete suite on each tested Python, parity, all TPU and GPU kernels, and a run that is killed. Writes docs/nightly.md.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
rows=()
failed=0

run() { # run NAME VENV COMMAND...
  local name=$1 venv=$2 log=$logs/$1.log start=$SECONDS
  shift 2
  "$@" 2>&1 | tee "$log" || failed=1
  local jax tests
  jax=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("jax"))')
  tests=$(grep -E ' in [0-9.]+s|^[0-9]+ steps over|^[0-9]+ cases|^[0-9]+ passed' "$log" | tail -n 1 |
    sed -E 's/=+ ?//g; s/ in [0-9.]+s.*//')
  rows+=("| $name | $jax | ${tests:-no summary} | $(((SECONDS - start + 30) / 60)) |")
}

for version in 3.11 3.12; do
  if python=$(scripts/find_python.sh $version); then
    venv=.venv-$version
    PYTHON=$python scripts/setup.sh "$venv" dev || exit 1
    run "Python $version" "$venv" "$venv/bin/pytest" -n 2 -m "not gpu and not tpu and not parity"
  else
    rows+=("| Python $version | - | not run: no such Python here | - |")
  fi
done
run parity .venv-parity make parity
make .venv/.ready || exit 1
run notebooks .venv make notebooks
run documents .venv make docs
make .venv-aot/.ready || exit 1
run "TPU kernels" .venv-aot .venv-aot/bin/python kernels/aot/budgets.py bundles --grid
run "TPU kernels, memory" .venv-aot .venv-aot/bin/python kernels/aot/budgets.py memory
make .venv-aot-cuda/.ready || exit 1
run "GPU kernels" .venv-aot-cuda .venv-aot-cuda/bin/python kernels/aot/cuda.py --grid
if [ -e .venv-lmms/.ready ]; then
  run harnesses .venv-lmms make harnesses
else
  rows+=("| harnesses | - | not run: make harnesses sets it up | - |")
fi
run kills .venv-3.11 .venv-3.11/bin/python experiments/2026-11-kill/run.py

{
  printf '# Nightly\n\n%s, commit %s, %s cores.\n\n' \
    "$(date -u +%F)" "$(git rev-parse --short HEAD)" "$(getconf _NPROCESSORS_ONLN)"
  printf '| suite | jax | tests | minutes |\n|---|---|---|---|\n'
  printf '%s\n' "${rows[@]}"
} | tee docs/nightly.md
exit $failed
