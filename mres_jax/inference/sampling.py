"""From scores to tokens, and the probability that each token was drawn with.

`processed_logits` is the one definition of the distribution that tokens come from. The sampler
draws from it and the learner of a policy gradient calls it again on its own scores, so that both
mean the same probability. Axes: m rows of a cache, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from mres_jax.protocols import Sampling


class Draw(NamedTuple):
    """One token per row, and what the distribution said about it."""

    tokens: Int[Array, " m"]
    logprobs: Float[Array, " m"]  # nats
    entropies: Float[Array, " m"]  # nats


class Knobs(NamedTuple):
    """The numbers of a `Sampling` as arrays, so that changing one compiles nothing again."""

    temperature: ArrayLike
    top_p: ArrayLike
    top_k: ArrayLike

    @classmethod
    def of(cls, sampling: Sampling) -> "Knobs":
        """The numbers of `sampling`; greedy decoding looks at the scores as they are."""
        temperature = max(sampling.temperature or 1.0, float(np.finfo(np.float32).tiny))
        return cls(np.float32(temperature), np.float32(sampling.top_p), np.int32(sampling.top_k))


def is_filtered(sampling: Sampling) -> bool:
    """Whether `top_p` or `top_k` removes tokens, which costs a sort of the vocabulary."""
    return sampling.temperature > 0 and (sampling.top_p < 1 or sampling.top_k > 0)


def forbidden_mask(reserved_token_ids: Sequence[int], vocab_size: int) -> np.ndarray:
    """Returns `bool [V]`, True where a token must never be drawn."""
    mask = np.zeros(vocab_size, bool)
    mask[[i for i in reserved_token_ids if i < vocab_size]] = True
    return mask


def processed_logits(
    logits: Float[Array, "*b V"], sampling: Sampling, forbidden: Bool[Array | np.ndarray, " V"]
) -> Float[Array, "*b V"]:
    """Scores whose softmax is the distribution that tokens are drawn from.

    Forbidden tokens are removed, the best of the others is shifted to 0, the scores are divided by
    the temperature, then `top_k` and last `top_p` remove tokens. Removed means `-inf`. Greedy
    decoding (`temperature=0`) takes the mode of the scores at temperature 1 without filters, and
    reports its probability there.

    `top_p` keeps the smallest set of most probable tokens that together have at least that
    probability; tokens that tie with the last kept one are kept as well, by `top_k` too.

    Args:
      logits: scores, any float type.
      sampling: how tokens are drawn.
      forbidden: True for tokens that must never be drawn; see `forbidden_mask`.

    Returns:
      float32, differentiable in the kept scores.

    Reference:
      Holtzman et al., 2020, "The Curious Case of Neural Text Degeneration", arXiv:1904.09751,
      section 3.1 (top-p); Fan et al., 2018, arXiv:1805.04833, section 4.1 (top-k).
    """
    return apply_knobs(logits, Knobs.of(sampling), forbidden, filtered=is_filtered(sampling))


def apply_knobs(
    logits: Float[Array, "*b V"],
    knobs: Knobs,
    forbidden: Bool[Array | np.ndarray, " V"],
    *,
    filtered: bool,
) -> Float[Array, "*b V"]:
    """`processed_logits` with the numbers as arrays; `filtered=False`: none of them filters."""
    temperature, top_p, top_k = (jnp.asarray(x) for x in knobs)
    forbidden = jnp.expand_dims(jnp.asarray(forbidden), tuple(range(logits.ndim - 1)))
    scores = jnp.where(forbidden, -jnp.inf, logits.astype(jnp.float32))
    best = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    scores = (scores - best) / temperature  # no temperature overflows when the best is 0
    if not filtered:
        return scores
    threshold = _threshold(jax.lax.stop_gradient(scores), top_p, top_k)
    return jnp.where(scores < threshold, -jnp.inf, scores)


def token_logprobs(
    processed: Float[Array, "*b V"], tokens: Int[Array, "*b"]
) -> tuple[Float[Array, "*b"], Float[Array, "*b"]]:
    """Log-probability of each token and entropy of its distribution, nats.

    Args:
      processed: from `processed_logits`.
      tokens: one per distribution; a removed one has `-inf`.
    """
    logprobs = jax.nn.log_softmax(processed, axis=-1)
    chosen = jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]
    finite = jnp.where(jnp.isneginf(logprobs), 0.0, logprobs)  # 0 * -inf has no place in a gradient
    return chosen, (jnp.exp(logprobs) * -finite).sum(axis=-1)


def draw_tokens(
    logits: Float[Array, "m V"],
    keys: Key[Array, " m"],
    knobs: Knobs,
    forbidden: Bool[Array | np.ndarray, " V"],
    *,
    greedy: bool,
    filtered: bool,
) -> Draw:
    """Draws one token per row, each with its own key; greedy decoding uses no key."""
    processed = apply_knobs(logits, knobs, forbidden, filtered=filtered)
    if greedy:
        tokens = jnp.argmax(processed, axis=-1)
    else:
        tokens = jax.vmap(jax.random.categorical)(keys, processed)
    tokens = tokens.astype(jnp.int32)
    return Draw(tokens, *token_logprobs(processed, tokens))


def request_words(request_id: str) -> tuple[int, int]:
    """Two 32-bit words of a request's name, the same on every machine and in every run."""
    digest = hashlib.sha256(request_id.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def row_keys(
    key: Key[Array, ""],
    words: UInt32[Array, "m 2"],
    samples: UInt32[Array, " m"],
) -> Key[Array, " m"]:
    """One key per row from (request, sample); where the row stands in a batch does not matter."""

    def fold(words, sample):
        row = jax.random.fold_in(jax.random.fold_in(key, words[0]), words[1])
        return jax.random.fold_in(row, sample)

    return jax.vmap(fold)(words, samples)


def step_keys(rows: Key[Array, " m"], step: Int[Array, ""]) -> Key[Array, " m"]:
    """The keys of one step of decoding."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(rows, step)


def _threshold(scores: Float[Array, "*b V"], top_p: Array, top_k: Array) -> Float[Array, "*b 1"]:
    """The smallest score that both filters keep."""
    ordered = jnp.sort(scores, axis=-1, descending=True)
    size = scores.shape[-1]
    last = jnp.where(top_k > 0, jnp.minimum(top_k, size), size) - 1
    by_rank = jnp.take(ordered, last, axis=-1)[..., None]
    probabilities = jax.nn.softmax(jnp.where(ordered < by_rank, -jnp.inf, ordered), axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = (before < top_p) | (top_p >= 1)  # rounding must not cut the tail when nothing is asked
    by_mass = jnp.where(kept, ordered, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.maximum(by_rank, by_mass)
