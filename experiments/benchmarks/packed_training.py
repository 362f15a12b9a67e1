"""Times training on packs against training on padded rows: same model, same samples, same steps.

python experiments/benchmarks/packed_training.py --steps 8
"""

import argparse
import itertools
import random
import statistics
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from measure import write_result

from mres_jax.config import OptimizerConfig, Schedule
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.documents import VOCABULARY, item_seed, make_document
from mres_jax.data.ladder import fit_ladder
from mres_jax.data.packing import pack, plan_packs
from mres_jax.data.types import Example, Pack, Rung
from mres_jax.geometry import Size
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.models.registry import family_of
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing.mixtures import Row, llava_like_rows
from mres_jax.training.input.documents import document_tokenizer
from mres_jax.training.learner import Learner, Step, init_state
from mres_jax.training.optimizer import make_optimizer

RUNGS = (2_048, 4_096, 8_192)  # patches of the packs
PATCHES, TOKENS = 1_024, 512  # padded lengths are multiples of these, so that few shapes compile


class PaddedRows(nnx.Module):
    """A learner over rows that each hold one example, stacked on a leading axis."""

    def __init__(self, learner: Learner):
        self.learner = learner

    def loss(self, rows: Pack, share):
        """Sums what the rows add."""
        losses, metrics = jax.vmap(lambda row: self.learner.loss(row, share))(rows)
        return losses.sum(), jax.tree.map(jnp.sum, metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=8, help="timed steps of each side")
    parser.add_argument("--examples", type=int, default=16, help="samples of a step")
    args = parser.parse_args()
    config, tokenizer = mres_tiny(), document_tokenizer()
    family = family_of(config)
    spec = family.make_spec(config, tokenizer.token_id)
    rows = llava_like_rows(args.steps * args.examples)
    examples = [make_example(i, row, spec, tokenizer) for i, row in enumerate(rows)]
    groups = [examples[i : i + args.examples] for i in range(0, len(examples), args.examples)]
    learner = Learner(
        family.Model(config, rngs=nnx.Rngs(0)),
        patch_classes={},
        auxiliary_weight=0.0,
        rngs=nnx.Rngs(0),
    )
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=1e-3), Schedule(num_steps=args.steps, kind="constant")
    )
    ladder = fit_ladder([e.size for e in examples], RUNGS)
    most = longest(examples)
    sides = {
        "packed": Side(learner, optimizer, [to_packs(group, ladder) for group in groups]),
        "padded to the longest of each step": Side(
            PaddedRows(learner),
            optimizer,
            [[to_rows(g, longest(g))] for g in groups],
        ),
        "padded to the longest of all": Side(
            PaddedRows(learner),
            optimizer,
            [[to_rows(g, most)] for g in groups],
        ),
    }
    for name, side in sides.items():
        print(f"{name}: compiled {side.warm_up()} shapes", flush=True)
    for step in range(args.steps):
        for name, side in sides.items():
            loss, seconds = side.take(step)
            print(f"step {step} {name}: loss {loss:.6f}, {seconds:.2f} s", flush=True)
    report(sides, groups, args.examples)


class Side:
    """One way to train: its own state, from the same weights, over its form of the same samples."""

    def __init__(self, learner: nnx.Module, optimizer, steps: Sequence[Sequence[Pack]]):
        graphdef, state = init_state(learner, optimizer)
        self.step = Step(graphdef, optimizer)
        self.state = jax.tree.map(jnp.array, state)  # steps take over its memory
        self.steps = steps
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def warm_up(self) -> int:
        """Compiles every shape on a copy of the state."""
        shapes = {}
        for packs in self.steps:
            shapes[len(packs), *(p.patches.shape + p.tokens.shape for p in packs)] = packs
        for packs in shapes.values():
            state, _ = self.step(jax.tree.map(jnp.array, self.state), packs)
            jax.block_until_ready(state)
        return len(shapes)

    def take(self, number: int) -> tuple[float, float]:
        """Loss and seconds of one step."""
        start = time.perf_counter()
        self.state, metrics = self.step(self.state, self.steps[number])
        jax.block_until_ready(self.state)
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(metrics["loss"]))
        return self.losses[-1], self.seconds[-1]


def make_example(number: int, row: Row, spec, tokenizer) -> Example:
    """A document of the row's size at this model's patch size, and an answer of its length."""
    rng = random.Random(number)
    words = [word for word in VOCABULARY if word.isalpha()]
    answer = " ".join(rng.choice(words) for _ in range(row.text_tokens // 2))  # with its spaces
    images = []
    if row.size is not None:
        height, width = (max(32, round(side * spec.patch_size / 14)) for side in row.size)
        images = [make_document(item_seed(0, number), size=Size(height, width)).image]
    views = parse_policy("native")([Size(*image.shape[:2]) for image in images], "", spec)
    messages = prompt_messages("Describe it.", num_images=len(images), answer=answer)
    return assemble(images, views, messages, spec, tokenizer, label_mask="answer")


def to_packs(examples: Sequence[Example], ladder: Sequence[Rung]) -> list[Pack]:
    plans = plan_packs([e.size for e in examples], ladder)
    return [pack([examples[i] for i in plan.indices], plan.rung) for plan in plans]


def longest(examples: Sequence[Example]) -> Rung:
    """The length that rows are padded to."""
    patches = max(e.size.num_patches for e in examples)
    tokens = max(e.size.num_tokens for e in examples)
    return Rung(
        max_patches=-(-patches // PATCHES) * PATCHES,
        max_tokens=-(-tokens // TOKENS) * TOKENS,
        max_views=1,
        max_examples=1,
    )


def to_rows(examples: Sequence[Example], rung: Rung) -> Pack:
    """Each example in a row of its own, stacked."""
    return jax.tree.map(lambda *x: np.stack(x), *(pack([e], rung) for e in examples))


def report(sides: dict[str, Side], groups: Sequence[Sequence[Example]], examples: int) -> None:
    packed = sides["packed"]
    tokens = statistics.mean(sum(e.size.num_tokens for e in group) for group in groups)
    rows = []
    for name, side in sides.items():
        apart = max(abs(a - b) for a, b in zip(side.losses, packed.losses, strict=True))
        seconds = statistics.median(side.seconds)
        packs = list(itertools.chain(*side.steps))
        used = [np.mean(p.patch_segment_ids > 0) for p in packs]
        rows.append(
            {
                "training": name,
                "tokens/s": round(tokens / seconds),
                "packed is faster by": round(
                    statistics.median(
                        b / a for a, b in zip(packed.seconds, side.seconds, strict=True)
                    ),
                    2,
                ),
                "patch rows used": round(float(np.mean(used)), 3),
                "loss, largest difference": f"{apart:.1e}",
                "s per step": round(seconds, 2),
            }
        )
    write_result(
        "packed_training",
        rows,
        title="Training on packs against padded rows",
        about=(
            f"{len(groups)} optimiser steps of mres-tiny on {examples} samples each, of the sizes "
            "and text lengths of LLaVA's 665K mixture (`testing.mixtures`); the same weights at "
            "the start, the same samples in every step. Padded rows hold one sample each and are "
            f"stacked; their lengths are multiples of {PATCHES} patches and {TOKENS} tokens. "
            "tokens/s counts decoder positions that are not padding."
        ),
        dtype="float32",
        details={name: {"losses": s.losses, "seconds": s.seconds} for name, s in sides.items()},
    )


if __name__ == "__main__":
    main()
