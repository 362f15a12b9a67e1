"""Which requests are held at a time, with their pictures, and which of their packs go together."""

from collections.abc import Callable, Iterator, Sequence

from mres_jax.data.packing import PackPlan
from mres_jax.data.types import Example, ExampleSize, Rung
from mres_jax.inference.prepared import Prepared, rung_of
from mres_jax.protocols import Request

MOST, MOST_BYTES = 256, 2**30  # requests, and bytes of patches, from which packs are filled


def windows(
    requests: Sequence[Request],
    prepare: Callable[[Request], Prepared],
    *,
    plan: Callable[[Sequence[ExampleSize]], Sequence[PackPlan]],
    at_once: int,
) -> Iterator[tuple[int, list[Prepared]]]:
    """Prepares some requests at a time, and drops them, but for one more, before the next ones.

    A window ends once it has `MOST` requests or holds `MOST_BYTES`; but no rank of a mesh is left
    without a pack for that, and none with one that would have held the next prompt too.

    Args:
      requests: in their order.
      prepare: makes the prompt of one.
      plan: packs of prompts of these sizes.
      at_once: packs that are answered together.

    Yields:
      The place of the first request of a window, and all its prompts, which are gone once the next
      window is asked for.
    """

    def missing(following: Prepared) -> int:
        """Prompts after which it pays to look whether packs are full; 0 where they are."""
        sizes = [prompt.example.size for prompt in prompts]
        count = len(plan(sizes))
        short = -count % at_once
        if not short and len(plan([*sizes, following.example.size])) > count:
            return 0
        return max(1, short * len(sizes) // (2 * count))  # half of what they seem to hold

    prompts: list[Prepared] = []
    held = at = look = 0
    for place, request in enumerate(requests):
        prompt = prepare(request)
        if (len(prompts) >= MOST or held >= MOST_BYTES) and len(prompts) >= look:
            wait = missing(prompt)
            look = len(prompts) + wait
            if not wait:
                yield at, prompts
                prompts.clear()  # who asked still has the list
                held, at, look = 0, place, 0
        prompts.append(prompt)
        held += num_bytes(prompt.example)
    if prompts:
        yield at, prompts


def num_bytes(example: Example) -> int:
    """Returns what the pixels of a prompt take."""
    return example.patches.nbytes + sum(canvas.nbytes for canvas in example.canvases)


def groups_of(
    plans: Sequence[PackPlan], prompts: Sequence[Prepared], most: int
) -> Iterator[tuple[Rung, list[PackPlan]]]:
    """Packs of one rung, so many at a time."""
    by_rung: dict[Rung, list[PackPlan]] = {}
    for plan in plans:
        rung = rung_of([prompts[i] for i in plan.indices], plan.rung)
        by_rung.setdefault(rung, []).append(plan)
    for rung, same in by_rung.items():
        for at in range(0, len(same), most):
            yield rung, same[at : at + most]
