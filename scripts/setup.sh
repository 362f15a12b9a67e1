#!/bin/sh
# Fills an environment with the locked versions. Usage: setup.sh VENV GROUP...
# PYTHON names the Python to use; else scripts/find_python.sh does.
set -e
venv=$1
shift
if ! "$venv/bin/python" -c "import pip" 2>/dev/null; then
  python=${PYTHON:-$(scripts/find_python.sh)}
  echo "setting up $venv with $("$python" --version): about 70 packages, a minute or two"
  "$python" -m venv --clear "$venv"
fi
"$venv/bin/python" scripts/lock.py export "$venv"
set -- $(for group; do echo "-r $venv/$group.txt"; done)
# Byte code is left to the first import: most of what is installed is never imported.
"$venv/bin/python" -m pip install --no-compile --constraint "$venv/constraints.txt" "$@" --editable .
