"""What a pack is taken to hold when no data say it, and the FLOPs of that."""

import dataclasses

from mres_jax.config import Run
from mres_jax.data.types import Rung
from mres_jax.geometry import Grid
from mres_jax.inference.cost import encoder_flops, text_flops
from mres_jax.training.flops import Passes

SCORED = 0.25  # of the tokens that are no visual ones


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """A full pack of equal views, one to an example.

    Attributes:
      grids: of its views.
      lengths: tokens of its examples.
      scored: tokens with a loss.
    """

    grids: tuple[Grid, ...]
    lengths: tuple[int, ...]
    scored: int


def full_pack(run: Run, rung: Rung, *, patches: int = 1024) -> Contents:
    """Returns views of about `patches` patches, as many as the rung takes."""
    config = run.model.vision_config
    merge = getattr(config, "spatial_merge_size", 1)
    side = max(merge, round(patches**0.5) // merge * merge)
    for name in ("grid_side", "table_side"):  # towers for squares of one size
        side = getattr(config, name, side)
    grid = Grid(1, side, side)
    count = max(1, min(rung.max_views, rung.max_examples, rung.max_patches // grid.num_patches))
    visual = grid.num_patches // merge**2
    length = rung.max_tokens // count
    return Contents(
        grids=(grid,) * count,
        lengths=(length,) * count,
        scored=int(SCORED * max(0, length - visual)) * count,
    )


def model_flops(run: Run, contents: Contents, factors: Passes) -> float:
    """Model FLOPs of training on one pack."""
    vision = encoder_flops(run.model, contents.grids)
    text = text_flops(run.model.text_config, contents.lengths, contents.scored)
    return factors.vision * vision + factors.text * text


def attention_flops(run: Run, contents: Contents, factors: Passes) -> float:
    """Of them, those of scores and sums of values: what kernels compute, with what they compute
    again."""
    again = 1.0 if run.remat == "full" else 0.0
    config, grids = run.model, contents.grids
    if hasattr(config, "encoder_flops"):
        vision = 0.0
    else:
        tower = config.vision_config
        vision = 4.0 * tower.width * sum(tower.attended_pairs(grid) for grid in grids)
    pairs = sum(n * (n + 1) // 2 for n in contents.lengths)
    text = config.text_config
    decoder = 4.0 * text.num_hidden_layers * text.num_attention_heads * text.head_dim * pairs
    return (factors.vision + again) * vision + (factors.text + again) * decoder
