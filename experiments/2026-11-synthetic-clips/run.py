"""Accuracy against true retention on synthetic clips: allocator, fixed scale and token reduction.

python experiments/2026-11-synthetic-clips/run.py [--quick] [--model DIR] [--seeds 3] [--out DIR]

An allocator is trained once per seed (and, with --ablations, once per ablation at a quarter of the
length) and reaches every budget by its retention; the backbone stays as it is. "oracle" knows which
frames tell and gives them all it has: what there is to be won. --no-allocator trains none.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from clips import write_clips

from mres_jax.config import AllocatorRun, apply_overrides, load_run
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.inference.allocators import LoadedAllocator, open_eyes
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.reduction import METHODS, TokenReduction
from mres_jax.resolution.allocator.budget import allocate
from mres_jax.scoring import wilson_interval
from mres_jax.training.allocator.loop import train_allocator
from mres_jax.training.allocator.parts import Parts, open_parts
from mres_jax.training.allocator.prompts import Prompt, open_prompt, open_questions
from mres_jax.training.allocator.rewarding import open_reward
from mres_jax.training.allocator.validation import (
    LEAST,
    Sized,
    ask,
    retention_of,
    size_by_scales,
    size_uniformly,
)
from mres_jax.training.rl import CAPO

RUN_FILE = pathlib.Path(__file__).parents[2] / "configs/resadapt/tiny.py"
BUDGETS = (0.5, 0.25, 0.1)
NONE = "none"  # name of a run without training
QUICK = (
    "schedule.num_steps=2",
    "schedule.warmup_steps=0",
    "prompts=2",
    "allocations=2",
    "checkpoint.every_steps=2",
)
ABLATIONS: dict[str, dict[str, Any]] = {
    "no similarity": {"similarity": None},
    "no concentration": {"concentration": None},
    "fixed pivot": {"capo": dataclasses.replace(CAPO(), pivot_mix=0.0)},
    "symmetric": {"capo": dataclasses.replace(CAPO(), right_weight=1.0, wrong_weight=1.0)},
    "no floor": {"capo": dataclasses.replace(CAPO(), floor=None)},
    "paper's sign": {"capo": CAPO.paper()},
    # the advantage is accuracy less the price of cost alone: what CAPO is to keep from collapsing
    "direct cost": {
        "capo": dataclasses.replace(CAPO(), shaping_weight=0.0, cost_pressure=1.0, floor=None),
        "drop_agreeing": False,
    },
}


def uniform_frames(prompt: Prompt, retention: float, spec: Any) -> Sized:
    """Evenly spread frames at native size, as many as the budget allows."""
    count = max(1, int(retention * len(prompt.units) + 1e-9))
    chosen = np.linspace(0, len(prompt.units) - 1, count).round().astype(int)
    scales = np.isin(np.arange(len(prompt.units)), chosen).astype(float).tolist()
    return Sized(prompt, allocate(scales, prompt.unit_extents, spec))


Size = Callable[[Prompt, float], Sized]


def telling_frames(path: str) -> dict[str, list[int]]:
    """Which frames tell, by the id of the row."""
    rows = map(json.loads, pathlib.Path(path).read_text().splitlines())
    return {row["id"]: row["telling"] for row in rows}


def arms(
    run: AllocatorRun, parts: Parts, scales: Callable[[Prompt], np.ndarray] | None
) -> Iterator[tuple[str, float, Size, LocalAnswerer]]:
    """Name, budget, the sizes of a prompt at a retention, and who answers."""
    spec, limit = parts.spec, run.network.max_scale
    telling = telling_frames(run.data.path)

    def allocated(prompt: Prompt, retention: float) -> Sized:
        assert scales is not None
        at = dataclasses.replace(run, retention=retention)
        return size_by_scales(prompt, scales(prompt), spec, at)

    def oracle(prompt: Prompt, retention: float) -> Sized:
        known = np.full(len(prompt.units), LEAST)
        known[telling[prompt.row.id]] = 1.0
        return Sized(prompt, allocate(known.tolist(), prompt.unit_extents, spec))

    def fixed(prompt: Prompt, retention: float) -> Sized:
        return size_uniformly(prompt, retention, spec, max_scale=limit)

    def frames(prompt: Prompt, retention: float) -> Sized:
        return uniform_frames(prompt, retention, spec)

    def native(prompt: Prompt, retention: float) -> Sized:
        return fixed(prompt, 1.0)  # the reduction behind the encoder does the rest

    plain = answerer_of(parts)
    yield "native", 1.0, native, plain
    yield "oracle", 0.0, oracle, plain
    for budget in BUDGETS:
        if scales is not None:
            yield "allocator", budget, allocated, plain
        yield "fixed scale", budget, fixed, plain
        yield "uniform frames", budget, frames, plain
        for method in METHODS:
            reduction = TokenReduction(method=method, retention=budget)
            yield method, budget, native, answerer_of(parts, reduction)


def answerer_of(parts: Parts, reduction: TokenReduction | None = None) -> LocalAnswerer:
    """The backbone, with a token reduction or without."""
    return LocalAnswerer(
        parts.model, parts.spec, parts.tokenizer, policy="native", reduction=reduction
    )


def trained_scales(run: AllocatorRun, parts: Parts) -> Callable[[Prompt], np.ndarray]:
    """Trains an allocator, or goes on with one, and returns what it says of a prompt."""
    network = train_allocator(run, parts=parts).network
    allocator = LoadedAllocator(network, open_eyes(run.eyes), name=run.name)
    known: dict[str, np.ndarray] = {}

    def scales(prompt: Prompt) -> np.ndarray:
        if prompt.row.id not in known:
            known[prompt.row.id] = allocator.scales(prompt.frames, prompt.row.prompt)
        return known[prompt.row.id]

    return scales


def true_retention(sized: list[Sized], reduction: TokenReduction | None) -> float:
    """Share of all native visual tokens that the decoder gets."""
    if reduction is None:
        return retention_of(sized)
    kept = sum(reduction.keep(sum(each.allocation.tokens)) for each in sized)
    return kept / sum(sum(each.allocation.native_tokens) for each in sized)


def measure(
    run: AllocatorRun, parts: Parts, name: str, seed: int, *, train: bool = True
) -> list[dict[str, Any]]:
    """A row for each arm and budget, on the held-out clips."""
    scales = trained_scales(run, parts) if train else None
    reward = open_reward(run.reward)
    held_out = open_questions(run.data).held_out
    prompts = [open_prompt(row, run.data, parts.spec, wire=run.wire) for row in held_out]
    rows = []
    for arm, budget, size, answerer in arms(run, parts, scales):
        if name not in ("CAPO", NONE) and arm != "allocator":
            continue
        sized = [size(prompt, budget) for prompt in prompts]
        point = ask(sized, answerer, reward, run)
        retention = true_retention(sized, answerer.reduction)
        share = wilson_interval(point.accuracy * len(prompts), len(prompts))
        mean_scale = np.mean([scales(p).mean() for p in prompts]) if scales else np.nan
        row = {"training": name, "seed": seed, "arm": arm, "budget": budget}
        row |= {"retention": round(retention, 4), "accuracy": round(share.mean, 4)}
        row |= {"low": round(share.low, 4), "high": round(share.high, 4)}
        rows.append(row | {"questions": len(prompts), "mean_scale": round(float(mean_scale), 3)})
        print(rows[-1], flush=True)
    return rows


def make_run(args: argparse.Namespace, name: str, seed: int) -> AllocatorRun:
    """The run of a training, over clips that are made if need be."""
    path = args.out / f"clips-{seed}" / "rows.jsonl"
    if not path.is_file():
        write_clips(path.parent, clips=args.clips, num_frames=args.frames, seed=seed)
    overrides = [f"data.path={path}", f"seed={seed}", f"backbone={args.model or 'none'}"]
    overrides += [f"checkpoint.dir={args.out / f'{name}-{seed}'.replace(' ', '-')}"]
    overrides += [f"data.held_out={2 if args.quick else args.held_out}"]
    overrides += [f"data.max_frames={args.frames}", *(QUICK if args.quick else ())]
    if args.steps and not args.quick:
        overrides.append(f"schedule.num_steps={args.steps}")
    run = apply_overrides(load_run(RUN_FILE), overrides)
    assert isinstance(run, AllocatorRun)
    if name in ("CAPO", NONE):
        return run
    steps = max(1, (run.schedule.num_steps or 0) // 4)
    warmup = min(steps, run.schedule.warmup_steps or 0)
    schedule = dataclasses.replace(run.schedule, num_steps=steps, warmup_steps=warmup)
    return dataclasses.replace(run, schedule=schedule, **ABLATIONS[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="that everything runs; minutes")
    parser.add_argument("--ablations", action="store_true")
    parser.add_argument("--no-allocator", action="store_true", help="the other arms alone")
    parser.add_argument("--model", help="backbone; default: the shipped mres-tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, help="of the training; default: as in the run file")
    parser.add_argument("--held-out", type=int, default=128, help="clips that are asked")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/synthetic-clips"))
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.clips, args.frames = 1, 6, 4
    rows: list[dict[str, Any]] = []
    for seed in range(args.seeds):
        first = NONE if args.no_allocator else "CAPO"
        for name in [first, *(ABLATIONS if args.ablations and not seed else ())]:
            run = make_run(args, name, seed)
            rows += measure(run, open_parts(run), name, seed, train=name != NONE)
    target = args.out / "results.csv"
    target.write_bytes(records_to_csv(rows))
    print(target)


if __name__ == "__main__":
    main()
