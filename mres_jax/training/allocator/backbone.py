"""What a backbone learns from rollouts: its own tokens with their advantages.

The learner repeats the prompt of every rollout and scores the tokens by the distribution that they
were drawn from: temperature, filters and forbidden tokens included. Axes: t packed positions,
c positions of a chunk, e text width, V vocabulary.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from mres_jax.data.assemble import with_answer
from mres_jax.data.packing import check_fits, pack
from mres_jax.data.types import Example, ExampleSize, Kind, Pack, Rung
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.ladder import Ladders
from mres_jax.inference.sampling import (
    Knobs,
    apply_knobs,
    forbidden_mask,
    is_filtered,
    token_logprobs,
)
from mres_jax.models.vlm import PackedVLM
from mres_jax.nn import any_pack
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.training.allocator.rollouts import Group
from mres_jax.training.learner import Deferred, Metrics, Share
from mres_jax.training.rl import PPO, ppo_objective


class TokenDecisions(NamedTuple):
    """Rollouts in one pack; a pytree.

    Attributes:
      pack: prompts with their answers, the loss mask on these.
      sampled_logprobs: of the target of each position as its sampler reported it, nats, `[t]`.
      advantages: of each, `[t]`.
    """

    pack: Pack
    sampled_logprobs: Any
    advantages: Any

    @property
    def loss_mask(self) -> Any:
        """Positions whose targets were decided."""
        return self.pack.loss_mask


class BackboneLearner(nnx.Module):
    """A model with the objective that it learns by."""

    def __init__(
        self,
        model: PackedVLM,
        *,
        ppo: PPO,
        sampling: Sampling,
        reserved_token_ids: Sequence[int],
        loss_chunk: int | None = None,
    ):
        self.model, self.ppo, self.sampling = model, ppo, sampling
        self.reserved_token_ids, self.loss_chunk = tuple(reserved_token_ids), loss_chunk

    def logprobs(self, batch: TokenDecisions) -> Float[Array, " t"]:
        """Log-probability of each decided token under the model as it is; 0 elsewhere."""
        model, pack = self.model, batch.pack
        size = model.config.text_config.vocab_size
        score = functools.partial(
            sampled_logprobs,
            model.logits,
            sampling=self.sampling,
            forbidden=forbidden_mask(self.reserved_token_ids, size),
        )
        hidden = model.hidden(pack)
        targets, mask = jnp.asarray(pack.targets), jnp.asarray(pack.loss_mask)
        return _in_chunks(score, hidden, targets, mask, self.loss_chunk)

    def loss(self, batch: TokenDecisions, share: Share) -> tuple[Float[Array, ""], Metrics]:
        """What the pack adds to the loss of its step, a mean over all tokens, and to metrics."""
        mask = jnp.asarray(batch.loss_mask)
        objective = ppo_objective(
            self.logprobs(batch), batch.sampled_logprobs, batch.advantages, mask, self.ppo
        )
        weight = share.token * mask.sum().astype(jnp.float32)
        metrics = {f"backbone_{k}": weight * v for k, v in objective._asdict().items()}
        return weight * objective.loss, metrics | {"objective": weight * objective.loss}


def sampled_logprobs(
    head: Callable[[Float[Array, "c e"]], Float[Array, "c V"]],
    hidden: Float[Array, "c e"],
    targets: Int[Array, " c"],
    *,
    sampling: Sampling,
    forbidden: Bool[np.ndarray, " V"],
) -> Float[Array, " c"]:
    """Returns the log-probability of tokens under the distribution that they were drawn from."""
    processed = apply_knobs(
        head(hidden), Knobs.of(sampling), forbidden, filtered=is_filtered(sampling)
    )
    return token_logprobs(processed, targets)[0]


class Rollout(NamedTuple):
    """One answer that is learnt from.

    Attributes:
      request: what was asked.
      answer: what was said.
      advantage: of it.
    """

    request: Request
    answer: Answer
    advantage: float


def pack_rollouts(
    groups: Sequence[Group],
    advantages: Sequence[np.ndarray],
    answerer: LocalAnswerer,
    *,
    ladder: Sequence[Rung] = (),
) -> list[Deferred]:
    """Returns the rollouts of some questions in packs, yet to be made.

    Pixels are resized when a pack is made: a rollout of 64 frames of 720p is 108 MB of patches.

    Args:
      groups: the questions.
      advantages: `[m n]` of each, of its rollouts.
      answerer: that gave the answers.
      ladder: rungs of the packs; the answerer's where there are none.

    Raises:
      PackingError: a rollout is larger than the top rung.
    """
    rollouts: list[Rollout] = []
    sizes: list[ExampleSize] = []
    for group, earned in zip(groups, advantages, strict=True):
        for each, some in zip(group.tries, earned, strict=True):
            prompt = answerer.size(each.request)
            for answer, advantage in zip(each.answers, some, strict=True):
                rollouts.append(Rollout(each.request, answer, float(advantage)))
                length = prompt.num_tokens + len(answer.token_ids)
                sizes.append(prompt._replace(num_tokens=length))
    ladders, packs = Ladders.of(ladder) if ladder else answerer.ladders, []
    for size in sizes:
        check_fits([size], ladders.largest(size))
    for plan in ladders.plan(sizes):
        some = [rollouts[i] for i in plan.indices]
        lengths = [sizes[i].num_tokens for i in plan.indices]
        has_clip = any(view.frames for rollout in some for view in rollout.request.views)
        packs.append(
            Deferred(
                loss_mask=_mask(some, lengths, plan.rung.max_tokens),
                kind=Kind(plan.rung, has_clip),
                make=functools.partial(_make_pack, some, plan.rung, answerer),
            )
        )
    return packs


def _make_pack(rollouts: Sequence[Rollout], rung: Rung, answerer: LocalAnswerer) -> TokenDecisions:
    prompts: dict[str, Example] = {}
    examples: list[Example] = []
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    for request, answer, advantage in rollouts:
        if request.id not in prompts:
            prompts[request.id] = answerer.prompt(request)
        examples.append(with_answer(prompts[request.id], answer.token_ids))
        columns.append(_columns(examples[-1], answer.logprobs, advantage))
    filled = [_filled([each[k] for each in columns], rung.max_tokens) for k in (0, 1)]
    return TokenDecisions(pack(examples, rung), *filled)


def _mask(
    rollouts: Sequence[Rollout], lengths: Sequence[int], width: int
) -> Bool[np.ndarray, " t"]:
    """The loss mask that the pack will have: at each position whether the next token was drawn."""
    mask, start = np.zeros(width, bool), 0
    for rollout, length in zip(rollouts, lengths, strict=True):
        end = start + length
        mask[end - len(rollout.answer.token_ids) - 1 : end - 1] = True
        start = end
    return mask


def _columns(
    example: Example, logprobs: Sequence[float], advantage: float
) -> tuple[np.ndarray, np.ndarray]:
    """What stands at each position: numbers of the token that follows it."""
    length, count = len(example.tokens), len(logprobs)
    sampled, advantages = np.zeros((2, length), np.float32)
    sampled[length - count - 1 : length - 1] = logprobs
    advantages[length - count - 1 : length - 1] = advantage
    return sampled, advantages


def _filled(parts: Sequence[np.ndarray], length: int) -> np.ndarray:
    whole = np.concatenate(parts)
    return np.pad(whole, (0, length - len(whole)))


def _in_chunks(
    score: Callable[[Array, Array], Array],
    hidden: Float[Array, "t e"],
    targets: Int[Array, " t"],
    mask: Bool[Array, " t"],
    chunk: int | None,
) -> Float[Array, " t"]:
    """Scores of the masked positions, so many at a time, made again in the backward pass."""
    length = targets.shape[0]
    order = jnp.argsort(~mask, stable=True)
    size = min(chunk or length, length)
    pad = -length % size

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def part(args: tuple[Array, Array, Array]) -> Array:
        hidden, targets, mask = args
        nothing = jnp.zeros(size)
        found = jax.lax.cond(any_pack(mask.any()), lambda: score(hidden, targets), lambda: nothing)
        return jnp.where(mask, found, 0.0)

    def rows(x: Array) -> Array:
        padded = jnp.pad(x[order], [(0, pad)] + [(0, 0)] * (x.ndim - 1))
        return padded.reshape(-1, size, *x.shape[1:])

    found = jax.lax.map(part, (rows(hidden), rows(targets), rows(mask))).reshape(-1)[:length]
    return jnp.zeros(length).at[order].set(found)
