"""How full the packs of a plan are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mres_jax.data.packing import PackPlan, Sizes
from mres_jax.data.types import Rung


class PackingReport(NamedTuple):
    """What a plan uses of its buffers."""

    num_packs: int
    num_examples: int
    patch_efficiency: float  # patches / patch rows of the buffers
    token_efficiency: float  # tokens / positions of the buffers
    packs_per_rung: Mapping[Rung, int]

    def __str__(self) -> str:
        rungs = ", ".join(
            f"{count} of {rung.max_patches} x {rung.max_tokens}"
            for rung, count in self.packs_per_rung.items()
        )
        return (
            f"{self.num_examples} examples in {self.num_packs} packs ({rungs}); "
            f"{self.patch_efficiency:.3f} of patches, {self.token_efficiency:.3f} of tokens used"
        )


def packing_report(sizes: Sizes, plans: Sequence[PackPlan]) -> PackingReport:
    """Counts what a plan uses of its buffers; a resource of which there is none counts as full."""
    indices = [i for plan in plans for i in plan.indices]
    patches, tokens = (sum(int(sizes[i][column]) for i in indices) for column in (0, 1))
    max_patches = sum(plan.rung.max_patches for plan in plans)
    max_tokens = sum(plan.rung.max_tokens for plan in plans)
    return PackingReport(
        num_packs=len(plans),
        num_examples=len(indices),
        patch_efficiency=patches / max_patches if max_patches else 1.0,
        token_efficiency=tokens / max_tokens if max_tokens else 1.0,
        packs_per_rung=dict(sorted(Counter(plan.rung for plan in plans).items())),
    )
