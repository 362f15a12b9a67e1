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
# # Look at an allocator
#
# An allocator looks at all frames coarsely, reads the question, and says how large each frame
# should be looked at. The network here is the `tiny` preset, 0.6 M parameters, seeing through
# `mres-tiny`. First it is untrained; then it is fitted for some seconds to labels that we make
# ourselves. That shows the parts at work. It is not the training of the paper, which rewards
# answers and has no labels.

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
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from IPython.display import Image, display

from mres_jax.cli import main as mres  # the command line, called in this process
from mres_jax.data.documents import Options, item_seed, make_document
from mres_jax.inference.allocators import open_eyes
from mres_jax.inference.show import png
from mres_jax.resolution.allocator.config import tiny
from mres_jax.resolution.allocator.features import pack_features
from mres_jax.resolution.allocator.network import AllocatorNetwork
from mres_jax.resolution.allocator.store import save_allocator

QUESTION = "What is the total?"

# %% [markdown]
# ## A clip
#
# Six frames: most are smooth, one or two of them show a page. Only these need pixels.

# %%
FRAMES = 6


def make_clip(seed):
    """Frames, and whether each of them has something to read."""
    draw = np.random.default_rng(seed)
    has_text = np.zeros(FRAMES, bool)
    has_text[draw.choice(FRAMES, draw.integers(1, 3), replace=False)] = True
    frames = []
    for i, text in enumerate(has_text):
        page = make_document(
            item_seed(seed, i),
            area_bin="C",
            ratio_bin="NM",
            options=Options(grounds=("plain", "shaded")),
        ).image
        if not text:  # the page's own colours, so smooth that nothing can be read
            page = np.broadcast_to(np.median(page, axis=(0, 1)).astype(np.uint8), page.shape)
        frames.append(np.ascontiguousarray(page))
    return frames, has_text


frames, has_text = make_clip(0)
paths = []
for i, frame in enumerate(frames):
    paths.append(f"frame{i}.png")
    pathlib.Path(paths[-1]).write_bytes(png(frame))
print("something to read in frames", np.flatnonzero(has_text).tolist())

# %% [markdown]
# ## Untrained
#
# A fresh allocator gives every frame the same distribution, so at a quarter of the native tokens
# every frame loses the same share.

# %%
network = AllocatorNetwork(tiny(), rngs=nnx.Rngs(0))
save_allocator("untrained", network, features="mres-tiny")


def look(weights):
    """The strip of the clip: in grey the native outline, in it what is looked at."""
    mres(
        [
            *("allocate", *paths, "-q", QUESTION, "--weights", weights),
            *("--retention", "0.25", "--save", f"seen-{weights}"),
        ]
    )
    display(Image(f"seen-{weights}/allocation.png"))


look("untrained")

# %% [markdown]
# ## Fitted to labels
#
# Its eyes are frozen, so features are made once. Then some steps of plain regression: frames with
# text should get the largest scale, the others the least.

# %%
eyes = open_eyes("mres-tiny")
clips = [make_clip(seed) for seed in range(1, 7)]
features = [eyes.features(some, QUESTION) for some, _ in clips]
packed = jax.tree.map(jnp.asarray, pack_features(features))
labels = jnp.asarray(np.concatenate([has for _, has in clips]), jnp.float32)

graphdef, state = nnx.split(network)
optimizer = optax.adam(2e-3)
opt_state = optimizer.init(state)


@jax.jit
def step(state, opt_state):
    """One step on all clips."""

    def loss(state):
        actions = nnx.merge(graphdef, state)(packed).policy.mean()
        return jnp.mean((actions - labels) ** 2)

    value, grads = jax.value_and_grad(loss)(state)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(state, updates), opt_state, value


for number in range(24):
    state, opt_state, value = step(state, opt_state)
    if number % 6 == 0 or number == 23:
        print(f"step {number:>2}: squared error of the actions {value:.3f}")
save_allocator("fitted", nnx.merge(graphdef, state), features="mres-tiny")

# %% [markdown]
# ## The same clip, which it has not seen
#
# The budget is the same quarter; the tokens have moved to the frames with something to read.

# %%
look("fitted")

# %% [markdown]
# ## Over fresh clips
#
# The share of the budget that reaches frames with text, beside what it would be if all frames were
# alike.

# %%
fitted = nnx.merge(graphdef, state)
shares = []
for seed in range(100, 106):
    some, has = make_clip(seed)
    scales = np.asarray(fitted.mean_scales(pack_features([eyes.features(some, QUESTION)])))
    area = scales**2
    shares.append((area[has].sum() / area.sum(), has.mean()))
found, alike = np.mean(shares, axis=0)
print(f"6 fresh clips: {found:.2f} of the pixels go to frames with text, {alike:.2f} if all alike")

# %% [markdown]
# With `mres ask FRAMES -q ... --policy allocator,weights=fitted,retention=0.25` the same allocation
# is answered from, and its own cost is in the answer's.
