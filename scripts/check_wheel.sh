#!/bin/sh
# Installs a wheel where no source tree is near, and uses it there.
# Usage: check_wheel.sh WHEEL VENV, with VENV an environment of scripts/setup.sh.
set -e
wheel=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
venv=$(cd "$2" && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT

names=$("$venv/bin/python" -c '
import sys, zipfile
names = {name.partition("/")[0] for name in zipfile.ZipFile(sys.argv[1]).namelist()}
print(*sorted(name for name in names if not name.endswith(".dist-info")))' "$wheel")
echo "top-level names: $names"
if [ "$names" != "mres_jax mres_kernels" ]; then
  echo "the wheel must hold mres_jax and mres_kernels, nothing else" >&2
  exit 1
fi

# Dependencies are borrowed from VENV by a path file, which leaves its editable install behind.
# That the declared ones are enough is the subject of tests/test_layers.py.
site='import sysconfig; print(sysconfig.get_paths()["purelib"])'
"$venv/bin/python" -m venv "$away/venv"
"$venv/bin/python" -c "$site" >"$("$away/venv/bin/python" -c "$site")/borrowed.pth"
"$away/venv/bin/python" -m pip install --quiet --no-deps "$wheel"
cd "$away"
JAX_PLATFORMS=cpu venv/bin/python -c '
import importlib, pkgutil, sys, mres_jax, mres_kernels
def fail(name):
    raise ImportError(name)
names = [module.name for top in (mres_jax, mres_kernels)
         for module in pkgutil.walk_packages(top.__path__, top.__name__ + ".", fail)]
for name in names:
    file = importlib.import_module(name).__file__
    assert "site-packages" in file and file.startswith(sys.prefix), file
print(f"{len(names)} modules import")'
venv/bin/mres --help
JAX_PLATFORMS=cpu venv/bin/mres doctor --model mres-tiny  # the weights came along, and read a page
