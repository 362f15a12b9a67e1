"""Whether a question is one that a small model was made for, and what to use when it is not.

A model that knows one narrow domain says so among the facts kept with it. A question counts as
outside when one of two things holds; both are plain and both can be wrong:

1. more than half of its words are not in the model's vocabulary (they are spelled out);
2. the mean log-probability of the answer's tokens is below `min_logprob`, the lowest 1 % among
   held-out questions inside the domain at native resolution. So a page that is shown too coarsely
   to be read gets the note too, and should.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from mres_jax.data.tokenizer import Tokenizer
from mres_jax.errors import CheckpointError
from mres_jax.protocols import Answer

FACT = "domain"  # among the facts kept with a model
MAX_UNKNOWN_WORDS = 0.5
REAL_MODELS = (
    "Qwen/Qwen2-VL-2B-Instruct (2.2 B parameters, 4.4 GB of memory in bfloat16)",
    "Qwen/Qwen2-VL-7B-Instruct (8.3 B, 16.6 GB)",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Domain:
    """What a small model was made for.

    Attributes:
      name: of the model.
      knows: in a few words.
      min_logprob: nats per token; answers below it count as guessed.
    """

    name: str
    knows: str
    min_logprob: float

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Domain | None":
        """Reads `domain` of the facts kept with a model; None for a model without a narrow one.

        Raises:
          CheckpointError: it is not what it should be.
        """
        content = facts.get(FACT)
        if content is None:
            return None
        try:
            return cls(**content)
        except TypeError as error:
            raise CheckpointError(f"model: its {FACT!r} does not read: {error}.") from None

    def to_facts(self) -> dict[str, Any]:
        """Returns what is to be kept with the model."""
        return {FACT: dataclasses.asdict(self)}

    def note(self, question: str, answer: Answer, tokenizer: Tokenizer) -> str | None:
        """Returns a line for the reader when the question looks outside, or None."""
        reason = self._reason(question, answer, tokenizer)
        if reason is None:
            return None
        return (
            f"{self.name} reads {self.knows}, and {reason}; do not trust the answer. Real models: "
            f"{', '.join(REAL_MODELS)}; give one with --model."
        )

    def _reason(self, question: str, answer: Answer, tokenizer: Tokenizer) -> str | None:
        share = unknown_words(question, tokenizer)
        if share > MAX_UNKNOWN_WORDS:
            return f"{share:.0%} of the question's words are unknown to it"
        logprob = mean_logprob(answer)
        if logprob < self.min_logprob:
            return (
                f"it is unsure here: {logprob:.2f} nats per token, inside its domain at full size "
                f"seldom below {self.min_logprob:.2f}"
            )
        return None


def mean_logprob(answer: Answer) -> float:
    """Returns the mean log-probability of an answer's tokens, nats."""
    return sum(answer.logprobs) / max(len(answer.logprobs), 1)


def unknown_words(text: str, tokenizer: Tokenizer) -> float:
    """Returns the share of words (two letters or more) that are no single token, 0 to 1."""
    words = re.findall(r"[^\W\d_]{2,}", text)
    spelled = [w for w in words if len(tokenizer.encode_text(f" {w}")) > 1]
    return len(spelled) / len(words) if words else 0.0
