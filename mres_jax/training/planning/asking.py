"""What a step of training by rewards asks of its backbone, and in which packs."""

from typing import Any, NamedTuple

from mres_jax.config import AllocatorRun
from mres_jax.data.packing import check_fits
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import ExampleSize, Rung
from mres_jax.errors import ConfigError, PackingError
from mres_jax.geometry import ClipSize, Grid, Size
from mres_jax.inference.ladder import TEXT, Ladders, default_ladders
from mres_jax.resolution.allocator.budget import allocate
from mres_jax.resolution.allocator.config import AllocatorConfig
from mres_jax.resolution.allocator.units import units_of


class Asked(NamedTuple):
    """What a step asks of the backbone.

    Attributes:
      size: of a prompt.
      grids: of its views.
      visual_tokens: of a prompt.
      packs: prompts of each pack of a step, most in the first.
      rung: of the packs.
      trained: examples of each pack that the backbone learns from in an update.
      trained_rung: of these.
    """

    size: ExampleSize
    grids: tuple[Grid, ...]
    visual_tokens: int
    packs: tuple[int, ...]
    rung: Rung
    trained: tuple[int, ...]
    trained_rung: Rung


def mean_scale(network: AllocatorConfig) -> float:
    """Of the mean action of a fresh allocator, per side."""
    return (network.min_scale + network.max_scale) / 2


def ask(run: AllocatorRun, spec: ProcessorSpec, config: Any, frame: Size, scale: float) -> Asked:
    """Returns what a step asks, every prompt about a clip of as many frames at one scale.

    Raises:
      ConfigError: a prompt that the ladder has no rung for.
    """
    count = run.data.max_frames
    extents = [ClipSize(frame, tuple(i / run.data.fps for i in range(count)))]
    if run.wire == "stills":
        extents = [frame] * count
    units = [unit.extent for unit in units_of(extents, spec)]
    allocation = allocate([scale] * len(units), units, spec)
    grids = tuple(
        Grid(1, size.height // spec.patch_size, size.width // spec.patch_size)
        for size in allocation.sizes
        if size is not None
    )
    tokens = sum(allocation.tokens)
    patches = sum(grid.num_patches for grid in grids)
    prompt = ExampleSize(patches, tokens + TEXT, len(grids))
    answered = prompt._replace(num_tokens=prompt.num_tokens + run.max_new_tokens)
    ladders = default_ladders(spec, config.text_config.max_position_embeddings)
    if run.ladder:
        ladders = Ladders.of(run.ladder)
    training = ladders
    if run.backbone_training is not None and run.backbone_training.ladder:
        training = Ladders.of(run.backbone_training.ladder)
    try:
        check_fits([prompt], ladders.largest(prompt))
        check_fits([answered], training.largest(answered))
    except PackingError as error:
        raise ConfigError(
            f"plan: a prompt of {count} frames at scale {scale:g}, {tokens:,} visual tokens, and "
            f"its answer have no rung: {error} Or plan a smaller --scale or --frame."
        ) from None
    plans = ladders.plan([prompt] * (run.prompts * run.allocations))
    each = run.prompts // run.updates * run.allocations * run.rollouts
    trained = training.plan([answered] * each)
    return Asked(
        size=prompt,
        grids=grids,
        visual_tokens=tokens,
        packs=tuple(len(plan.indices) for plan in plans),
        rung=plans[0].rung,
        trained=tuple(len(plan.indices) for plan in trained),
        trained_rung=trained[0].rung,
    )
