"""The choice of a task on disk, and the policy `task,file=F` that follows it."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Extent, View
from mres_jax.resolution.policy import Policy

VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskPolicy(Policy):
    """The resolution that `mres resolution` chose for a task and wrote into a file."""

    name: ClassVar[str] = "task"
    example: ClassVar[str] = "task,file=choice.json"
    file: str

    def __post_init__(self):
        object.__setattr__(self, "_chosen", read_choice(self.file))

    @property
    def chosen(self) -> Policy:
        """The policy in the file."""
        return getattr(self, "_chosen")  # noqa: B009

    def can_take_clips(self) -> bool:
        """Whether the chosen policy does."""
        return self.chosen.can_take_clips()

    def files(self) -> tuple[str, ...]:
        """That of `mres resolution`."""
        return (self.file,)

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if the chosen policy cannot serve the model."""
        self.chosen.check(spec)

    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns the views of the chosen policy."""
        return self.chosen(sizes, question, spec)


def choice_file(policy: str, facts: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a file for `task,file=F`; `facts` say how it was chosen."""
    content = {"version": VERSION, "policy": policy, **facts}
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


def read_choice(file: str) -> Policy:
    """Returns the policy in a file of `mres resolution`.

    Raises:
      PolicyError: no such file, another content, or a policy that names a file itself.
    """
    from mres_jax.resolution.policies import parse_policy  # its table holds this policy

    content = read_choice_file(file)
    chosen = content.get("policy")
    if not isinstance(chosen, str) or chosen.strip().startswith("task"):
        raise PolicyError(f"policy task: {file} names no resolution: policy is {chosen!r}.")
    return parse_policy(chosen)


def read_choice_file(file: str) -> dict[str, Any]:
    """Returns all that `mres resolution` wrote into a file; raises as `read_choice`."""
    try:
        content = json.loads(pathlib.Path(file).read_text("utf-8"))
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise PolicyError(f"policy task: {file}: {reason}. mres resolution writes it.") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise PolicyError(f"policy task: {file} is no file of mres resolution, version {VERSION}.")
    return content
