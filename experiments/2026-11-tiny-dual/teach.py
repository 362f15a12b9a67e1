"""Teaches a fresh dual pathway to give the visual tokens that mres-tiny gives for the same pixels.

python experiments/2026-11-tiny-dual/teach.py [--steps 1000] [--out runs/tiny-dual-taught]
python experiments/2026-11-tiny-dual/teach.py --arm single --out runs/tiny-single-taught

The single pathway, the ViT alone, is taught the same tokens from what it sees of the pictures.
Both have one visual token for 16 x 16 px, so what is to be learnt is known token by token: far more
than answers alone say. The decoder begins as mres-tiny's without its biases and answers along.
Leaves a checkpoint that configs/tiny/dual.py starts from, and metrics.jsonl beside it. SIGTERM ends
it after the step, with what was learnt so far.
"""

import argparse
import dataclasses
import json
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from arms import base_run
from flax import nnx

from mres_jax.config import apply_overrides
from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import pack
from mres_jax.data.types import Pack, Rung
from mres_jax.geometry import Size
from mres_jax.models.registry import LoadedModel, family_of, load_model, resolve, save_model
from mres_jax.models.tower import Visual
from mres_jax.models.vlm import PackedVLM
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.input.epochs import Epoch
from mres_jax.training.input.feed import Feed
from mres_jax.training.learner import Metrics, Share, Step, init_state
from mres_jax.training.losses import next_token_sums
from mres_jax.training.optimizer import make_optimizer
from mres_jax.training.setup import open_run

NATIVE = parse_policy("native")
TEXT = 24  # positions of a prompt of the teacher beside its visual tokens


class Lesson(NamedTuple):
    """A pack, and the visual tokens that are wanted for it.

    Attributes:
      pack: of the dual pathway.
      wanted: `float32 [p e]`, one per patch of the pack.
      mean: of wanted tokens, `[e]`.
      std: of them, `[e]`.
    """

    pack: Pack
    wanted: Any
    mean: Any
    std: Any

    @property
    def loss_mask(self) -> Any:
        """Tokens of the answers."""
        return self.pack.loss_mask


class Pupil(nnx.Module):
    """A model that is shown what another one sees.

    Its visual tokens are of mean 0 and deviation 1 while it learns, since those that are wanted
    have values of 40 and more, which no rate brings fresh weights to; `unscaled` ends that. Its
    loss is their squared distance, as a share of the variance of those that are wanted, and the
    cross-entropy of the answers.
    """

    def __init__(self, model: PackedVLM, answers: float):
        self.model, self.answers = model, answers

    def loss(self, lesson: Lesson, share: Share) -> tuple[jax.Array, Metrics]:
        model, packed = self.model, lesson.pack
        visual = model.encode(packed)
        seen = (packed.patch_segment_ids > 0)[:, None]
        off = visual.tokens - (lesson.wanted - lesson.mean) / lesson.std
        off = jnp.square(off).mean(where=seen)
        hidden = model.hidden(packed, Visual(visual.tokens * lesson.std + lesson.mean))
        sums = next_token_sums(model.logits, hidden, packed.targets, packed.loss_mask)
        told = share.token * sums.nll
        objective = off + self.answers * told
        metrics = {"unexplained": off, "loss": told, "accuracy": share.token * sums.right}
        return objective, metrics | {"objective": objective}


class Teacher:
    """mres-tiny, asked for the visual tokens of the squares on the canvases of a pack."""

    def __init__(self, loaded: LoadedModel, rung: Rung, first: Sequence[Pack]):
        self.loaded, (graphdef, self.state) = loaded, nnx.split(loaded.model)
        merged = loaded.spec.merge_size**2
        self.rung = Rung(
            max_patches=merged * rung.max_patches,
            max_tokens=rung.max_patches + TEXT * rung.max_views,
            max_views=rung.max_views,
            max_examples=rung.max_views,
        )
        self.encode = jax.jit(lambda s, p: nnx.merge(graphdef, s).encode(p).tokens)
        tokens = np.concatenate([self.wanted(each)[_seen(each)] for each in first])
        self.mean, self.std = tokens.mean(axis=0), tokens.std(axis=0)

    def lesson(self, packed: Pack) -> Lesson:
        """The pack with the teacher's visual tokens."""
        return Lesson(packed, self.wanted(packed), self.mean, self.std)

    def wanted(self, packed: Pack) -> np.ndarray:
        """Visual tokens of the canvases of a pack, in its order of views."""
        views: dict[int, np.ndarray] = {}
        for canvases in packed.canvases:
            for pixels, (height, width), view in zip(*map(np.asarray, canvases), strict=True):
                if view:
                    views[int(view)] = pixels[:height, :width]
        spec, tokenizer = self.loaded.spec, self.loaded.tokenizer
        examples = []
        for number in sorted(views):
            image = views[number]
            size = Size(*image.shape[:2])
            (view,) = NATIVE([size], "", spec)
            assert view.size == size, (view.size, size)  # the same pixels
            messages = prompt_messages("?", num_images=1)
            examples.append(assemble([image], [view], messages, spec, tokenizer))
        assert _seen(packed).sum() == sum(example.num_visual_tokens for example in examples)
        return np.asarray(self.encode(self.state, pack(examples, self.rung)))


def _seen(packed: Pack) -> np.ndarray:
    return np.asarray(packed.patch_segment_ids) > 0


def unscaled(model: PackedVLM, mean: np.ndarray, std: np.ndarray) -> PackedVLM:
    """A model that was taught tokens of mean 0 and deviation 1, giving those that were wanted."""
    last = model.projector.down
    last.kernel.set_value(last.kernel.get_value() * std)
    last.bias.set_value(last.bias.get_value() * std + mean)
    return model


def packs(plan: Callable[[int], Epoch]) -> Iterator[Pack]:
    """Of a run's data, without end."""
    with Feed(plan) as feed:
        for fed in feed:
            yield fed.pack


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arm", choices=("dual", "single"), default="dual")
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--answers", type=float, default=0.1, help="weight of the answers' loss")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/tiny-dual-taught"))
    parser.add_argument("changes", nargs="*", help="of the arm's run: model.vision_config.X=Y")
    args = parser.parse_args()
    run = dataclasses.replace(base_run("dual"), init=None)
    steps = {"num_steps": args.steps, "warmup_steps": min(30, args.steps)}
    schedule = dataclasses.replace(run.schedule, **steps)
    rate = dataclasses.replace(run.optimizer, learning_rate=args.learning_rate)
    opened, (rung,) = open_run(run), run.ladder
    pupil = apply_overrides(dataclasses.replace(base_run(args.arm), init=None), args.changes)
    learnt_as, config = open_run(pupil), pupil.model
    model = family_of(config).Model(config, rngs=nnx.Rngs(run.seed))
    lessons = packs(opened.plan)
    teacher = Teacher(load_model(resolve("mres-tiny")), rung, [next(lessons) for _ in range(8)])
    with_decoder_of(model, teacher.loaded.model)
    optimizer = make_optimizer(rate, schedule)
    graphdef, state = init_state(Pupil(model, args.answers), optimizer)
    step, stopped = Step(graphdef, optimizer), []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    log = args.out.with_suffix(".jsonl")
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for number, packed in zip(range(1, args.steps + 1), lessons, strict=False):
        lesson = teacher.lesson(packed)
        if args.arm == "single":  # the patches of both are of the small picture
            lesson = lesson._replace(pack=packed._replace(canvases=()))
        state, metrics = step(state, lesson)
        if number % 10 == 0 or number < 4:
            row = {name: round(float(value), 4) for name, value in metrics.items()}
            row = {"step": number, "seconds": round(time.monotonic() - start, 1), **row}
            with log.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
        if stopped:
            break
    taught = nnx.merge(graphdef, state.params, state.frozen).model
    taught = unscaled(taught, teacher.mean, teacher.std)
    learnt = LoadedModel(
        model=taught, spec=learnt_as.spec, tokenizer=learnt_as.tokenizer, step=int(state.step)
    )
    save_model(learnt, args.out)
    print(args.out)


if __name__ == "__main__":
    main()
