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
# # Convert and ask a Hugging Face checkpoint
#
# A directory of Qwen2-VL, Qwen2.5-VL, Qwen3-VL, NativeRes-LLaVA, LLaVA or LLaVA-HR is read as it
# is, without torch, and can be turned into a checkpoint of the library and back, bit for bit. So
# that nothing has to be downloaded, this notebook makes a Qwen2-VL of a few thousand random
# parameters in the very file format of the hub. It says nothing sensible; every command is the one
# for the real weights.

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
import safetensors.numpy
from IPython.display import Image, display

import mres_jax
from mres_jax.cli import main as mres  # the command line, called in this process
from mres_jax.data.documents import make_document
from mres_jax.inference.show import png
from mres_jax.models.registry import LoadedModel, export_hf
from mres_jax.testing import tiny_qwen2_vl

# %% [markdown]
# ## A checkpoint, as the hub has them

# %%
tiny = tiny_qwen2_vl()
export_hf(LoadedModel(**tiny._asdict()), "hf")
for path in sorted(pathlib.Path("hf").iterdir()):
    print(f"{path.name:<30}{path.stat().st_size:>10,} bytes")

config = json.loads(pathlib.Path("hf/config.json").read_text())
print({key: config[key] for key in ("model_type", "architectures", "image_token_id")})

# %% [markdown]
# `MODEL` is what all commands below take. For real weights put a directory or a hub id here, such
# as `Qwen/Qwen2-VL-2B-Instruct`; a hub id is fetched once.

# %%
MODEL = "hf"

# %% [markdown]
# ## Is it whole?
#
# `mres doctor --model` loads it, reads a page and, where torch and `transformers` are installed,
# compares logits. These weights are random, so the page is not read. It returns 1 then.

# %%
mres(["doctor", "--model", MODEL])

# %% [markdown]
# ## Ask

# %%
page = make_document(3, area_bin="B", ratio_bin="AW").image
pathlib.Path("page.png").write_bytes(png(page))
display(Image("page.png"))
mres(
    [
        *("ask", "page.png", "-q", "What is written here?", "-m", MODEL, "--max-new-tokens", "8"),
        *("-p", "native", "-p", "scale:0.5", "-p", "budget:6"),
    ]
)

# %% [markdown]
# The same in Python. Rows of several questions go to `answer_batch`, which packs them together.

# %%
model = mres_jax.load(MODEL)
answer = model.answer("page.png", "What is written here?", policy="budget:6", max_new_tokens=8)
print(repr(answer.text), answer.cost.visual_tokens, [tuple(view.size) for view in answer.views])

# %% [markdown]
# ## Convert, and back
#
# The direction is read off the source. A checkpoint of the library has a checksum for every file; a
# flipped bit is refused by name.

# %%
mres(["convert", MODEL, "ours"])
mres(["convert", "ours", "back"])
first, second = (
    safetensors.numpy.load_file(f"{name}/model.safetensors") for name in (MODEL, "back")
)
same = all(np.array_equal(first[key], second[key]) for key in first)
print(
    f"{len(first)} tensors, the same names: {first.keys() == second.keys()}, the same bits: {same}"
)

# %% [markdown]
# ## When something is missing
#
# Every problem is one line that names what is missing, what is there, and what may have been meant.

# %%
renamed = {key.replace("ln_q.weight", "ln_q.scale"): value for key, value in first.items()}
broken = pathlib.Path("broken")
broken.mkdir(exist_ok=True)
for path in pathlib.Path(MODEL).iterdir():
    (broken / path.name).write_bytes(path.read_bytes())
safetensors.numpy.save_file(renamed, broken / "model.safetensors", {"format": "pt"})
mres(["ask", "page.png", "-q", "What is written here?", "-m", "broken"])
