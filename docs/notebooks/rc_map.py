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
# # Where on the map of sizes does a model read?
#
# RC-Bench sorts questions about text into 7 areas x 5 ratios of pictures and asks as many in each
# of the 35 cells: one number for all of them hides that small, wide or tall ones are read badly.
# Its pictures were never released, so this notebook makes a set of generated documents, asks
# `mres-tiny` at native resolution and at one fixed size that costs as much, and draws both maps and
# their difference. With your own pictures, and with the predictions of any other model, the same
# commands work.

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
import csv
import json
import pathlib

import numpy as np
from IPython.display import Image, display

import mres_jax
from mres_jax.cli import main as mres  # the command line, called in this process
from mres_jax.evaluation.rc_bench import open_set
from mres_jax.protocols import Request, Sampling

# %% [markdown]
# ## A balanced set
#
# Two questions in each cell: enough to see the machinery, few for a verdict. `mres rcbench make
# questions.jsonl -o set` balances pictures of yours instead.

# %%
mres(["rcbench", "make", "--generate", "--per-cell", "2", "-o", "set"])
rc_set = open_set("set")
print(rc_set.items[0].question, "->", rc_set.items[0].answers[0])

# %% [markdown]
# ## Two ways to look
#
# `fixed:416` squeezes every picture into one square of 676 visual tokens, about as many as native
# resolution takes on this set's average.

# %%
POLICIES = {"native": "native", "fixed": "fixed:416"}
answerer = mres_jax.load().answerer


def predict(name):
    """Asks every item and writes a line of `{"id", "prediction"}` for each."""
    requests = [
        Request(
            id=item.id,
            images=[rc_set.image(i)],
            question=item.question,
            policy=POLICIES[name],
        )
        for i, item in enumerate(rc_set.items)
    ]
    answers = answerer.answer(requests, sampling=Sampling(max_new_tokens=32), seed=0)
    rows = [
        {"id": item.id, "prediction": answer.text}
        for item, (answer,) in zip(rc_set.items, answers, strict=True)
    ]
    pathlib.Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return np.mean([answer.cost.visual_tokens for (answer,) in answers])


for name in POLICIES:
    print(f"{name}: {predict(name):.0f} visual tokens a question")

# %% [markdown]
# ## Scores
#
# Accuracy, and how much it varies over areas (ACV) and over ratios (RCV), each with an interval and
# with what chance alone would give.

# %%
for name in POLICIES:
    mres(["rcbench", "score", "set", f"{name}.jsonl", "-o", f"score-{name}"])

# %% [markdown]
# ## Two maps and their difference
#
# The same numbers are in `maps/map.csv` and `maps/difference.csv`.

# %%
mres(["rcbench", "plot", "score-native", "score-fixed", "-o", "maps"])
display(Image("maps/map.png"))
with open("maps/difference.csv") as file:
    print(*list(csv.reader(file))[:4], sep="\n")
