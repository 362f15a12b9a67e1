"""Answers -> what OpenAI's clients read, and the cost beside it."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.geometry import View
from mres_jax.protocols import Answer

COST = "mres"  # the field of ours


class Head(NamedTuple):
    """What every part of one reply repeats."""

    id: str
    created: int  # seconds since 1970
    model: str


def completion(
    head: Head, answers: Sequence[Answer], cost: dict[str, Any], logprobs: Sequence[Any]
) -> dict[str, Any]:
    """Returns a whole reply."""
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": some,
            "finish_reason": answer.finish_reason,
        }
        for i, (answer, some) in enumerate(zip(answers, logprobs, strict=True))
    ]
    return {
        "object": "chat.completion",
        **head._asdict(),
        "choices": choices,
        "usage": usage(answers),
        COST: cost,
    }


def chunk(
    head: Head,
    sample: int,
    delta: dict[str, Any],
    *,
    finish_reason: str | None = None,
    logprobs: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """Returns a part of a streamed reply."""
    choice = {"index": sample, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return {"object": "chat.completion.chunk", **head._asdict(), "choices": [choice], **more}


def usage(answers: Sequence[Answer]) -> dict[str, int]:
    """Returns the counts of tokens; all answers share one prompt, which is counted once."""
    prompt = answers[0].cost.visual_tokens + answers[0].cost.text_tokens
    new = sum(answer.cost.new_tokens for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def cost_of(
    answers: Sequence[Answer], policy: str, spec: ProcessorSpec, *, flops: float
) -> dict[str, Any]:
    """Returns what was looked at and what it cost.

    `ms` is of the round it was answered in, `flops` of all answers together.
    """
    first = answers[0].cost
    return {
        **looked_at(answers[0].views, policy, spec),
        "visual_tokens": first.visual_tokens,
        "text_tokens": first.text_tokens,
        "retention_ratio": round(first.retention_ratio, 6),
        "flops": flops,
        "ms": {name: round(value, 3) for name, value in first.ms.items()},
        "coord_frame": answers[0].coord_frame,
    }


def looked_at(views: Iterable[View], policy: str, spec: ProcessorSpec) -> dict[str, Any]:
    """Returns the policy and the views that it chose."""
    return {
        "policy": policy,
        "views": [
            {
                "item": view.item,
                "crop_px": list(view.crop),
                "size_px": list(view.encoded_size),
                "tokens": spec.num_visual_tokens(spec.grid(view.encoded_size)),
            }
            for view in views
        ],
    }


def logprobs_of(answer: Answer, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the log-probability of each token under the distribution that it was drawn from."""
    entropies = answer.entropies or [None] * len(answer.token_ids)
    columns = zip(answer.token_ids, answer.logprobs, entropies, strict=True)
    content = []
    for token_id, logprob, entropy in columns:
        token = tokenizer.decode([token_id], skip_special=False)
        whole = "\ufffd" not in token
        content.append(
            {
                "token": token,
                "logprob": logprob,
                "bytes": list(token.encode()) if whole else None,
                "top_logprobs": [],
                "entropy": entropy,
            }
        )
    return {"content": content, "refusal": None}


def event(content: dict[str, Any]) -> bytes:
    """Returns one event of a stream."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


LAST_EVENT = b"data: [DONE]\n\n"
