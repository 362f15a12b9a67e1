"""The table of policies and the way in: `parse_policy("budget:256")`."""

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError, suggest
from mres_jax.resolution.policy import Policy, split
from mres_jax.resolution.tiles import Tiles
from mres_jax.resolution.uniform import Budget, Fixed, Native, Scale

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (Native, Fixed, Tiles, Scale, Budget)
}


def parse_policy(text: str) -> Policy:
    """Returns the policy that a string names.

    Raises:
      PolicyError: an unknown name or option, or a value that cannot be.

    Example:
      >>> str(parse_policy("fixed:336, mode=pad"))
      'fixed:336,mode=pad'
    """
    name, value, options = split(text)
    if name not in POLICIES:
        raise PolicyError(
            f"policy: unknown policy {name!r}{suggest(name, POLICIES)}; have {', '.join(POLICIES)}."
        )
    return POLICIES[name].parse(value, options)


def check_policy(policy: Policy, spec: ProcessorSpec) -> None:
    """Raises `PolicyError` if the policy and the model cannot work together."""
    policy.check(spec)
