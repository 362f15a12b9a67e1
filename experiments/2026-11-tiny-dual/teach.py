"""Teaches a fresh pathway to give the visual tokens that mres-tiny gives for the same pixels.

python experiments/2026-11-tiny-dual/lessons.py
python experiments/2026-11-tiny-dual/teach.py [--epochs 4] [--out runs/tiny-dual-taught]
python experiments/2026-11-tiny-dual/teach.py --arm single --out runs/tiny-single-taught

Both have one visual token for 16 x 16 px, so what is to be learnt is known token by token: far more
than answers alone say. The single pathway, the ViT alone, is taught the same from what it sees of
the pictures. The decoder begins as mres-tiny's without its biases and answers along. Leaves a
checkpoint that configs/tiny/dual.py starts from, and metrics beside it. What was learnt so far is
kept every 200 steps and on SIGTERM; the same call goes on from there.
"""

import argparse
import dataclasses
import json
import pathlib
import pickle
import random
import signal
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from arms import base_run
from flax import nnx
from lessons import MERGED, Lesson, numbers_in, read

from mres_jax.config import Run, apply_overrides
from mres_jax.files import write_together
from mres_jax.models.registry import LoadedModel, family_of, load_model, resolve, save_model
from mres_jax.models.tower import Visual
from mres_jax.models.vlm import PackedVLM
from mres_jax.training.input.documents import PATCH_CLASSES
from mres_jax.training.learner import Metrics, Share, Step, init_state
from mres_jax.training.losses import PatchHeads, next_token_sums
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.setup import open_run

NAMED = {name: n for name, n in PATCH_CLASSES.items() if name not in ("across", "down")}
HELD_OUT = 16  # lessons that nothing is learnt from
FIRST = 32  # lessons that mean and deviation of wanted tokens are taken from


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a lesson is made of, beside the distance of visual tokens, which counts 1."""

    heads: float
    answers: float


class Pupil(nnx.Module):
    """A model that is shown what another one sees.

    Its visual tokens are of mean 0 and deviation 1 while it learns, since those that are wanted
    have values of 40 and more, which no rate brings fresh weights to; `unscaled` ends that. Its
    loss is their squared distance, as a share of the variance of those that are wanted, what heads
    on them say of each quarter of a token, and the cross-entropy of the answers. Of
    every second picture the decoder is given the tokens that are wanted, so that it learns to read
    them before the tower can give them.
    """

    def __init__(self, model: PackedVLM, wanted: np.ndarray, weights: Weights, *, rngs: nnx.Rngs):
        self.model, self.weights = model, weights
        self.mean, self.std = (nnx.data(f(wanted, axis=0)) for f in (np.mean, np.std))
        self.heads = PatchHeads(wanted.shape[1], NAMED, patches=MERGED, rngs=rngs)

    def loss(self, lesson: Lesson, share: Share) -> tuple[jax.Array, Metrics]:
        model, packed = self.model, lesson.pack
        labels = {name: lesson.labels[name].astype(jnp.int32) for name in NAMED}
        wanted = lesson.wanted.astype(jnp.float32)
        tokens = model.encode(packed).tokens
        view = packed.patch_segment_ids[:, None]
        off = jnp.square(tokens - (wanted - self.mean) / self.std).mean(where=view > 0)
        named, right = self.heads(tokens, labels)
        objective = off + self.weights.heads * named
        metrics = {"unexplained": off, "char": right["char0"], "field": right["field0"]}
        given = jnp.where(view % 2 == 1, tokens * self.std + self.mean, wanted)
        hidden = model.hidden(packed, Visual(given))
        sums = next_token_sums(model.logits, hidden, packed.targets, packed.loss_mask)
        objective += self.weights.answers * share.token * sums.nll
        metrics |= {"loss": share.token * sums.nll, "accuracy": share.token * sums.right}
        return objective, metrics | {"objective": objective}


def unscaled(pupil: Pupil) -> PackedVLM:
    """The model that was taught, giving tokens as they were wanted."""
    last = pupil.model.projector.down
    last.kernel.set_value(last.kernel.get_value() * pupil.std)
    last.bias.set_value(last.bias.get_value() * pupil.std + pupil.mean)
    return pupil.model


def with_decoder_of(model: PackedVLM, teacher: PackedVLM) -> None:
    """Gives the model the teacher's decoder, as far as it has places for it: not the biases.

    The teacher's embedding is its head as well; here both begin as that and part.
    """
    theirs = dict(nnx.to_flat_state(nnx.state(teacher.text)))
    words = theirs["embed", "embedding"].get_value()
    theirs["lm_head", "kernel"] = nnx.Param(words.T)
    mine = nnx.state(model.text)
    for path, leaf in nnx.to_flat_state(mine):
        leaf.set_value(jnp.asarray(theirs[path].get_value(), leaf.get_value().dtype))
    nnx.update(model.text, mine)


def in_turn(numbers: Sequence[int], epochs: int) -> list[int]:
    """All lessons, in another order in every epoch."""
    orders = [random.Random(epoch).sample(numbers, len(numbers)) for epoch in range(epochs)]
    return [number for order in orders for number in order]


def read_for(arm: str, folder: pathlib.Path, number: int) -> Lesson:
    """What an arm sees of a lesson: the patches of both are of the small picture."""
    lesson = read(folder, number)
    return lesson if arm == "dual" else lesson._replace(pack=lesson.pack._replace(canvases=()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arm", choices=("dual", "single"), default="dual")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--heads", type=float, default=1.0, help="weight of the heads")
    parser.add_argument("--answers", type=float, default=0.5, help="weight of the answers' loss")
    parser.add_argument("--lessons", type=pathlib.Path, default="runs/tiny-dual-lessons")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/tiny-dual-taught"))
    parser.add_argument("changes", nargs="*", help="of the arm's run: model.vision_config.X=Y")
    args = parser.parse_args()
    run = apply_overrides(dataclasses.replace(base_run(args.arm), init=None), args.changes)
    assert isinstance(run, Run)
    numbers = numbers_in(args.lessons)
    numbers, held_out = numbers[HELD_OUT:], numbers[:HELD_OUT]
    num_steps = args.epochs * len(numbers)
    schedule = dataclasses.replace(run.schedule, num_steps=num_steps, warmup_steps=30)
    rate = dataclasses.replace(run.optimizer, learning_rate=args.learning_rate)
    model = family_of(run.model).Model(run.model, rngs=nnx.Rngs(run.seed))
    with_decoder_of(model, load_model(resolve("mres-tiny")).model)
    first = [read(args.lessons, number).wanted.astype(np.float32) for number in numbers[:FIRST]]
    weights = Weights(heads=args.heads, answers=args.answers)
    pupil = Pupil(model, np.concatenate(first), weights, rngs=nnx.Rngs(run.seed + 1))
    optimizer = make_optimizer(rate, schedule)
    graphdef, state = init_state(
        pupil, optimizer, is_trained=lambda path, variable: isinstance(variable, nnx.Param)
    )
    step, stopped = Step(graphdef, optimizer), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    log, start = args.out.with_suffix(".jsonl"), time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)

    def note(**values: Any) -> None:
        row = {name: round(float(value), 4) for name, value in values.items()}
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    kept = args.out.with_suffix(".pickle")
    if kept.is_file():
        leaves = [jnp.asarray(leaf) for leaf in pickle.loads(kept.read_bytes())]
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
    for number in in_turn(numbers, args.epochs)[int(state.step) :]:
        state, metrics = step(state, read_for(args.arm, args.lessons, number))
        if int(state.step) % 20 == 0:
            note(step=state.step, seconds=time.monotonic() - start, **metrics)
        if int(state.step) % 200 == 0 or stopped:
            leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
            write_together(kept.parent, {kept.name: pickle.dumps(leaves)})
        if stopped:
            return
    taught = nnx.merge(graphdef, state.params, state.frozen)
    loss = nnx.jit(lambda pupil, lesson, share: pupil.loss(lesson, share)[1])
    asked = [read_for(args.arm, args.lessons, number) for number in held_out]
    told = [loss(taught, one, Share(1 / np.sum(one.loss_mask), 1.0)) for one in asked]
    note(held_out=len(asked), **{k: np.mean([each[k] for each in told]) for k in told[0]})
    opened = open_run(run)
    learnt = LoadedModel(
        model=unscaled(taught), spec=opened.spec, tokenizer=opened.tokenizer, step=int(state.step)
    )
    save_model(learnt, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
