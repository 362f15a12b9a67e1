"""What a resolution policy is, and the one grammar it is written in.

`name[:value][,key=value...]`: the same string on the command line, in run files, in RL, evaluation
and serving. A policy is a frozen dataclass; its fields are the options, one of them the value.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import PolicyError, suggest
from mres_jax.geometry import ClipSize, Extent, Size, View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy(abc.ABC):
    """Turns the items of one request into views; a model never knows which policy did.

    A subclass names itself, converts its options, says what models it cannot serve, and whether it
    knows what to do with clips (`takes_clips`). `str()` is
    the canonical spelling: parsing it gives an equal policy.
    """

    name: ClassVar[str]
    example: ClassVar[str]
    value: ClassVar[str | None] = None  # the field written behind the colon
    takes_clips: ClassVar[bool] = False

    def can_take_clips(self) -> bool:
        """Whether this very policy does."""
        return self.takes_clips

    def files(self) -> tuple[str, ...]:
        """Files and directories that decide beside the string."""
        return ()

    @abc.abstractmethod
    def __call__(self, sizes: Sequence[Extent], question: str, spec: ProcessorSpec) -> list[View]:
        """Returns the views of all items, in order.

        Args:
          sizes: of the upright pictures, pixels, and of clips, where it takes them.
          question: the user's text.
          spec: of the model.
        """

    def check(self, spec: ProcessorSpec) -> None:
        """Raises `PolicyError` if this policy can never serve the model."""
        if "image" not in spec.accepts:
            raise PolicyError(
                f"policy {self}: the model takes {', '.join(sorted(spec.accepts))}, not images."
            )
        if spec.image_size is not None:
            raise PolicyError(
                f"policy {self}: the model takes only {spec.image_size} x {spec.image_size} px. "
                f"Use fixed:{spec.image_size}{' or split' if spec.split else ''}."
            )

    @classmethod
    def parse(cls, value: str | None, options: Mapping[str, str]) -> "Policy":
        """Builds the policy from the parts of its string.

        Raises:
          PolicyError: an unknown option, or a value that cannot be.
        """
        fields = {field.name: field.type for field in dataclasses.fields(cls)}
        for key in options:
            if key not in fields or key == cls.value:
                others = [name for name in fields if name != cls.value]
                raise PolicyError(
                    f"policy {cls.name}: unknown option {key!r}{suggest(key, others)}; have "
                    f"{', '.join(others) or 'none'}."
                )
        texts = dict(options)
        if value is not None:
            if cls.value is None:
                raise PolicyError(f"policy {cls.name}: takes no value, got {value!r}.")
            texts[cls.value] = value
        needed = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING]
        if any(name not in texts for name in needed):
            raise PolicyError(
                f"policy {cls.name}: needs {', '.join(needed)}, for example {cls.example}."
            )
        return cls(**{key: cls._convert(key, fields[key], text) for key, text in texts.items()})

    @classmethod
    def _convert(cls, key: str, kind: Any, text: str) -> Any:
        kinds = {int: "a whole number", float: "a number"}
        for candidate, words in kinds.items():
            if kind is candidate or kind == candidate | None:
                try:
                    return candidate(text)
                except ValueError:
                    message = f"policy {cls.name}: {key}={text!r} is not {words}."
                    raise PolicyError(message) from None
        return text

    def __str__(self) -> str:
        head, options = self.name, []
        for field in dataclasses.fields(self):
            content = getattr(self, field.name)
            if field.name == self.value:
                head += "" if content is None else f":{_spell(content)}"
            elif content != field.default:
                options.append(f"{field.name}={_spell(content)}")
        return ",".join([head, *options])


def stills(policy: Policy, extents: Sequence[Extent]) -> list[Size]:
    """Returns the sizes of pictures; raises `PolicyError` where one of them is a clip."""
    sizes = [extent for extent in extents if not isinstance(extent, ClipSize)]
    if len(sizes) < len(extents):
        raise PolicyError(f"policy {policy}: takes pictures, no clips. Use native or budget.")
    return sizes


def split(text: str) -> tuple[str, str | None, dict[str, str]]:
    """Returns `(name, value, options)` of a policy string.

    Raises:
      PolicyError: an empty name, an option without `=`, an option given twice.

    Example:
      >>> split("fixed:336,mode=pad")
      ('fixed', '336', {'mode': 'pad'})
    """
    head, *rest = (part.strip() for part in text.split(","))
    name, colon, value = (part.strip() for part in head.partition(":"))
    if not name or (colon and not value):
        raise PolicyError(f"policy {text!r}: write name[:value][,key=value...].")
    options: dict[str, str] = {}
    for part in rest:
        key, equals, content = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not content:
            raise PolicyError(f"policy {text!r}: {part!r} is not key=value.")
        if key in options:
            raise PolicyError(f"policy {text!r}: {key} is given twice.")
        options[key] = content
    return name, value if colon else None, options


def _spell(content: Any) -> str:
    return repr(content) if isinstance(content, float) else str(content)
