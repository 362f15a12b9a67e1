"""Which policies the demo compares, made to suit the model and the questions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from mres_jax.data.spec import ProcessorSpec
from mres_jax.evaluation.trials import NO_PICTURE
from mres_jax.geometry import Size
from mres_jax.resolution.cost import native_visual_tokens, visual_tokens
from mres_jax.resolution.policies import check_policy, parse_policy

SIDE = 256  # of the squashing policy, pixels
BUDGET = 256  # of the table, visual tokens
BUDGETS = (32, 64, 128, 256, 512)  # of the curve, `BUDGET` among them; native has 640


class Plan(NamedTuple):
    """Policies by the part they play; each is a policy string.

    Attributes:
      native: the picture as it is.
      fixed: its ratio kept, every picture at the mean cost of native.
      squashed: every picture made one square.
      budget: native, shrunk above `BUDGET` visual tokens.
      scale: half of each side.
      nothing: the question alone.
      curve: budgets, ascending.
    """

    native: str
    fixed: str
    squashed: str
    budget: str
    scale: str
    nothing: str
    curve: tuple[str, ...]

    @property
    def table(self) -> tuple[str, ...]:
        """Rows of the table."""
        return self[:-1]

    @property
    def everything(self) -> tuple[str, ...]:
        """Every policy once: rows of the table, then what only the curve needs."""
        return tuple(dict.fromkeys((*self.table, *self.curve)))

    @property
    def shrinking(self) -> tuple[str, ...]:
        """Those that keep the ratio and never enlarge: legibility is measured on them."""
        return (self.scale, *self.curve)


def make_plan(spec: ProcessorSpec, sizes: Sequence[Size]) -> Plan:
    """Returns the policies for questions about pictures of these sizes.

    Raises:
      PolicyError: one that the model cannot take.
    """
    most = math.isqrt(spec.max_pixels) // spec.stride
    side = max(1, min(round(SIDE / spec.stride), most)) * spec.stride
    plan = Plan(
        native="native",
        fixed=f"fixed,tokens={matching_tokens(spec, sizes)}",
        squashed=f"fixed:{side}",
        budget=f"budget:{BUDGET}",
        scale="scale:0.5",
        nothing=NO_PICTURE,
        curve=tuple(f"budget:{tokens}" for tokens in BUDGETS),
    )
    for policy in plan.everything:
        if policy != NO_PICTURE:
            check_policy(parse_policy(policy), spec)
    return plan


def matching_tokens(spec: ProcessorSpec, sizes: Sequence[Size]) -> int:
    """Returns N for which `fixed,tokens=N` spends at least what native does, and hardly more."""
    wanted = native_visual_tokens(sizes, spec)
    low, high = 1, spec.max_pixels // spec.stride**2  # low may be too few, high is taken if all are
    while low < high:
        middle = (low + high) // 2
        views = parse_policy(f"fixed,tokens={middle}")(sizes, "", spec)
        low, high = (low, middle) if visual_tokens(views, spec) >= wanted else (middle + 1, high)
    return low
