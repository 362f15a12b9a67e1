"""Resolutions to choose from: policies in ascending order, each with the side of its square."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.resolution.policies import check_policy, parse_policy
from mres_jax.resolution.uniform import Budget, Fixed

LEAST, LEAST_TOKENS, MOST_TOKENS = 3, 16, 2_048


class Candidate(NamedTuple):
    """One resolution.

    Attributes:
      policy: its string.
      side: of a square with its pixels, px: what formulas reckon in.
    """

    policy: str
    side: float


def candidate_of(policy: str, spec: ProcessorSpec) -> Candidate:
    """Returns a policy with its side.

    Raises:
      PolicyError: it has no size of its own, or the model cannot take it.
    """
    parsed = parse_policy(policy)
    check_policy(parsed, spec)
    if isinstance(parsed, Fixed) and parsed.side is not None:
        return Candidate(str(parsed), float(parsed.side))
    if isinstance(parsed, Fixed | Budget) and parsed.tokens is not None:
        return Candidate(str(parsed), math.sqrt(parsed.tokens) * spec.stride)
    raise PolicyError(
        f"resolution: {policy} is no candidate, for its size is each picture's own; give budget:N, "
        "fixed:S or fixed,tokens=N."
    )


def default_candidates(spec: ProcessorSpec) -> list[Candidate]:
    """Returns budgets from 16 visual tokens on, each twice the one before, as the model takes them.

    Raises:
      PolicyError: the model takes one size only.
    """
    if spec.image_size is not None:
        raise PolicyError(
            f"resolution: the model takes only {spec.image_size} x {spec.image_size} px, so there "
            'is nothing to choose. A LLaVA-1.5 takes any with "input_image_size": 0 in its '
            "config.json; give candidates such as -p fixed:224 -p fixed:336 -p fixed:448."
        )
    most = min(spec.max_pixels // spec.stride**2, MOST_TOKENS)
    doublings = max(0, int(math.log2(most / LEAST_TOKENS))) if most >= LEAST_TOKENS else -1
    texts = [f"budget:{LEAST_TOKENS * 2**i}" for i in range(doublings + 1)]
    return in_order([candidate_of(text, spec) for text in texts])


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Returns candidates from the smallest to the largest.

    Raises:
      PolicyError: fewer than three, or two of one size.
    """
    ordered = sorted(candidates, key=lambda candidate: candidate.side)
    if len({candidate.side for candidate in ordered}) < max(LEAST, len(ordered)):
        raise PolicyError(
            f"resolution: candidates {', '.join(c.policy for c in ordered)}; at least {LEAST} of "
            "different sizes are needed for a variance over them."
        )
    return ordered
