"""A bandit whose best allocation is known, to see where a reward leads a policy.

Each clip has a few frames, of which the first alone carries what is asked for; some clips are right
whatever is seen, some wrong whatever is seen. Noise is kept small, so that a minute shows where a
long training would end: allocations are spread evenly over each frame's distribution, and rollouts
evenly over the chance of a right answer.

Axes: b kinds of clips, m allocations of a clip, n rollouts of each, t frames, x points of a grid.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from mres_jax.resolution.allocator.beta import Beta, BetaLink, to_scale
from mres_jax.training.rl import (
    CAPO,
    PPO,
    capo_advantages,
    normalise_group,
    ppo_objective,
    proxy_cost,
)

REWARDS = ("capo", "direct_cost", "accuracy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bandit:
    """Chances of a right answer, and what is sought: accuracy less the price of its cost.

    The best is an interior scale: legible, and no larger.

    Attributes:
      num_frames: of a clip.
      legible: scale at which the first frame becomes readable.
      width: of that transition.
      guess: chance of a right answer without it.
      sure: chance with it.
      detail: what all pixels together add to that chance.
      easy: share of clips that are right at any scale.
      hard: share that are wrong at any scale.
      price: of one unit of cost.
      min_scale: of every frame.
      max_scale: of every frame.
    """

    num_frames: int = 1
    legible: float = 0.8
    width: float = 0.06
    guess: float = 0.05
    sure: float = 0.95
    detail: float = 0.02
    easy: float = 0.6
    hard: float = 0.0
    price: float = 0.2
    min_scale: float = 0.2
    max_scale: float = 1.8

    def cost(self, scales: Float[Array, "*b t"]) -> Float[Array, "*b"]:
        """Linear cost, 0 to 1."""
        mean = scales.mean(axis=-1)
        return proxy_cost(mean, min_scale=self.min_scale, max_scale=self.max_scale)

    def chance(self, scales: Float[Array, "*b t"]) -> Float[Array, "*b"]:
        """Of a right answer about a clip that is neither easy nor hard."""
        seen = jax.nn.sigmoid((scales[..., 0] - self.legible) / self.width)
        return self.guess + (self.sure - self.guess) * seen + self.detail * self.cost(scales)

    def accuracy(self, scales: Float[Array, "*b t"]) -> Float[Array, "*b"]:
        """Over all clips."""
        return self.easy + (1 - self.easy - self.hard) * self.chance(scales)

    def utility(self, scales: Float[Array, "*b t"]) -> Float[Array, "*b"]:
        """What is to be maximised."""
        return self.accuracy(scales) - self.price * self.cost(scales)

    def best(self) -> tuple[np.ndarray, float]:
        """The best allocation and its utility: frames that carry nothing get the least."""
        first = np.linspace(self.min_scale, self.max_scale, 1_601, dtype=np.float32)
        scales = np.full((len(first), self.num_frames), self.min_scale, np.float32)
        scales[:, 0] = first
        values = np.asarray(self.utility(jnp.asarray(scales)))
        return scales[values.argmax()], float(values.max())


class Outcome(NamedTuple):
    """Where a policy came to rest: means over the last tenth of its steps."""

    scales: np.ndarray
    accuracy: float
    cost: float
    utility: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learning:
    """How a policy learns.

    Attributes:
      reward: `capo`; `direct_cost`: accuracy less the price of its cost, normalised in its group;
        `accuracy`: the same without a price.
      capo: constants.
      steps: of Adam.
      rate: of learning.
      allocations: per clip.
      rollouts: per allocation.
    """

    reward: str = "capo"
    capo: CAPO = dataclasses.field(default_factory=CAPO)
    steps: int = 2_000
    rate: float = 0.1
    allocations: int = 32
    rollouts: int = 20


def learn(bandit: Bandit, learning: Learning, *, seed: int = 0) -> Outcome:
    """Trains a policy of one Beta per frame, and says where it came to rest."""
    means = _run(jax.random.key(seed), bandit, learning)
    last = means[-(learning.steps // 10) :].mean(axis=0)
    scales = to_scale(last, min_scale=bandit.min_scale, max_scale=bandit.max_scale)
    parts = bandit.accuracy(scales), bandit.cost(scales), bandit.utility(scales)
    return Outcome(np.asarray(scales), *(float(x) for x in parts))


@functools.partial(jax.jit, static_argnames=("bandit", "learning"))
def _run(key: Key[Array, ""], bandit: Bandit, learning: Learning) -> Float[Array, "steps t"]:
    """Mean actions of each frame after every step."""
    link, optimizer = BetaLink(), optax.adam(learning.rate)
    scores = jnp.full((bandit.num_frames, 2), link.score_of(2.0))
    shares = jnp.array([bandit.easy, 1 - bandit.easy - bandit.hard, bandit.hard])

    def step(carry, key):
        scores, state = carry
        logits = _spread(link(scores), key, learning.allocations)
        advantages = _advantages(jax.nn.sigmoid(logits), bandit, learning)
        each = jnp.broadcast_to((shares @ advantages)[:, None], logits.shape)
        sampled = _log_density(link(scores), logits)

        def loss(scores):
            found = _log_density(link(scores), logits)
            return ppo_objective(found, sampled, each, jnp.ones(found.shape, bool), PPO()).loss

        with jax.numpy_dtype_promotion("standard"):  # optax mixes types
            updates, state = optimizer.update(jax.grad(loss)(scores), state)
        scores = scores + updates
        return (scores, state), link(scores).mean()

    keys = jax.random.split(key, learning.steps)
    return jax.lax.scan(step, (scores, optimizer.init(scores)), keys)[1]


def _log_density(policy: Beta, logits: Float[Array, "m t"]) -> Float[Array, "m t"]:
    wide = Beta(*(jnp.broadcast_to(x[None], logits.shape) for x in policy))
    return wide.log_density(logits)


def _spread(policy: Beta, key: Key[Array, ""], count: int) -> Float[Array, "m t"]:
    """Logits of actions at even quantiles of each frame, in an order of each frame's own."""
    grid = jnp.linspace(-12.0, 12.0, 513)
    points = jnp.broadcast_to(grid[:, None], (513, policy.alpha.shape[0]))
    slope = jax.nn.log_sigmoid(points) + jax.nn.log_sigmoid(-points)  # of the action
    mass = jnp.cumsum(jnp.exp(_log_density(policy, points) + slope), axis=0)
    at = (jnp.arange(count, dtype=jnp.float32) + 0.5) / count

    def one(mass, key):
        return jax.random.permutation(key, jnp.interp(at, mass / mass[-1], grid))

    return jax.vmap(one)(mass.T, jax.random.split(key, mass.shape[1])).T


def _advantages(
    actions: Float[Array, "m t"], bandit: Bandit, learning: Learning
) -> Float[Array, "b m"]:
    """For clips that are right in any case, those in between, and those that are wrong."""
    scales = to_scale(actions, min_scale=bandit.min_scale, max_scale=bandit.max_scale)
    chance, cost = bandit.chance(scales), bandit.cost(scales)
    chances = jnp.stack([jnp.ones_like(chance), chance, jnp.zeros_like(chance)])
    costs = jnp.broadcast_to(cost[None], chances.shape)
    at = (jnp.arange(learning.rollouts, dtype=jnp.float32) + 0.5) / learning.rollouts
    right = at[None, None] < chances[..., None]
    accuracy = right.astype(jnp.float32)
    if learning.reward == "capo":
        return capo_advantages(accuracy, right, costs, learning.capo).allocations
    price = {"direct_cost": bandit.price, "accuracy": 0.0}[learning.reward]
    return normalise_group(accuracy.mean(axis=-1) - price * costs)
