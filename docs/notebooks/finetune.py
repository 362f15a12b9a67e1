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
# # Fine-tune at native resolution
#
# A model that sees every picture squashed into one square cannot know whether a page is wide or
# tall. A model that sees it at its own size could. This notebook goes through a whole run: rows and
# pictures, what they cost, forty steps from the shipped weights on pictures of many sizes packed
# into one buffer, and the trained model asked under two policies. Forty steps are a beginning, not
# a trained model.

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

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from PIL import Image

import mres_jax
from mres_jax.cli import main as mres  # the command line, called in this process
from mres_jax.config import CheckpointConfig, OptimizerConfig, Rows, Run, Schedule
from mres_jax.data.documents import item_seed, make_document
from mres_jax.data.types import Rung
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.protocols import Request
from mres_jax.training.loop import train

# %% [markdown]
# ## A data set
#
# One object a line, and a folder of pictures. LLaVA's JSON and `messages` are read too.

# %%
QUESTION = "Is the page wide or tall?"


def write_rows(folder, seed, count):
    """Small pages, half of them wide; returns the file of rows."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with open(folder / "rows.jsonl", "w") as file:
        for i in range(count):
            ratio = ("AH", "AW")[i % 2]
            page = make_document(item_seed(seed, i), area_bin="AB"[i // 2 % 2], ratio_bin=ratio)
            Image.fromarray(page.image).save(folder / f"pictures/{i}.png")
            answer = {"AH": "tall", "AW": "wide"}[ratio]
            row = {"id": str(i), "images": [f"{i}.png"], "question": QUESTION, "answer": answer}
            file.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


rows = write_rows(pathlib.Path("data"), seed=1, count=128)
print(rows.read_text().splitlines()[0])
display(Image.open("data/pictures/0.png"), Image.open("data/pictures/1.png"))

# %% [markdown]
# Before any step is paid for: what is wrong with the rows, and what do they cost under each policy?

# %%
mres(["data", "check", str(rows), "--images", "data/pictures"])
mres(["data", "prepare", str(rows), "--images", "data/pictures", "-p", "native", "-p", "fixed:128"])

# %% [markdown]
# ## The run
#
# A run is a frozen dataclass; in a file it stands behind `get_config()` and `mres train FILE` runs
# it. It starts from the shipped weights; each step is one pack.

# %%
STEPS = 40
run = Run(
    name="wide-or-tall",
    model=mres_tiny(),
    init="mres-tiny",
    data=(Rows(path=str(rows), images="data/pictures"),),
    policies={"native": 1.0},
    ladder=(Rung(max_patches=768, max_tokens=640, max_views=16, max_examples=16),),
    optimizer=OptimizerConfig(learning_rate=1e-3),
    schedule=Schedule(num_steps=STEPS, warmup_steps=4),
    checkpoint=CheckpointConfig(dir="run", every_steps=STEPS),
    log_every=4,
    metrics=(),
)
trained = train(run)

# %%
steps = [json.loads(line) for line in pathlib.Path("run/metrics.jsonl").read_text().splitlines()]
fig, ax = plt.subplots(figsize=(7, 3), constrained_layout=True)
ax.plot([row["step"] for row in steps], [row["loss"] for row in steps])
ax.set(xlabel="step", ylabel="loss, nats per token", ylim=(0, None))
plt.show()

# %% [markdown]
# ## What it learned, and what it sees by
#
# Fresh pages, asked before and after training, at native resolution and squashed into a square of
# 128 px.

# %%
fresh = write_rows(pathlib.Path("fresh"), seed=2, count=32)
asked = [json.loads(line) for line in fresh.read_text().splitlines()]
pages = [np.asarray(Image.open(f"fresh/pictures/{row['id']}.png")) for row in asked]
print(f"{'model':<12}{'policy':<12}{'right':>8}{'visual tokens':>16}")
for name, model in (("before", mres_jax.load()), ("after", mres_jax.load("run"))):
    for policy in ("native", "fixed:128"):
        requests = [
            Request(id=row["id"], images=[page], question=row["question"], policy=policy)
            for row, page in zip(asked, pages, strict=True)
        ]
        answers = [some[0] for some in model.answer_batch(requests)]
        right = sum(a.text == row["answer"] for a, row in zip(answers, asked, strict=True))
        tokens = sum(a.cost.visual_tokens for a in answers) / len(answers)
        print(f"{name:<12}{policy:<12}{right:>5}/{len(asked)}{tokens:>16.0f}")

# %% [markdown]
# Before, the question means nothing to the model. After forty steps the loss has fallen from 12 to
# 1, and the model begins to write one of the two words, but most of its answers are still wrong, at
# either policy: it has learned the form of the answer and not yet the answer. Raise `STEPS` and run
# the cell again with another `dir` to go on. `mres train configs/tiny/documents.py --print-config`
# shows a full run file, `--dry-run` what it takes before it starts.
