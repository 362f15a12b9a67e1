"""The table of policies and the way in: `parse_policy("budget:256")`."""

from collections.abc import Sequence

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError, suggest
from mres_jax.geometry import ClipSize, Extent
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.resolution.clips import video_of
from mres_jax.resolution.policy import Policy, split
from mres_jax.resolution.split import Split
from mres_jax.resolution.task_policy import TaskPolicy
from mres_jax.resolution.tiles import Tiles
from mres_jax.resolution.uniform import Budget, Fixed, Native, Scale
from mres_jax.resolution.zoom.policies import Window, Zoom

POLICIES: dict[str, type[Policy]] = {
    policy.name: policy
    for policy in (
        Native,
        Fixed,
        Tiles,
        Split,
        Scale,
        Budget,
        Window,
        Zoom,
        TaskPolicy,
        AllocatorPolicy,
    )
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


def check_extents(policy: Policy, extents: Sequence[Extent], spec: ProcessorSpec) -> None:
    """Raises `PolicyError` if there is a clip among them, and policy or model takes none."""
    if not any(isinstance(extent, ClipSize) for extent in extents):
        return
    video_of(spec)
    if not policy.can_take_clips():
        takers = [name for name, kind in POLICIES.items() if kind.takes_clips]
        raise PolicyError(f"policy {policy}: takes pictures, no clips. Use {', '.join(takers)}.")
