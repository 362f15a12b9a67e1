"""What an epoch of the data takes of a slice under each policy: packs, steps, hours."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mres_jax.config import Run
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError, PolicyError
from mres_jax.training.setup import open_run


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochPrice:
    """An epoch under one policy.

    Attributes:
      policy: its text.
      rows: examples.
      patches, tokens: of all of them; tokens are positions of the decoder.
      packs, steps: that they make.
      patch_efficiency, token_efficiency: share of the packs' buffers that they fill.
      hours: at the least; None, as the rates, where the time of a step is not known.
      tokens_per_s: on all chips, at the most.
      padded_tokens_per_s: the same where batches of as many rows as a pack holds are padded to
        their longest row.
      refused: why the policy cannot be used; then all numbers are 0.
    """

    policy: str
    rows: int = 0
    patches: int = 0
    tokens: int = 0
    packs: int = 0
    steps: int = 0
    patch_efficiency: float = 0.0
    token_efficiency: float = 0.0
    hours: float | None = None
    tokens_per_s: float | None = None
    padded_tokens_per_s: float | None = None
    refused: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values, for JSON."""
        return dataclasses.asdict(self)


def price_policies(
    run: Run,
    policies: Sequence[str],
    step_s: float | None,
    *,
    log: Callable[[str], None] = lambda line: None,
) -> list[EpochPrice]:
    """Returns what an epoch of the run's data takes under each policy, from its index alone.

    Args:
      run: as planned, with the mesh and packs of the slice.
      policies: texts, each in place of the run's own.
      step_s: least time of a step of packs of the largest rung, s.
      log: takes a line.

    Raises:
      ConfigError: the data cannot be opened.
    """
    found = []
    for text in policies:
        log(f"planning an epoch under {text}")
        try:
            epoch = open_run(dataclasses.replace(run, policies={text: 1.0})).plan(0)
        except (ConfigError, PolicyError) as error:
            found.append(EpochPrice(policy=text, refused=str(error)))
            continue
        table = np.concatenate([source.sizes(0) for source in epoch.sources])
        found.append(price_epoch(text, epoch.rungs, table, run, step_s))
    return found


def price_epoch(
    policy: str,
    rungs: Sequence[Rung],
    table: Int[np.ndarray, "examples 3"],
    run: Run,
    step_s: float | None,
) -> EpochPrice:
    """Returns what packs of these rungs take; a smaller rung as much less as it is shorter.

    Args:
      policy: its text.
      rungs: of each pack.
      table: sizes of the examples in them.
      run, step_s: as above.
    """
    top = max(run.ladder)
    whole = sum(_packs_of(top, rung.max_patches, rung.max_tokens) for rung in rungs)
    patches, tokens = (int(n) for n in table[:, :2].sum(0))
    room = [sum(getattr(rung, name) for rung in rungs) for name in ("max_patches", "max_tokens")]
    hours = rate = padded = None
    if step_s is not None:
        packs_per_s = run.accumulation / step_s
        hours, rate = whole / packs_per_s / 3_600, tokens * packs_per_s / whole
        padded = tokens * packs_per_s / _padded_packs(table, round(len(table) / whole), top)
    return EpochPrice(
        policy=policy,
        rows=len(table),
        patches=patches,
        tokens=tokens,
        packs=len(rungs),
        steps=math.ceil(len(rungs) / run.accumulation),
        patch_efficiency=patches / max(room[0], 1),
        token_efficiency=tokens / max(room[1], 1),
        hours=hours,
        tokens_per_s=rate,
        padded_tokens_per_s=padded,
    )


def _padded_packs(table: Int[np.ndarray, "examples 3"], rows: int, top: Rung) -> float:
    """Largest packs that batches of so many rows would be, each row as long as the longest."""
    rows = max(rows, 1)
    batches = [table[at : at + rows, :2] for at in range(0, len(table), rows)]
    return sum(_packs_of(top, *(len(batch) * batch.max(0)).tolist()) for batch in batches)


def _packs_of(top: Rung, patches: int, tokens: int) -> float:
    """How much of a largest pack these rows are, by what there is more of."""
    return max(patches / max(top.max_patches, 1), tokens / top.max_tokens)
