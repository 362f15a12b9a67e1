"""Depthwise convolution on the CPU, ours against XLA's and torch's, at the sizes of ConvNeXt-L.

.venv-parity/bin/python experiments/benchmarks/depthwise.py

Stages of a picture of `--side` pixels, kernel 7 x 7, float32: one convolution, and it with its two
gradients. torch holds its maps with channels last or first, whichever is faster.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from measure import medians, time_in_turn, write_result

from mres_jax.models.convnext.config import STEM, convnext_large
from mres_jax.nn.depthwise import convolved, depthwise

WIDTH = 7


def in_jax(convolve, x, kernel, g):
    """Calls that run one convolution, and it with its gradients."""
    forward = jax.jit(convolve)
    both = jax.jit(lambda x, kernel, g: jax.vjp(convolve, x, kernel)[1](g))
    given = jax.tree.map(jnp.asarray, (x, kernel, g))
    return {
        "forward": lambda: np.asarray(forward(*given[:2])),
        "both": lambda: [np.asarray(each) for each in both(*given)],
    }


def in_torch(layout, x, kernel, g):
    """Likewise of torch; gradients as ours lie."""
    first = [0, 3, 1, 2]
    maps = [torch.from_numpy(np.ascontiguousarray(a.transpose(first))) for a in (x, g)]
    seen, told = (m.contiguous(memory_format=layout) for m in maps)
    weights = torch.from_numpy(kernel.T.reshape(-1, 1, WIDTH, WIDTH).copy())
    convolve = functools.partial(
        torch.nn.functional.conv2d, padding=WIDTH // 2, groups=len(weights)
    )

    def forward():
        with torch.no_grad():
            return convolve(seen, weights).permute(0, 2, 3, 1).numpy()

    def both():
        leaves = [seen.detach().requires_grad_(), weights.detach().requires_grad_()]
        convolve(*leaves).backward(told)
        of_x, of_kernel = (leaf.grad for leaf in leaves)
        return [of_x.permute(0, 2, 3, 1).numpy(), of_kernel.reshape(len(weights), -1).T.numpy()]

    return {"forward": forward, "both": both}


def notes_on(rows):
    """What stands under the table."""
    ahead = [row["torch / ours"] for row in rows if row["pass"] == "forward"]
    level = [row["torch / ours"] for row in rows if row["pass"] != "forward"]
    return [
        "On CPUs `nn.depthwise` adds shifted maps; elsewhere it is XLA's convolution.",
        f"torch takes {min(ahead)} to {max(ahead)} of our time forward, {min(level)} to "
        f"{max(level)} with gradients. The MLP of the same block has 8 C / 49 times the "
        "multiply-adds of its convolution, 31 times in stage 1 and 251 times in stage 4.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--side", type=int, default=512, help="of the picture, pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, and write no result")
    args = parser.parse_args()
    rows = []
    for stage, channels in enumerate(convnext_large().hidden_sizes):
        side = args.side // (STEM * 2**stage)
        rng = np.random.default_rng(stage)
        x, g = (rng.standard_normal((1, side, side, channels), np.float32) for _ in range(2))
        kernel = rng.standard_normal((WIDTH**2, channels), np.float32)
        sides = {
            "ours": in_jax(depthwise, x, kernel, g),
            "XLA": in_jax(convolved, x, kernel, g),
            "torch, channels last": in_torch(torch.channels_last, x, kernel, g),
            "torch, channels first": in_torch(torch.contiguous_format, x, kernel, g),
        }
        for what in ("forward", "both"):
            calls = {name: runs[what] for name, runs in sides.items()}
            wanted = calls["ours"]()
            for call in calls.values():  # sums of float32 in another order
                for a, b in zip(wanted, call(), strict=True):
                    np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())
            seconds = medians(time_in_turn(calls, rounds=args.rounds))
            theirs = min(spent for name, spent in seconds.items() if name.startswith("torch"))
            shown = "forward" if what == "forward" else "with gradients"
            row = {"stage": stage + 1, "map": f"{side} x {side} x {channels}", "pass": shown}
            row |= {"ours ms": seconds["ours"], "XLA ms": seconds["XLA"], "torch ms": theirs}
            row = {k: round(1e3 * v, 1) if k.endswith("ms") else v for k, v in row.items()}
            row["XLA / ours"] = round(seconds["XLA"] / seconds["ours"], 1)
            row["torch / ours"] = round(theirs / seconds["ours"], 2)
            rows.append(row)
            print(row, flush=True)
    if not args.dry:
        write_result(
            "depthwise",
            rows,
            title="Depthwise convolution on the CPU",
            about=f"One 7 x 7 convolution of each stage of ConvNeXt-L on a picture of {args.side} "
            f"px, and it with its gradients; medians of {args.rounds} rounds in turn, the same "
            "values within 1e-5 of the largest. torch in its faster layout.",
            dtype="float32",
            notes=notes_on(rows),
        )


if __name__ == "__main__":
    main()
