#!/bin/sh
# Prints a Python that can carry this project: 3.11 to 3.14, with venv and ensurepip.
# Usage: find_python.sh [3.12]; with a version, that one only. Else one line says the cure.
wanted=${1:-}
has='import sys, venv, ensurepip; v = "%d.%d" % sys.version_info[:2]
sys.exit(v not in ([sys.argv[1]] if sys.argv[1:] else ["3.11", "3.12", "3.13", "3.14"]))'

for name in python3 python3.12 python3.11 python3.13 python3.14 \
    "$HOME"/.pyenv/versions/3.1[1-4]*/bin/python3 \
    "$HOME"/.local/share/uv/python/*-3.1[1-4]*/bin/python3 \
    /opt/homebrew/bin/python3.1[1-4] /usr/local/bin/python3.1[1-4]; do
  python=$(command -v "$name" 2>/dev/null) || continue
  # A shim of pyenv stands on PATH for versions that are not chosen, so each is tried.
  if "$python" -c "$has" ${wanted:+"$wanted"} >/dev/null 2>&1; then
    echo "$python"
    exit 0
  fi
done

if [ -z "$wanted" ]; then
  for name in python3 python3.12 python3.11 python3.13 python3.14; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
      echo "$name has no venv module. Cure: sudo apt install python3-venv" >&2
      exit 1
    fi
  done
fi
echo "no Python ${wanted:-from 3.11 to 3.14}. Cure:" \
  "curl -LsSf https://astral.sh/uv/install.sh | sh && ~/.local/bin/uv python install ${wanted:-3.12}" >&2
exit 1
