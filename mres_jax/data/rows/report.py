"""What a data set costs under one policy: sizes, and how full its packs are."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import plan_packs
from mres_jax.data.packing_report import PackingReport, packing_report
from mres_jax.data.rows.rowset import RowSet, ToViews
from mres_jax.data.rows.summary import Finding
from mres_jax.data.types import ExampleSize

RUNGS = (1_024, 4_096, 16_384)  # patches
AREAS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # upper edges of the histogram, 10^6 px
RATIOS = (0.5, 0.8, 1.25, 2.0)  # the same, width over height
QUANTILES = {"median": 0.5, "90 %": 0.9, "99 %": 0.99, "largest": 1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyReport:
    """Rows under one policy.

    Attributes:
      rows: that the policy takes.
      refused: those that it does not take, None where there are none.
      mean: patches, tokens and views of a row.
      largest: the same, each on its own.
      visual_tokens: mean of a row.
      packing: of all rows in a drawn order; None without pictures.
    """

    rows: int
    refused: Finding | None
    mean: tuple[float, float, float]
    largest: ExampleSize
    visual_tokens: float
    packing: PackingReport | None

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        names = ("patches", "tokens", "views")
        packing = self.packing and {
            "packs": self.packing.num_packs,
            "patch_efficiency": self.packing.patch_efficiency,
            "token_efficiency": self.packing.token_efficiency,
            "packs_per_rung": [
                {**dataclasses.asdict(rung), "packs": count}
                for rung, count in self.packing.packs_per_rung.items()
            ],
        }
        return {
            "rows": self.rows,
            "refused": self.refused and self.refused.to_dict(),
            "mean": dict(zip(names, self.mean, strict=True)),
            "largest": dict(zip(names, self.largest, strict=True)),
            "visual_tokens": self.visual_tokens,
            "packing": packing,
        }


def report_policy(
    rows: RowSet, to_views: ToViews, *, rungs: Sequence[int] = RUNGS, seed: int = 0
) -> PolicyReport:
    """Measures and packs all rows under one policy.

    Args:
      rows: the data set.
      to_views: the policy.
      rungs: patches per rung; a larger one is added where a row needs it.
      seed: of the order in which rows are packed.
    """
    measured = rows.measure(to_views)
    table = np.random.default_rng(seed).permutation(measured.sizes)
    most = ExampleSize(*(int(n) for n in table.max(0, initial=0)))
    packing = None
    if most.num_patches:
        while most.num_patches > max(rungs):
            rungs = (*rungs, 2 * max(rungs))
        packing = packing_report(table, plan_packs(table, fit_ladder(table, rungs)))
    mean = table.mean(0) if len(table) else np.zeros(3)
    return PolicyReport(
        rows=len(table),
        refused=measured.refused,
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        largest=most,
        visual_tokens=float(mean[0]) / rows.spec.merge_size**2,
        packing=packing,
    )


def quantiles(rows: RowSet) -> dict[str, dict[str, float]]:
    """Returns mean and quantiles of what does not depend on a policy, by name.

    Width and height are of all pictures, px, and frames of all clips; the rest is per usable row,
    where a clip counts as a picture.
    """
    index, usable, moving = rows.index, rows.index.usable, rows.index.is_clip
    heights, widths = index.picture_sizes[~moving].T
    columns = {
        "picture width": widths,
        "picture height": heights,
        "frame width": index.picture_sizes[moving, 1],
        "frame height": index.picture_sizes[moving, 0],
        "frames of a clip": np.diff(index.frame_starts)[moving],
        "pictures of a row": np.diff(index.picture_starts)[usable],
        "text tokens": index.text_tokens[usable],
    }
    return {
        name: {"mean": float(column.mean())}
        | {at: float(np.quantile(column, q, method="higher")) for at, q in QUANTILES.items()}
        for name, column in columns.items()
        if len(column)
    }


def size_histogram(rows: RowSet) -> Int[np.ndarray, "areas ratios"]:
    """Returns how many pictures and clips are of each area and shape, between `AREAS` and `RATIOS`.

    A size on an edge is below it; the last bins are open.
    """
    heights, widths = rows.index.picture_sizes.T.astype(np.float64)
    bins = np.zeros((len(AREAS) + 1, len(RATIOS) + 1), np.int64)
    areas = np.searchsorted(AREAS, heights * widths / 1e6, side="left")
    ratios = np.searchsorted(RATIOS, widths / heights, side="left")
    np.add.at(bins, (areas, ratios), 1)
    return bins
