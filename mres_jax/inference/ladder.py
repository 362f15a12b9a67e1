"""The static lengths that answering uses when nobody gives others."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.data.packing import PackPlan, plan_packs
from mres_jax.data.spec import CanvasRule, ProcessorSpec
from mres_jax.data.types import ExampleSize, Rung
from mres_jax.ops import ROW_MULTIPLE

TEXT = 96  # decoder positions of a question beside its visual tokens; sizes rungs, limits nothing
MAX_VIEWS = 512  # a clip of 768 frames has 384
SMALLER = 2  # times as many views where canvases are of several shapes
MULTIPLE = 128  # positions; token lengths are a multiple of it

# Visual tokens and examples of the rungs in which prompts are gathered.
PICTURE_RUNGS = ((256, 4), (1_024, 4), (1_024, 16), (4_096, 16), (4_096, 64))
TEXT_RUNGS = ((512, 4), (1_024, 16), (2_048, 16), (8_192, 64))  # tokens and examples


class Ladders(NamedTuple):
    """Rungs for prompts with pictures, and for those without, which need no patches.

    Prompts are gathered in the `shared` smallest rungs of each. A larger prompt gets a pack of its
    own, so that one long prompt does not make every pack as large as it may be.
    """

    pictures: tuple[Rung, ...]
    text: tuple[Rung, ...]
    shared: tuple[int, int]  # rungs of `pictures` and of `text`

    @classmethod
    def of(cls, rungs: Sequence[Rung]) -> "Ladders":
        """One ladder for all prompts."""
        ladder = tuple(sorted(rungs))
        return cls(ladder, ladder, (len(ladder), len(ladder)))

    def largest(self, size: ExampleSize) -> Rung:
        """The rung that a prompt must fit."""
        return (self.pictures if size.num_patches else self.text)[-1]

    def plan(self, sizes: Sequence[ExampleSize]) -> list[PackPlan]:
        """Returns packs that hold every prompt once.

        Raises:
          PackingError: a prompt is larger than the top rung.
        """
        plans = []
        for ladder, shared, seen in zip(
            (self.pictures, self.text), self.shared, (True, False), strict=True
        ):
            here = [i for i, size in enumerate(sizes) if (size.num_patches > 0) == seen]
            gathered = [i for i in here if _fits(sizes[i], ladder[shared - 1])]
            alone = sorted(set(here) - set(gathered))
            plans += _plan(sizes, gathered, ladder[:shared])
            for i in alone:
                plans += _plan(sizes, [i], ladder)
        return plans


def default_ladders(spec: ProcessorSpec, max_context: int) -> Ladders:
    """Returns ladders that hold any prompt of up to `max_context` tokens; lengths grow fourfold.

    Where a second pathway convolves, a rung has canvases for as many views as its tokens allow.
    """

    def picture_rung(visual: int, examples: int) -> Rung:
        if spec.canvas is not None:
            return _canvas_rung(spec.canvas, visual, examples)
        return Rung(
            max_patches=visual * spec.merge_size**2,
            max_tokens=visual + TEXT * examples,
            max_views=MAX_VIEWS,
            max_examples=examples,
        )

    def text_rung(tokens: int, examples: int) -> Rung:
        return Rung(max_patches=0, max_tokens=tokens, max_views=0, max_examples=examples)

    top = -(-max_context // MULTIPLE) * MULTIPLE
    pictures = [picture_rung(*numbers) for numbers in PICTURE_RUNGS]
    text = [text_rung(*numbers) for numbers in TEXT_RUNGS]
    for rungs, make, (length, examples) in (
        (pictures, picture_rung, PICTURE_RUNGS[-1]),
        (text, text_rung, TEXT_RUNGS[-1]),
    ):
        while rungs[-1].max_tokens < max_context:
            length = min(4 * length, top)
            rungs.append(make(length, examples))
    return Ladders(tuple(pictures), tuple(text), (len(PICTURE_RUNGS), len(TEXT_RUNGS)))


def _canvas_rung(rule: CanvasRule, visual: int, examples: int) -> Rung:
    """About `visual` tokens, as whole views of the largest canvas; smaller views may be more."""
    largest = max(rule.shapes, key=lambda shape: shape.area)
    view = math.prod(side // rule.stride * rule.patches for side in largest)
    views = max(1, visual // view)
    patches = -(-views * view // ROW_MULTIPLE) * ROW_MULTIPLE
    return Rung(
        max_patches=patches,
        max_tokens=-(-(patches + TEXT * examples) // ROW_MULTIPLE) * ROW_MULTIPLE,
        max_views=views if views == 1 or len(rule.shapes) == 1 else SMALLER * views,
        max_examples=examples,
        canvases=tuple((shape.height, shape.width) for shape in rule.shapes),
    )


def _plan(
    sizes: Sequence[ExampleSize], indices: Sequence[int], ladder: Sequence[Rung]
) -> list[PackPlan]:
    plans = plan_packs([sizes[i] for i in indices], ladder)
    return [PackPlan(plan.rung, tuple(indices[i] for i in plan.indices)) for plan in plans]


def _fits(size: ExampleSize, rung: Rung) -> bool:
    limits = (rung.max_patches, rung.max_tokens, rung.max_views)
    return all(needs <= limit for needs, limit in zip(size, limits, strict=True))
