"""Times `varlen_attention` against dense masked attention and, where installed, torch or cuDNN.

    python kernels/bench/varlen_attention.py --quick

All variants take the same inputs in one process and are timed in turn, round after round, next
to a matrix product, so that a busy machine slows all alike; medians are reported. Useful GFLOP/s
count only what the mask needs: 4 per score and channel forward, 10 backward. Work ratio: scores
computed over scores needed. On a CPU `xla` runs in float32; on a GPU all implementations that
accept the call do in bfloat16, beside jax's cuDNN attention on segments padded to the longest.
"""

import argparse
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mres_kernels.varlen_attention import (
    Plan,
    make_plan,
    pallas_gpu,
    pallas_triton,
    varlen_attention,
)
from mres_kernels.varlen_attention._ranges import make_ranges
from mres_kernels.varlen_attention.cases import CASES, Case
from mres_kernels.varlen_attention.xla import count_scores

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "experiments/benchmarks"))
from measure import Run, medians, time_in_turn, write_result

MATMUL_SIDE = {"cpu": 2048, "gpu": 8192}
MIN_SECONDS = 0.05  # of a timing
MIN_ROWS = 1024  # smaller cases are for the tests
ABOUT = (
    "`varlen_attention` (`xla`) against attention over the whole pack with a dense mask and, where "
    "installed, torch per segment. Useful GFLOP/s count only what the mask needs."
)
QUICK = ("tiny_tower", "tiny_text", "tower_8x576")
GPU_CASES = (
    Case("images_28x576", (576,) * 28, 16, 16, 80),
    Case("images_16x1024", (1024,) * 16, 16, 16, 80),
    Case("images_8x2048", (2048,) * 8, 16, 16, 128),
    Case("image_16k", (16_000,), 16, 16, 128),
    Case("tower_16k", (4096, 1024, 576, 2304, 64, 3000, 1500, 3800), 8, 8, 64),
    Case("text_16k", (512, 1024, 2048, 4096, 8192), 32, 8, 128, causal=True),
)
DTYPE = {"cpu": "float32", "gpu": "bfloat16"}
# By platform: what is timed, and what packs are padded to.
OURS = {"cpu": ("xla",), "gpu": ("pallas_gpu", "pallas_triton", "xla")}
ROW_MULTIPLE = {"cpu": 16, "gpu": 128}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", action="append", help="name in cases.py; default: all large ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="three cases, three rounds")
    parser.add_argument("--dense-gib", type=float, default=4.0, help="largest dense score array")
    parser.add_argument("--results", type=pathlib.Path, help="folder for JSON")
    options = parser.parse_args()
    platform = jax.devices()[0].platform
    if platform not in OURS:
        parser.error(f"have {', '.join(OURS)}; this is a {platform}.")
    have = GPU_CASES if platform == "gpu" else CASES
    names = options.case or (QUICK if options.quick and platform == "cpu" else None)
    cases = [c for c in have if (c.name in names if names else c.length >= MIN_ROWS)]
    if names and len(cases) < len(set(names)):
        parser.error(f"--case: have {', '.join(case.name for case in have)}.")
    rounds = min(options.rounds, 3) if options.quick else options.rounds
    rows = [row for case in cases for row in time_case(case, rounds, options.dense_gib)]
    write_result(
        "varlen_attention",
        rows,
        title="Attention over packed sequences",
        about=ABOUT,
        dtype=DTYPE[platform],
        results=options.results,
    )


def time_case(case: Case, rounds: int, dense_gib: float) -> Iterator[dict[str, Any]]:
    platform = jax.devices()[0].platform
    ids = case.segment_ids()
    ids = np.pad(ids, (0, -ids.size % ROW_MULTIPLE[platform]))
    plan = make_plan(ids, causal=case.causal)
    inputs = random_inputs(case, ids.size, DTYPE[platform])
    pairs = int((plan.ends - plan.starts).sum())
    ratio = count_scores(plan) / pairs
    print(f"{case.name}: {len(case.lengths)} segments, {ids.size} rows, work ratio {ratio:.2f}")
    for backward in (False, True):
        runs = {
            name: run_jax(attend_by(name), inputs, plan, backward=backward)
            for name in OURS[platform]
            if accepts(name, inputs, plan)
        }
        if 4 * case.num_heads * ids.size**2 <= dense_gib * 2**30:
            runs["dense"] = run_jax(attend_dense, inputs, plan, backward=backward)
        if platform == "gpu":
            runs["cudnn_padded"] = run_cudnn(case, inputs, backward=backward)
        elif (torch_run := run_torch(case, inputs, backward=backward)) is not None:
            runs["torch_per_segment"] = torch_run
        side = MATMUL_SIDE[platform]
        runs = {"matmul": run_matmul(side, DTYPE[platform]), **runs}
        seconds = medians(time_in_turn(runs, rounds, min_seconds=MIN_SECONDS))
        gemm = 2 * side**3 / seconds.pop("matmul") / 1e9
        flops = (14 if backward else 4) * case.head_dim * case.num_heads * pairs
        for name, s in seconds.items():
            row = {
                "case": case.name,
                "pass": "forward+backward" if backward else "forward",
                "implementation": name,
                "ms": round(s * 1e3, 2 if platform == "cpu" else 4),
                "useful_gflops": round(flops / s / 1e9, 1),
                "sgemm_gflops" if platform == "cpu" else "gemm_gflops": round(gemm, 1),
                "share_of_sgemm" if platform == "cpu" else "share_of_gemm": round(
                    flops / s / 1e9 / gemm, 3
                ),
                "speed_of_xla": round(s / seconds["xla"], 2 if platform == "cpu" else 4),
                "work_ratio": work_ratio(name, plan, inputs[0], pairs),
            }
            print(
                f"  {row['pass']:17s} {name:18s} {row['ms']:9.3f} ms {row['useful_gflops']:9.1f} "
                f"GFLOP/s = {flops / s / 1e9 / gemm:.2f} of a product ({gemm:.0f}); "
                f"xla is {s / seconds['xla']:.2f} x as fast"
            )
            yield row


def work_ratio(name: str, plan: Plan, q, pairs: int) -> float | None:
    """Scores that the forward computes over those that are needed; None for others' kernels."""
    if name == "xla":
        return round(count_scores(plan) / pairs, 3)
    if name == "pallas_gpu":
        tiles = pallas_gpu.choose("forward", q.shape[2])
        outer, inner = tiles.warpgroups * 64, tiles.inner
    elif name == "pallas_triton":
        tiles = pallas_triton.choose("forward", q)
        outer, inner = tiles.outer, tiles.inner
    else:
        return None
    ranges = make_ranges(plan.starts, plan.ends, outer=outer, inner=inner)
    return round(float(ranges.num_tiles.sum()) * outer * inner / pairs, 3)


def accepts(name: str, inputs, plan: Plan) -> bool:
    """Whether an implementation takes the call; says why not."""
    try:
        jax.eval_shape(attend_by(name), *inputs[:3], plan)
    except NotImplementedError as error:
        print(f"  not timed: {error}")
        return False
    return True


def random_inputs(case: Case, length: int, dtype: str) -> list[np.ndarray]:
    """q, k, v and the gradient of the output."""
    rng = np.random.default_rng(0)
    heads = (case.num_heads, case.num_kv_heads, case.num_kv_heads, case.num_heads)
    shapes = [(length, n, case.head_dim) for n in heads]
    return [rng.standard_normal(shape, np.float32).astype(jnp.dtype(dtype)) for shape in shapes]


def attend_by(name: str) -> Callable[..., jax.Array]:
    return functools.partial(varlen_attention, implementation=name)


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


def run_cudnn(case: Case, inputs, *, backward: bool) -> Run:
    """jax's cuDNN attention: a row per segment, padded to the longest before the clock runs."""
    most = max(case.lengths)
    edges = list(itertools.pairwise(np.cumsum([0, *case.lengths])))
    q, k, v, d_out = (
        jnp.stack([jnp.pad(x[a:b], ((0, most - (b - a)), (0, 0), (0, 0))) for a, b in edges])
        for x in map(jnp.asarray, inputs)
    )
    lengths = jnp.asarray(case.lengths, jnp.int32)

    def attend(q, k, v):
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            is_causal=case.causal,
            query_seq_lengths=lengths,
            key_value_seq_lengths=lengths,
            implementation="cudnn",
        )

    def forward_backward(q, k, v, d_out):
        out, pull = jax.vjp(attend, q, k, v)
        return out, pull(d_out)

    if backward:
        step = jax.jit(forward_backward)
        return lambda: jax.block_until_ready(step(q, k, v, d_out))
    forward = jax.jit(attend)
    return lambda: jax.block_until_ready(forward(q, k, v))


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


def run_matmul(side: int, dtype: str) -> Run:
    x = jnp.ones((side, side), dtype)
    matmul = jax.jit(jnp.matmul)
    return lambda: jax.block_until_ready(matmul(x, x))


if __name__ == "__main__":
    main()
