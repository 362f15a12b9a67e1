"""Times `varlen_attention` against dense masked attention and, where installed, torch.

    python kernels/bench/varlen_attention.py --quick

All variants take the same inputs in one process and are timed in turn, round after round, next
to a float32 matrix product, so that a busy machine slows all alike; medians are reported. Useful
GFLOP/s count only what the mask needs: 4 per score and channel forward, 10 backward. Work ratio:
scores computed over scores needed.
"""

import argparse
import itertools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mres_kernels.varlen_attention import Plan, make_plan, varlen_attention
from mres_kernels.varlen_attention.cases import CASES, Case
from mres_kernels.varlen_attention.xla import count_scores

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "experiments/benchmarks"))
from measure import Run, medians, time_in_turn, write_result

MATMUL_SIDE = 2048
MIN_SECONDS = 0.05  # of a timing
MIN_ROWS = 1024  # smaller cases are for the tests
ABOUT = (
    "`varlen_attention` (`xla`) against attention over the whole pack with a dense mask and, where "
    "installed, torch per segment. Useful GFLOP/s count only what the mask needs."
)
QUICK = ("tiny_tower", "tiny_text", "tower_8x576")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", action="append", help="name in cases.py; default: all large ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="three cases, three rounds")
    parser.add_argument("--dense-gib", type=float, default=4.0, help="largest dense score array")
    parser.add_argument("--results", type=pathlib.Path, help="folder for JSON")
    options = parser.parse_args()
    names = options.case or (QUICK if options.quick else None)
    cases = [c for c in CASES if (c.name in names if names else c.length >= MIN_ROWS)]
    if names and len(cases) < len(set(names)):
        parser.error(f"--case: have {', '.join(case.name for case in CASES)}.")
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    rows = [row for case in cases for row in time_case(case, rounds, options.dense_gib)]
    write_result(
        "varlen_attention",
        rows,
        title="Attention over packed sequences",
        about=ABOUT,
        dtype="float32",
        results=options.results,
    )


def time_case(case: Case, rounds: int, dense_gib: float) -> Iterator[dict[str, Any]]:
    plan = make_plan(case.segment_ids(), causal=case.causal)
    inputs = random_inputs(case)
    pairs = int((plan.ends - plan.starts).sum())
    ratio = count_scores(plan) / pairs
    print(f"{case.name}: {len(case.lengths)} segments, {case.length} rows, work ratio {ratio:.2f}")
    for backward in (False, True):
        runs = {"xla": run_jax(attend_xla, inputs, plan, backward=backward)}
        if 4 * case.num_heads * case.length**2 <= dense_gib * 2**30:
            runs["dense"] = run_jax(attend_dense, inputs, plan, backward=backward)
        if (torch_run := run_torch(case, inputs, backward=backward)) is not None:
            runs["torch_per_segment"] = torch_run
        runs = {"matmul": run_matmul(), **runs}
        seconds = medians(time_in_turn(runs, rounds, min_seconds=MIN_SECONDS))
        sgemm = 2 * MATMUL_SIDE**3 / seconds.pop("matmul") / 1e9
        flops = (14 if backward else 4) * case.head_dim * case.num_heads * pairs
        for name, s in seconds.items():
            row = {
                "case": case.name,
                "pass": "forward+backward" if backward else "forward",
                "implementation": name,
                "ms": round(s * 1e3, 2),
                "useful_gflops": round(flops / s / 1e9, 1),
                "sgemm_gflops": round(sgemm, 1),
                "share_of_sgemm": round(flops / s / 1e9 / sgemm, 3),
                "speed_of_xla": round(s / seconds["xla"], 2),
                "work_ratio": round(ratio, 3) if name == "xla" else None,
            }
            print(
                f"  {row['pass']:17s} {name:18s} {row['ms']:9.1f} ms {row['useful_gflops']:7.1f} "
                f"GFLOP/s = {row['share_of_sgemm']:.2f} of sgemm ({sgemm:.0f}); "
                f"xla is {row['speed_of_xla']:.1f} x as fast"
            )
            yield row


def random_inputs(case: Case) -> list[np.ndarray]:
    """q, k, v and the gradient of the output."""
    rng = np.random.default_rng(0)
    heads = (case.num_heads, case.num_kv_heads, case.num_kv_heads, case.num_heads)
    return [rng.standard_normal((case.length, n, case.head_dim), np.float32) for n in heads]


def attend_xla(q, k, v, plan: Plan):
    return varlen_attention(q, k, v, plan, implementation="xla")


def attend_dense(q, k, v, plan: Plan):
    """What `jax.nn` offers: scores of all pairs, most of them masked."""
    key = jnp.arange(q.shape[0])[None]
    seen = (plan.starts[:, None] <= key) & (key < plan.ends[:, None])
    out = jax.nn.dot_product_attention(q, k, v, mask=seen[None], implementation="xla")
    return jnp.where((plan.ends > plan.starts)[:, None, None], out, 0)


def run_jax(attend, inputs, plan: Plan, *, backward: bool) -> Run:
    def forward_backward(q, k, v, d_out, plan):
        out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, plan), q, k, v)
        return out, pull(d_out)

    q, k, v, d_out = (jnp.asarray(x) for x in inputs)
    if backward:
        step = jax.jit(forward_backward)
        return lambda: jax.block_until_ready(step(q, k, v, d_out, plan))
    forward = jax.jit(attend)
    return lambda: jax.block_until_ready(forward(q, k, v, plan))


def run_torch(case: Case, inputs, *, backward: bool) -> Run | None:
    """torch's fused attention, one call per segment; None without torch."""
    try:
        import torch
    except ImportError:
        return None
    sdpa = torch.nn.functional.scaled_dot_product_attention
    groups = case.num_heads // case.num_kv_heads
    edges = np.cumsum([0, *case.lengths])
    tensors = [torch.from_numpy(x.swapaxes(0, 1).copy()) for x in inputs]

    def segment(first: int, end: int) -> None:
        q, k, v, d_out = (x[None, :, first:end] for x in tensors)
        q, k, v = (x.detach().requires_grad_(backward) for x in (q, k, v))
        out = sdpa(q, k, v, is_causal=case.causal, enable_gqa=groups > 1)
        if backward:
            out.backward(d_out)

    def run() -> None:
        for first, end in itertools.pairwise(edges):
            segment(first, end)

    return run


def run_matmul() -> Run:
    x = jnp.ones((MATMUL_SIDE, MATMUL_SIDE))
    matmul = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(matmul(x, x))


if __name__ == "__main__":
    main()
