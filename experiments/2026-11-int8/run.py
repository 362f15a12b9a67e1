"""What eight bits a weight cost and save: bytes, answers of mres-tiny, time of a layer on this CPU.

python experiments/2026-11-int8/run.py [--questions 64] [--policy budget:128]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import mres_jax
from mres_jax import nn
from mres_jax.config import Generated
from mres_jax.evaluation.arms.tasks import open_task
from mres_jax.inference import device
from mres_jax.protocols import Request, Sampling

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from measure import medians, time_in_turn

WIDTH, INNER = 1_536, 8_960  # of Qwen2-VL-2B's decoder
ROWS = (1, 8, 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--policy", default="budget:128")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    answers(args.questions, args.policy)
    for rows in ROWS:
        speed(rows, args.rounds)


def answers(questions: int, policy: str) -> None:
    """Prints how many answers of mres-tiny stay the same, how many are right, and the bytes."""
    task = open_task(Generated(num_questions=questions), 0)
    models = {"float32": mres_jax.load(), "int8": mres_jax.load(weights="int8")}
    asked = list(task.draw())
    said: dict[str, list[Any]] = {}
    for name, model in models.items():
        requests = [
            Request(id=one.id, images=one.open(model.spec), question=one.text, policy=policy)
            for one in asked
        ]
        sampling = Sampling(max_new_tokens=32)
        said[name] = [some[0] for some in model.answer_batch(requests, sampling=sampling)]
    same = sum(a.text == b.text for a, b in zip(*said.values(), strict=True))
    print(f"{questions} questions under {policy}: {same} answers are the same")
    for name, model in models.items():
        right = sum(one.grade(answer) for one, answer in zip(asked, said[name], strict=True))
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model.model)))
        print(f"{name}: {right:.0f} right, {size:,} bytes of weights")


def speed(rows: int, rounds: int) -> None:
    """Prints ms of a gated MLP at 2B width, sides in turn."""
    x = np.random.default_rng(0).normal(size=(rows, WIDTH))
    runs = {}
    for name in ("float32", "int8", "bfloat16", "int8 in bfloat16"):
        dtype = jnp.bfloat16 if "bfloat16" in name else jnp.float32
        params = nn.GatedMLP(WIDTH, INNER, dtype=dtype, rngs=nnx.Rngs(0))
        if dtype == jnp.bfloat16:
            params = _in_bfloat16(params)
        if name.startswith("int8"):
            nn.use_int8(params)
        graphdef, state = nnx.split(params)

        def run(state, x, graphdef=graphdef):
            return nnx.merge(graphdef, state)(x)

        runs[name] = _ready(jax.jit(run), state, jnp.asarray(x, dtype))
    times = medians(time_in_turn(runs, rounds))
    print(f"{rows} rows:", ", ".join(f"{name} {1e3 * t:.1f} ms" for name, t in times.items()))


def _ready(run: Any, *args: Any) -> Any:
    return lambda: jax.block_until_ready(run(*args))


def _in_bfloat16(layer: nn.GatedMLP) -> nn.GatedMLP:
    """Weights in bfloat16, and products as a CPU does them best."""
    graphdef, state = nnx.split(layer)
    layer = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state))
    return device.with_float32_sums(layer)


if __name__ == "__main__":
    main()
