# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Read an RC map
#
# RC-Bench asks about text in pictures of seven areas and five aspect ratios, as many in each of the
# 35 cells. A model's accuracy then becomes a map, and two policies a difference of maps. The
# official pictures were never released; this set is of generated documents, its cuts a third of the
# paper's per side, and its scores are not scores on RC-Bench.

# %% [markdown]
# The next cell installs the library where it is missing. Colab's own JAX is older than the one that
# is needed and is replaced; where the old one was imported already, the cell asks for one restart
# of the session.

# %%
import glob
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys

SOURCE = ""  # a wheel, or git+https://...; empty: a wheel in this folder (`make wheel` writes one)


def accelerator() -> str:
    """The extra that this machine needs."""
    gpu = shutil.which("nvidia-smi")
    if gpu and subprocess.run(gpu, capture_output=True).returncode == 0:
        return "[cuda12]"
    return "[tpu]" if glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*") else ""


def install(source: str) -> None:
    """Installs the library, and says so if that needs a restart."""
    wheels = sorted(glob.glob("./mres_jax-*.whl"))
    if not source and not wheels:
        raise SystemExit("Put a wheel of mres-jax into this folder, or set SOURCE.")
    source, extra = source or wheels[-1], accelerator()
    name = f"{source}{extra}" if source.endswith(".whl") else f"mres-jax{extra} @ {source}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", name], check=True)
    importlib.invalidate_caches()
    imported = [sys.modules[name] for name in ("jax", "numpy") if name in sys.modules]
    stale = [m for m in imported if m.__version__ != importlib.metadata.version(m.__name__)]
    if stale:  # this process keeps what it has imported
        names = ", ".join(m.__name__ for m in stale)
        raise SystemExit(f"Installed. Restart the session, since {names} changed, and go on.")


if importlib.util.find_spec("mres_jax") is None:
    install(SOURCE)

# %%
import json
import pathlib

import numpy as np
from IPython.display import Image, display

import mres_jax
from mres_jax.cli import main as mres  # the command line, called in this process
from mres_jax.evaluation.rc_bench import open_set
from mres_jax.inference.show import png
from mres_jax.protocols import Request

# %% [markdown]
# ## The set
#
# Three questions a cell. The real thing has fifty.

# %%
mres(["rcbench", "make", "--generate", "-o", "set", "--per-cell", "3", "--seed", "5"])
rc_set = open_set("set")
widest = next(i for i, item in enumerate(rc_set.items) if item.cell == ("D", "BW"))
print(rc_set.items[widest].question, rc_set.items[widest].answers)
display(Image(png(rc_set.image(widest))))

# %% [markdown]
# ## Two policies answer
#
# `native` keeps every picture's size; `fixed:256` squashes each into one square of 256 visual
# tokens.

# %%
model = mres_jax.load()
for name, policy in (("native", "native"), ("fixed", "fixed:256")):
    requests = [
        Request(id=item.id, images=[rc_set.image(i)], question=item.question, policy=policy)
        for i, item in enumerate(rc_set.items)
    ]
    answers = [some[0] for some in model.answer_batch(requests)]
    lines = [
        json.dumps({"id": item.id, "prediction": answer.text}) + "\n"
        for item, answer in zip(rc_set.items, answers, strict=True)
    ]
    pathlib.Path(f"{name}.jsonl").write_text("".join(lines))
    tokens = np.mean([answer.cost.visual_tokens for answer in answers])
    print(f"{policy}: {tokens:.0f} visual tokens per question")

# %% [markdown]
# ## Scores
#
# Accuracy, and how much it varies over areas (ACV) and over ratios (RCV), each with its interval.
# The last column says what ACV and RCV would be about if all cells were equally good and only the
# few items in each made them differ: with three items a cell that is a lot.

# %%
mres(["rcbench", "score", "set", "native.jsonl", "-o", "native"])
mres(["rcbench", "score", "set", "fixed.jsonl", "-o", "fixed"])

# %% [markdown]
# ## Maps
#
# Rows are areas, small above, large below; columns are ratios, tall on the left, wide on the right.
# In each cell stand the share right and the number of questions; cells with fewer than five are
# drawn faintly, because they say little on their own.

# %%
mres(["rcbench", "plot", "native", "fixed", "-o", "maps"])
display(Image("maps/map.png"))

# %% [markdown]
# How to read it. A row that fades downward: the policy gives large pictures too few pixels for
# their letters. Columns that fade at both ends: it bends them. A difference that is large only in
# some cells says where native resolution is worth its tokens, and the token counts above say what
# it costs. `maps/map.csv` and `maps/difference.csv` hold every number.

# %%
print(pathlib.Path("maps/difference.csv").read_text()[:400])
