"""Whole examples into static buffers: plan on sizes alone, then fill with numpy.

Axes: p packed patches, t packed positions, n views of a pack.

An example takes two resources at once, patches and decoder positions. The planner looks at a
window of waiting examples and fills one pack after the other; it never splits an example and never
drops one. Everything here is a pure function of its arguments.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.assemble import blank_example
from mres_jax.data.canvases import fill_canvases
from mres_jax.data.patches import widen
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.types import TEXT, Example, ExampleSize, Pack, Rung
from mres_jax.data.windows import pack_windows
from mres_jax.errors import PackingError

Sizes = Sequence[ExampleSize] | np.ndarray  # an array is `int [examples 3]`


class PackPlan(NamedTuple):
    """Which examples share a pack, and its static lengths."""

    rung: Rung
    indices: tuple[int, ...]


def plan_packs(
    sizes: Sizes, ladder: Sequence[Rung], *, lookahead: int = 256, fill: int = -1
) -> list[PackPlan]:
    """Returns packs that hold every example exactly once.

    Each pack is opened with the example that waits longest, then takes the best fit among the
    `lookahead` waiting ones again and again: the one that leaves least of the scarcer resource.
    At last its two final choices are revised together. A pack gets the smallest rung that holds it.

    Args:
      sizes: one per example, in the order they are to be used; an `int [examples 3]` array will do.
      ladder: static lengths; every field grows from rung to rung.
      lookahead: examples that wait at a time; a pack never holds more.
      fill: index of the rung that packs are filled to. A larger one is opened only for an example
        that needs it.

    Raises:
      PackingError: an example is larger than the top rung, or the ladder is no ladder, or has no
        rung `fill`.
    """
    ladder = check_ladder(ladder)
    if not -len(ladder) <= fill < len(ladder):
        raise PackingError(f"pack: fill={fill}, but the ladder has {len(ladder)} rungs, from 0.")
    usual = ladder[fill:] if fill % len(ladder) else ladder
    if lookahead < 1:
        raise PackingError(f"pack: lookahead={lookahead} must be at least 1.")
    table = _table(sizes)
    check_fits(sizes, ladder[-1])
    scarcity = _scarcity(table, usual[0])
    plans = []
    following = min(lookahead, len(table))
    waiting = np.arange(following)
    while len(waiting):
        opened = _smallest(usual, table[waiting[0]])
        taken = _fill(table[waiting], np.array(_limits(opened), np.int64), scarcity)
        chosen = waiting[taken]
        refill = np.arange(following, min(following + len(taken), len(table)))
        following += len(refill)
        waiting = np.concatenate([np.delete(waiting, taken), refill])
        plans.append(PackPlan(_smallest(ladder, table[chosen].sum(0)), tuple(chosen.tolist())))
    return plans


class _Scarcity(NamedTuple):
    """What a remainder is measured against: the share of each resource that the data can use up.

    Where a rung has more tokens per patch than the data, the surplus stays empty whatever one does,
    and must not hide what is left of the other resource.
    """

    unused: np.ndarray  # [2] patches and tokens that stay empty in a perfect pack
    scale: np.ndarray  # [2] 1 / usable

    def left_over(self, remainder: np.ndarray) -> np.ndarray:
        """The larger of both remainders, as fractions; `remainder` is `[... 2 or more]`."""
        return ((remainder[..., :2] - self.unused) * self.scale).max(-1)


def _scarcity(table: np.ndarray, rung: Rung) -> _Scarcity:
    patches, tokens = (max(float(n), 1.0) for n in table[:, :2].sum(0))
    given = np.array([rung.max_patches, rung.max_tokens], np.float64)
    packs = max(patches / max(given[0], 1.0), tokens / given[1])  # at the least
    usable = np.array([patches, tokens]) / packs
    return _Scarcity(given - usable, 1.0 / usable)


def _fill(waiting: np.ndarray, capacity: np.ndarray, scarcity: _Scarcity) -> list[int]:
    """Rows of `waiting` that go into one pack, the first always among them; nothing more fits."""
    taken = _take(waiting, [0], capacity, scarcity)
    if len(taken) < 3:
        return taken
    pair = _best_pair(waiting, taken, capacity, scarcity)
    return _take(waiting, [*taken[:-2], *pair], capacity, scarcity)


def _take(
    waiting: np.ndarray, taken: list[int], capacity: np.ndarray, scarcity: _Scarcity
) -> list[int]:
    """Adds the best fit until nothing fits."""
    left = capacity - waiting[taken].sum(0)
    free = np.ones(len(waiting), bool)
    free[taken] = False
    taken = list(taken)
    while True:
        fitting = np.flatnonzero(free & (waiting <= left).all(1))
        if not len(fitting):
            return taken
        best = int(fitting[scarcity.left_over(left - waiting[fitting]).argmin()])
        taken.append(best)
        free[best] = False
        left = left - waiting[best]


def _best_pair(
    waiting: np.ndarray, taken: list[int], capacity: np.ndarray, scarcity: _Scarcity
) -> tuple[int, int]:
    """The pair to end a pack with: the last two taken, or a better one of the longest-waiting."""
    room = capacity - waiting[taken[:-2]].sum(0)
    free = np.ones(len(waiting), bool)
    free[taken[:-2]] = False
    candidates = np.flatnonzero(free & (waiting <= room).all(1))[:_PAIR_CANDIDATES]
    candidates = np.union1d(candidates, taken[-2:])
    first, second = np.triu_indices(len(candidates), 1)
    remainder = room - waiting[candidates[first]] - waiting[candidates[second]]
    wasted = np.where((remainder >= 0).all(1), scarcity.left_over(remainder), np.inf)
    best = int(wasted.argmin())
    return int(candidates[first[best]]), int(candidates[second[best]])


_PAIR_CANDIDATES = 32  # more gains nothing that could be measured


def check_ladder(ladder: Sequence[Rung]) -> tuple[Rung, ...]:
    """Returns the ladder, smallest rung first.

    Raises:
      PackingError: it is empty, or a rung that is larger in one field is smaller in another.
    """
    if not ladder:
        raise PackingError("pack: the ladder has no rung. Give at least one.")
    rungs = tuple(sorted(ladder))
    for low, high in itertools.pairwise(rungs):
        if any(a > b for a, b in zip(_limits(low), _limits(high), strict=True)):
            raise PackingError(f"pack: {high} is not larger than {low} in every field.")
    if min(rungs[0].max_tokens, rungs[0].max_examples) < 1 or min(_limits(rungs[0])) < 0:
        raise PackingError(f"pack: {rungs[0]} holds no example.")
    return rungs


def check_fits(sizes: Sizes, rung: Rung) -> None:
    """Raises `PackingError` that names the first example which is larger than the rung."""
    table, limits = _table(sizes), np.array(_limits(rung))
    over = (table > limits).any(1)
    if not over.any():
        return
    item = int(np.argmax(over))
    column = int(np.argmax(table[item] > limits))
    unit, field = _RESOURCES[column]
    needs, limit = int(table[item, column]), int(limits[column])
    error = PackingError(
        f"pack: example {item} needs {needs} {unit}, but {field}={limit} (over by "
        f"{needs - limit}); {int(over.sum())} of {len(table)} examples are too large. "
        f"{_CURES[column]}"
    )
    error.item = item
    raise error


_RESOURCES = (
    ("patches", "max_patches"),
    ("tokens", "max_tokens"),
    ("views", "max_views"),
    ("examples", "max_examples"),
)
_CURES = (
    "Shrink its views to the budget, choose a policy with fewer visual tokens, or raise "
    "`max_patches`.",
    "Shorten it, choose a policy with fewer visual tokens, or raise `max_tokens`.",
    "Give it fewer pictures, or raise `max_views`.",
    "Raise `max_examples`.",
)


def _limits(rung: Rung) -> tuple[int, int, int, int]:
    return rung.max_patches, rung.max_tokens, rung.max_views, rung.max_examples


def _table(sizes: Sizes) -> np.ndarray:
    """`int64 [examples 4]`: patches, tokens, views, one."""
    table = np.asarray(sizes, np.int64).reshape(len(sizes), 3)
    return np.concatenate([table, np.ones((len(sizes), 1), np.int64)], axis=1)


def _smallest(ladder: Sequence[Rung], total: np.ndarray) -> Rung:
    return next(rung for rung in ladder if (total <= np.array(_limits(rung))).all())


def pack(
    examples: Sequence[Example],
    rung: Rung,
    *,
    label_names: Sequence[str] | None = None,
    frames: int = 1,
) -> Pack:
    """Returns the examples one after the other in buffers of the rung's lengths; padding is 0.

    Where one of them has a clip, all get its longer patch rows, and `still` tells them apart.

    Args:
      examples: at least one; order is kept.
      rung: static lengths.
      label_names: the `patch_labels` to carry, so that every pack has the same ones; None takes
        those that occur.
      frames: of a patch row where none of them has a clip: several where one was to be here.

    Raises:
      PackingError: they do not fit, there are none, or their patch rows differ.
    """
    _check_pack(examples, rung)
    p, t = rung.max_patches, rung.max_tokens
    rows, still = _patch_rows(examples, p, frames)
    grids = [grid for example in examples for grid in example.grids]
    grid_thw = np.array(grids, np.int32).reshape(-1, 3)
    view_lengths = grid_thw.prod(axis=1)
    visual_counts = [_num_encoded(example) for example in examples]
    visual_starts = np.cumsum([0, *visual_counts[:-1]])
    if label_names is None:
        label_names = sorted({name for example in examples for name in example.patch_labels})
    return Pack(
        patches=_padded(rows, p),
        patch_positions=_padded([e.patch_positions for e in examples], p),
        patch_segment_ids=_segment_ids(view_lengths, p),
        grid_thw=_padded([grid_thw], rung.max_views),
        tokens=_padded([e.tokens for e in examples], t),
        segment_ids=_segment_ids([len(e.tokens) for e in examples], t),
        positions=_padded([e.positions.T for e in examples], t).T.copy(),
        visual_index=_padded(
            [
                np.where(e.slots >= 0, e.slots + start, e.slots).astype(np.int32)
                for e, start in zip(examples, visual_starts, strict=True)
            ],
            t,
            fill=TEXT,
        ),
        targets=_padded([_shifted(e.tokens) for e in examples], t),
        loss_mask=_padded([_shifted(e.loss_mask) for e in examples], t),
        patch_labels={
            name: _padded([_labels(e, name) for e in examples], p, fill=-1) for name in label_names
        },
        still=still,
        canvases=fill_canvases([c for e in examples for c in e.canvases], rung),
        **_for_the_tower(examples, p),
    )


def _for_the_tower(examples: Sequence[Example], num_patches: int) -> dict[str, Any]:
    """What the tower asked the host for, by field of the pack."""
    arrays: dict[str, Any] = {}
    windows = [e.windows for e in examples if e.windows is not None]
    if windows:
        arrays["windows"] = pack_windows(windows, num_patches)
    weights = [e.position_weights for e in examples if e.position_weights is not None]
    if weights:
        arrays["position_weights"] = _padded(weights, num_patches)
    return arrays


def empty_pack(
    rung: Rung, spec: ProcessorSpec, *, label_names: Sequence[str] = (), frames: int = 1
) -> Pack:
    """Returns a pack of padding alone, as `pack` builds others for the model."""
    return pack([blank_example(spec)], rung, label_names=label_names, frames=frames)


def example_slices(segment_ids: np.ndarray) -> list[slice]:
    """Where each segment stands, in order; for `Pack.segment_ids` and `Pack.patch_segment_ids`."""
    lengths = np.bincount(segment_ids[segment_ids > 0], minlength=1)[1:]
    ends = np.cumsum(lengths)
    return [slice(int(end - n), int(end)) for n, end in zip(lengths, ends, strict=True)]


def _check_pack(examples: Sequence[Example], rung: Rung) -> None:
    if not examples:
        raise PackingError("pack: no examples. Give at least one.")
    for is_still in (True, False):
        rows = {e.patches.shape[1] for e in examples if (e.still is None) == is_still}
        if len(rows) > 1:
            raise PackingError(
                f"pack: patch rows of {sorted(rows)} values in one pack. Assemble all with one "
                "spec."
            )
    for name in ("windows", "position_weights"):
        without = [i for i, example in enumerate(examples) if getattr(example, name) is None]
        if 0 < len(without) < len(examples):
            raise PackingError(
                f"pack: example {without[0]} has no {name}, others have. Assemble all with one "
                "spec."
            )
    table = _table([example.size for example in examples])
    total, limits = table.sum(0), _limits(rung)
    for column, (unit, field) in enumerate(_RESOURCES):
        needs, limit = int(total[column]), limits[column]
        if needs > limit:
            worst = int(table[:, column].argmax())
            raise PackingError(
                f"pack: {len(examples)} examples need {needs} {unit}, but {field}={limit} (over by "
                f"{needs - limit}). Largest: example {worst}, {int(table[worst, column])} {unit}. "
                f"{_CURES[column] if len(examples) == 1 else 'Split them over more packs.'}"
            )


def _patch_rows(
    examples: Sequence[Example], length: int, frames: int
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Rows of one length, and `Pack.still`; padding counts as still."""
    moving = next((e for e in examples if e.still is not None), None)
    if moving is None and frames == 1:
        return [e.patches for e in examples], None
    row_size = frames * examples[0].patches.shape[1] if moving is None else moving.patches.shape[1]
    rows = [widen(e.patches, row_size) if e.still is None else e.patches for e in examples]
    still = [np.ones(len(e.patches), bool) if e.still is None else e.still for e in examples]
    return rows, _padded([*still, np.ones(length - sum(map(len, still)), bool)], length)


def _num_encoded(example: Example) -> int:
    if example.num_encoded is not None:
        return example.num_encoded
    return int((example.slots >= 0).sum())


def _padded(parts: Sequence[np.ndarray], length: int, *, fill: int = 0) -> np.ndarray:
    out = np.full((length, *parts[0].shape[1:]), fill, parts[0].dtype)
    start = 0
    for part in parts:
        out[start : start + len(part)] = part
        start += len(part)
    return out


def _segment_ids(lengths: Sequence[int] | np.ndarray, length: int) -> np.ndarray:
    ids = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    return _padded([ids], length)


def _shifted(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[1:], np.zeros(1, values.dtype)])[: len(values)]


def _labels(example: Example, name: str) -> np.ndarray:
    unlabelled = np.full(len(example.patches), -1, np.int32)
    return example.patch_labels.get(name, unlabelled).astype(np.int32)
