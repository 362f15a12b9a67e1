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
# # Ask at several pixel budgets
#
# A vision-language model pays for every pixel that it looks at. This notebook asks one model the
# same questions with more and with fewer pixels, and shows what it saw, what it said and what that
# cost. No weights are downloaded: the library ships `mres-tiny`, 1.9 M parameters, which reads
# generated documents and nothing else. About a minute on two CPU cores.

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
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

import mres_jax
from mres_jax.data.assemble import measure
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.documents import Options, make_document
from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import plan_packs
from mres_jax.data.packing_report import packing_report
from mres_jax.data.views import render_view
from mres_jax.evaluation.figures import Panel, draw_policies
from mres_jax.evaluation.occupancy import draw_occupancy
from mres_jax.evaluation.trials import draw_questions, run_trials, tally
from mres_jax.inference.show import draw_token_grid, png
from mres_jax.resolution.policies import parse_policy

model = mres_jax.load()
print(f"{model.name}: one visual token shows {model.spec.stride} x {model.spec.stride} px")

# %% [markdown]
# ## A page, and what is asked about it
#
# Pages are drawn from a seed; what is written on them is random, so nothing can be known by heart.
# This one was picked: of five pages looked at, `native` misread one. What counts is the mean below.

# %%
page = make_document(3, area_bin="E", ratio_bin="AW", options=Options(grounds=("plain",)))
question = next(question for question in page.questions if question.type == "rc")
print(f"{question.text} (there: {question.answer})")
display(Image(png(page.image)))

# %% [markdown]
# ## One question, five policies
#
# A *policy* decides the pixels, the model never knows which one did. `native` keeps the picture's
# own size, `scale:0.5` halves each side, `budget:128` spends at most 128 visual tokens, `fixed:256`
# squashes every picture into one square. Each answer carries its cost, `answer.cost.ms` too.

# %%
POLICIES = ("native", "budget:256", "budget:128", "scale:0.5", "fixed:256")
answers = {p: model.answer(page.image, question.text, policy=p) for p in POLICIES}

print(f"{'policy':<12}{'answer':<12}{'tokens':>8}{'retention':>11}{'GFLOPs':>9}")
for policy, answer in answers.items():
    cost = answer.cost
    print(
        f"{policy:<12}{answer.text:<12}{cost.visual_tokens:>8}{cost.retention_ratio:>11.2f}"
        f"{cost.flops / 1e9:>9.2f}"
    )

# %% [markdown]
# ## What the model saw
#
# These are the very pixels that it received, enlarged without smoothing; a ruled square is one
# visual token.

# %%
panels = [
    Panel(
        policy=policy,
        pixels=render_view(page.image, answer.views[0]),
        answer=answer.text,
        is_right=answer.text == question.answer,
        visual_tokens=answer.cost.visual_tokens,
        retention_ratio=answer.cost.retention_ratio,
    )
    for policy, answer in answers.items()
]
display(
    Image(
        draw_policies(
            panels, question=question.text, expected=question.answer, stride=model.spec.stride
        )
    )
)

# %% [markdown]
# Close to, at the answer: the same letters under `native` and under `budget:128`.

# %%
fig, axes = plt.subplots(2, 1, figsize=(7, 3), constrained_layout=True)
for ax, policy in zip(axes, ("native", "budget:128"), strict=True):
    view = answers[policy].views[0]
    seen = draw_token_grid(render_view(page.image, view), model.spec.stride, zoom=4)
    scale = 4 * view.size.height / page.image.shape[0]
    top, left, bottom, right = (round(side * scale) for side in question.box)
    margin = round(12 * scale)
    ax.imshow(seen[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin])
    ax.set_title(f"{policy}: it reads {answers[policy].text!r}", fontsize=9)
    ax.axis("off")
plt.show()

# %% [markdown]
# ## Many pictures in one buffer
#
# Pictures of any size share a buffer of one static length, so one compiled program serves every mix
# of sizes. Here are forty questions about pictures of all sizes, packed: each block is one example,
# white is padding.

# %%
asked = list(draw_questions(seed=3, num_questions=40))
policy = parse_policy("native")
sizes = [
    measure(
        policy([document.size], each.text, model.spec),
        prompt_messages(each.text, num_images=1),
        model.spec,
        model.tokenizer,
    )
    for document, each in asked
]
plans = plan_packs(sizes, fit_ladder(sizes, (2_048, 8_192)))
print(packing_report(sizes, plans))
display(Image(draw_occupancy(sizes, plans)))

# %% [markdown]
# ## Tokens and answers
#
# The same forty questions under six policies. Half of them need reading, the other half only
# seeing: which colour, which side, is there a logo.

# %%
CURVE = ("budget:32", "budget:64", "budget:128", "budget:256", "scale:0.5", "native")
trials = run_trials(model.answerer, [(document.image, each) for document, each in asked], CURVE)
tallies = tally(trials)

fig, ax = plt.subplots(figsize=(7, 4), constrained_layout=True)
for kind, colour, name in (("rc", "#0072B2", "reading"), ("sc", "#D55E00", "seeing")):
    means = np.array([row.accuracy[kind] for row in tallies])  # mean, low, high
    tokens = [row.visual_tokens for row in tallies]
    ax.errorbar(
        tokens,
        means[:, 0],
        yerr=np.abs(means[:, 1:].T - means[:, 0]),
        fmt="o",
        color=colour,
        capsize=3,
        label=f"{name} (20 questions)",
    )
for row in tallies:
    ax.annotate(row.policy, (row.visual_tokens, 1.03), rotation=40, fontsize=8)
ax.set(xscale="log", xlabel="visual tokens per picture (mean)", ylabel="share right", ylim=(0, 1.3))
ax.legend(loc="lower right")
plt.show()

# %% [markdown]
# Reading rises with the budget, seeing hardly does. Twenty questions of each kind leave wide
# intervals (95 %, Wilson); `mres demo --questions 1400` makes them narrow.
#
# From here: `mres ask page.png -q "..." -p native -p budget:256 --save seen` does the same from the
# command line, with your pictures and any model that the library reads.
