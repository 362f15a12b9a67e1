"""`mres plan`: what a run takes of machines that are not here."""

import argparse
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mres_jax.cli._report import progress
from mres_jax.cli._table import print_table
from mres_jax.config import AllocatorRun, Run, is_server, load_run
from mres_jax.errors import ConfigError
from mres_jax.geometry import Size

if TYPE_CHECKING:
    from mres_jax.training.planning.epochs import EpochPrice
    from mres_jax.training.planning.report import AllocatorPlan, Phase, Plan
    from mres_jax.training.planning.topologies import Topology


def run(args: argparse.Namespace) -> int:
    """Compiles the step of a run for a slice and prints what it takes."""
    import jax

    jax.config.update("jax_platforms", "cpu")  # whatever else is here stays free
    from mres_jax.training.planning.topologies import parse_topology

    topology = parse_topology(args.topology)
    loaded = load_run(args.file, args.overrides)
    if isinstance(loaded, Run):
        return _plan_run(loaded, topology, args)
    return _plan_allocator(loaded, topology, args)


def _plan_run(loaded: Run, topology: "Topology", args: argparse.Namespace) -> int:
    from mres_jax.training.planning.epochs import price_policies
    from mres_jax.training.planning.plan import PHASES, fitted, plan_run

    if args.frame or args.scale is not None:
        raise ConfigError(
            "plan: --frame and --scale are for training by rewards; --policy prices an epoch here."
        )
    plan = plan_run(loaded, topology, phases=args.phase or PHASES, log=progress)
    planned, _ = fitted(loaded, topology)
    prices = price_policies(planned, args.policy, plan.step_s, log=progress)
    if args.json:
        epochs = [price.to_dict() for price in prices]
        print(json.dumps(plan.to_dict() | {"epochs": epochs}, indent=2))
    else:
        _print_plan(plan)
        _print_prices(prices)
    return 0


def _plan_allocator(loaded: AllocatorRun, topology: "Topology", args: argparse.Namespace) -> int:
    from mres_jax.models.registry import load_config
    from mres_jax.training.planning.allocator import FRAME, plan_allocator
    from mres_jax.training.planning.plan import PHASES

    if args.policy:
        raise ConfigError("plan: --policy prices an epoch of supervised training; leave it out.")
    if is_server(loaded.backbone):
        raise ConfigError(
            f"plan: {loaded.backbone} answers behind a server, and only what is computed here can "
            f"be priced. Plan with its model here: --backbone={loaded.server.processor}"
        )
    plan = plan_allocator(
        loaded,
        topology,
        load_config(loaded.backbone),
        frame=_size(args.frame) if args.frame else FRAME,
        scale=args.scale,
        phases=args.phase or PHASES,
        log=progress,
    )
    if args.json:
        print(json.dumps(plan.to_dict(), indent=2))
    else:
        _print_allocator_plan(plan)
    return 0


def _size(text: str) -> Size:
    """`1280x720`, as people say it: width first."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.lower())
    if match is None:
        raise ConfigError(f"plan: --frame {text!r} is no size; write WIDTHxHEIGHT, as 1280x720.")
    return Size(int(match[2]), int(match[1]))


def _print_allocator_plan(plan: "AllocatorPlan") -> None:
    _print_machines(plan)
    print(f"a step: {plan.rollouts:,} answers to {plan.prompts:,} prompts, each {plan.prompt}")
    memory = plan.memory
    print(
        f"always there, GB: {memory.parameters / 1e9:.2f} of parameters, "
        f"{memory.optimiser / 1e9:.2f} of optimiser, of {memory.limit / 1e9:.2f}"
    )
    for phase in plan.phases:
        _print_phase(phase)
    if plan.step_s is not None:
        parts = [f"{p.name} {p.times * (p.step_s or 0):.1f}" for p in plan.phases]
        print(
            f"a step takes {plan.step_s:.1f} s at the least ({', '.join(parts)}), "
            f"{plan.rollouts / plan.step_s:.2f} answers/s; {plan.steps:,} steps "
            f"{plan.hours:.1f} hours. Compiled in {plan.compile_s:.0f} s."
        )
    print(f"features of such a clip: {plan.feature_bytes / 1e6:.1f} MB on disk")
    for note in plan.notes:
        print(f"note: {note}")


def _print_machines(plan: "Plan | AllocatorPlan") -> None:
    mesh = " ".join(f"{name}={size}" for name, size in plan.mesh.items() if size > 1)
    print(
        f"{plan.name} on {plan.topology} ({plan.slice_name}): {plan.chips} chips, {plan.hosts} "
        f"hosts, {mesh or 'one device'}"
    )


def _print_plan(plan: "Plan") -> None:
    _print_machines(plan)
    print(
        f"a step: {plan.packs_per_step} packs of {plan.rung[0]:,} patches and {plan.rung[1]:,} "
        f"tokens ({plan.views}), {plan.model_flops:.3g} model FLOPs"
    )
    memory = plan.memory
    rows = [
        ["parameters", memory.parameters],
        ["optimiser", memory.optimiser],
        ["packs", memory.packs],
        ["activations", memory.activations],
        ["gradients, temporaries", memory.other],
        ["together", memory.total],
        ["there are", memory.limit],
        ["spare" if memory.spare >= 0 else "missing", abs(memory.spare)],
    ]
    print_table(
        ["memory of a device", "GB"],
        [[str(name), "-" if size is None else f"{size / 1e9:.2f}"] for name, size in rows],
    )
    if plan.sent:
        print_table(
            ["sent by a device in a step", "GB"],
            [[name, f"{size / 1e9:.3f}"] for name, size in sorted(plan.sent.items())],
        )
    if plan.step_s is not None:
        _print_times(plan)
    for phase in plan.phases:
        _print_phase(phase)
    for line in plan.proposals:
        print(f"would fit: {line}")
    for note in plan.notes:
        print(f"note: {note}")


def _print_prices(prices: "Sequence[EpochPrice]") -> None:
    usable = [price for price in prices if not price.refused]
    if usable:
        print_table(
            [
                *("policy", "rows", "tokens a row", "packs", "full of patches", "of tokens"),
                *("steps", "hours", "tokens/s", "padded"),
            ],
            [_price_line(price) for price in usable],
            title="an epoch, at the least; padded: rows of a batch as long as its longest",
        )
    for price in prices:
        if price.refused:
            print(f"{price.policy}: {price.refused}")


def _price_line(price: "EpochPrice") -> list[str]:
    rates = (price.tokens_per_s, price.padded_tokens_per_s)
    return [
        price.policy,
        f"{price.rows:,}",
        f"{price.tokens / max(price.rows, 1):,.0f}",
        f"{price.packs:,}",
        f"{price.patch_efficiency:.3f}",
        f"{price.token_efficiency:.3f}",
        f"{price.steps:,}",
        "-" if price.hours is None else f"{price.hours:.2f}",
        *("-" if rate is None else f"{rate:,.0f}" for rate in rates),
    ]


def _print_phase(phase: "Phase") -> None:
    memory = phase.memory
    often = f", {phase.times:,.0f} in a step" if phase.times != 1 else ""
    print(
        f"{phase.name}: {phase.contents}{often}; {memory.parameters / 1e9:.2f} GB of parameters, "
        f"{memory.packs / 1e9:.2f} of inputs, {(memory.other or 0) / 1e9:.2f} of temporaries, "
        f"{'spare' if memory.spare >= 0 else 'missing'} {abs(memory.spare) / 1e9:.2f}"
    )
    if phase.step_s is not None:
        times = ", ".join(f"{name} {1e3 * s:.1f}" for name, s in phase.seconds.items())
        sent = ", ".join(f"{size / 1e9:.3f} GB {name}" for name, size in sorted(phase.sent.items()))
        print(f"  {phase.device_flops:.3g} FLOPs a device, least time in ms: {times}")
        print(f"  sent: {sent or 'nothing'}")


def _print_times(plan: "Plan") -> None:
    print_table(
        ["least time of", "s"],
        [[name, f"{seconds:.3f}"] for name, seconds in plan.seconds.items()],
    )
    total = sum(plan.seconds.values())
    print(
        f"a device computes {plan.device_flops:.3g} FLOPs and moves "
        f"{(plan.memory_traffic or 0) / 1e9:.0f} GB; a step takes {plan.step_s:.2f} s at the least "
        f"(model FLOPs {plan.mfu:.0%} of the peak), {total:.2f} s with nothing "
        f"at the same time. Compiled in {plan.compile_s:.0f} s."
    )
