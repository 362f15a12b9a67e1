#!/usr/bin/env bash
# The complete suite on the oldest and on the newest tested Python. Writes docs/nightly.md.
set -uo pipefail
cd "$(dirname "$0")/.."
summary=docs/nightly.md
printf '# Nightly\n\n%s, commit %s, %s cores.\n\n| Python | jax | tests | minutes |\n|---|---|---|---|\n' \
  "$(date -u +%F)" "$(git rev-parse --short HEAD)" "$(getconf _NPROCESSORS_ONLN)" >$summary
failed=0
for version in 3.11 3.12; do
  if ! python=$(scripts/find_python.sh $version); then
    echo "| $version | - | not run: no such Python here | - |" >>$summary
    continue
  fi
  venv=.venv-$version
  log=$venv/nightly.log
  PYTHON=$python scripts/setup.sh "$venv" dev parity || exit 1
  start=$SECONDS
  "$venv/bin/python" -m pytest -n 2 -m "not gpu and not tpu" 2>&1 | tee "$log" || failed=1
  jax=$("$venv/bin/python" -c 'from importlib.metadata import version; print(version("jax"))')
  tests=$(tail -n 1 "$log" | tr -d '=' | sed 's/^ *//; s/ in [0-9.]*s.*//')
  echo "| $version | $jax | $tests | $(((SECONDS - start + 30) / 60)) |" >>$summary
done
cat $summary
exit $failed
