"""The entry point of lmms-eval's models, and the class that it leads to.

Both are made when the harness asks: without lmms-eval this file can be imported, and does nothing.

Reference:
  lmms-eval 0.7.3: models/registry_v2.py (`ModelManifest`, group `lmms_eval.models`), api/model.py
  (`lmms`), api/instance.py (`GenerationResult`, `TokenCounts`).
"""

import functools
import importlib
from collections.abc import Sequence
from typing import Any

from mres_jax.errors import MresError
from mres_jax.harness.model import Generated, HarnessModel, Instance

MODEL = "mres_jax"
CLASS = "MResChat"


def manifest() -> Any:
    """Returns what lmms-eval's registry keeps of this package: name and place of its chat model."""
    registry = importlib.import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id=MODEL, chat_class_path=f"{__name__}.{CLASS}")


def __getattr__(name: str) -> Any:
    if name == CLASS:
        return _chat_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _chat_class() -> type:
    """The model of the harness; asked for by name, once lmms-eval is there."""
    base = importlib.import_module("lmms_eval.api.model").lmms
    results = importlib.import_module("lmms_eval.api.instance")

    class Counts(results.TokenCounts):
        """Token counts that log what was looked at beside them."""

        facts: dict[str, Any]

        def to_dict(self) -> dict[str, Any]:
            return super().to_dict() | self.facts

    def counted(one: Generated) -> Any:
        counts = Counts(input_tokens=one.num_input, output_tokens=one.num_output)
        counts.facts = one.facts
        return results.GenerationResult(text=one.text, token_counts=counts)

    class MResChat(HarnessModel, base):
        """A model of mres_jax in lmms-eval."""

        is_simple = False

        def __init__(self, **options: Any):
            base.__init__(self)
            HarnessModel.__init__(self, **options)

        def generate_until(self, requests: Sequence[Instance]) -> list[Any]:
            return [counted(one) for one in self.generate(requests)]

        def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[Any]:
            raise _cannot("asks in several rounds", requests)

        def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
            raise _cannot("weighs given answers (loglikelihood)", requests)

    return MResChat


def _cannot(what: str, requests: Sequence[Instance]) -> MresError:
    tasks = sorted({str(getattr(request, "task_name", "?")) for request in requests})
    return MresError(
        f"lmms-eval: {', '.join(tasks)} {what}, which mres_jax cannot do here; it answers tasks of "
        "output_type generate_until."
    )
