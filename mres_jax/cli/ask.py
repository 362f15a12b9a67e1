"""`mres ask`: one question, one answer with its cost per policy."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mres_jax.cli._report import find_model, open_model, progress, versions
from mres_jax.cli._table import print_table
from mres_jax.data.images import decode_image
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import ConfigError, PromptError
from mres_jax.files import check_directory, write_together
from mres_jax.inference import VLM
from mres_jax.inference.domain import Domain
from mres_jax.inference.show import show_views
from mres_jax.protocols import Answer, Request, Sampling
from mres_jax.resolution.policies import check_policy, parse_policy

WARM_SECONDS = 30.0  # an answer that took less is given a second time, compiled, to be timed


def run(args: argparse.Namespace) -> int:
    """Answers, prints, saves."""
    sampling = _sampling(args)
    question = place_pictures(args.question, len(args.images))
    policies = [str(parse_policy(text)) for text in args.policy or ()]
    if args.save:
        check_directory(args.save)  # before minutes of work
    images = [decode_image(path) for path in args.images]
    place = find_model(args.model)
    vlm = open_model(place, dtype=args.dtype)
    policies = policies or [vlm.answerer.policy]
    for policy in policies:
        check_policy(parse_policy(policy), vlm.spec)
    answers = [_answer(vlm, images, question, policy, sampling, args.seed) for policy in policies]
    rows = [
        to_json(answer, policy, vlm, question)
        for policy, answer in zip(policies, answers, strict=True)
    ]
    if args.save:
        _save(args.save, images, answers, policies, vlm.spec)
    if args.json:
        _print_json(rows)
    else:
        _print_rows(rows, question)
    notes = [row["note"] for row in rows if "note" in row]
    if notes:
        progress(f"note: {notes[0]}")  # the others say the same in other numbers
    return 0


def _sampling(args: argparse.Namespace) -> Sampling:
    try:
        return Sampling(
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            max_new_tokens=args.max_new_tokens,
        )
    except ValueError as error:
        raise ConfigError(f"ask: {error}") from None


def place_pictures(question: str, num_images: int) -> str:
    """Returns the question without `<image>` marks, which a shell user may bring from elsewhere.

    Raises:
      PromptError: more or fewer marks than pictures, or marks that are not in front.
    """
    marks = question.count("<image>")
    if not marks:
        return question
    if marks != num_images:
        raise PromptError(
            f"ask: {marks} <image> placeholders in the question for {num_images} picture"
            f"{'' if num_images == 1 else 's'}. Give as many, or none: pictures stand before the "
            "question by themselves."
        )
    text = question.replace("<image>", "", marks).lstrip()
    if not question.replace("\n", "").replace(" ", "").startswith("<image>" * marks):
        raise PromptError(
            "ask: <image> stands inside the question; pictures stand before it. Leave <image> out."
        )
    return text


def _answer(
    vlm: VLM,
    images: Sequence[np.ndarray],
    question: str,
    policy: str,
    sampling: Sampling,
    seed: int,
) -> Answer:
    """One answer, timed without compilation where that does not take long."""
    request = Request(id="ask", images=images, question=question, policy=policy)
    ask = lambda: vlm.answerer.answer([request], sampling=sampling, seed=seed)[0][0]  # noqa: E731
    first = ask()
    if sum(first.cost.ms.values()) < 1e3 * WARM_SECONDS:
        return ask()
    progress(f"{policy}: ms includes compilation")
    return first


def to_json(answer: Answer, policy: str, vlm: VLM, question: str) -> dict[str, Any]:
    """Returns an answer as the object that `--json` prints."""
    spec, cost = vlm.spec, answer.cost
    domain = Domain.of(vlm.facts)
    note = domain and domain.note(question, answer, vlm.tokenizer)
    return {
        "answer": answer.text.strip(),
        "model": vlm.name,
        "policy": policy,
        "views": [
            {
                "item": view.item,
                "crop_px": list(view.crop),
                "size_px": list(view.encoded_size),
                "tokens": spec.num_visual_tokens(spec.grid(view.encoded_size)),
            }
            for view in answer.views
        ],
        "visual_tokens": cost.visual_tokens,
        "text_tokens": cost.text_tokens,
        "retention_ratio": round(cost.retention_ratio, 6),
        "flops": cost.flops,
        "ms": {name: round(value, 3) for name, value in cost.ms.items()},
        "finish_reason": answer.finish_reason,
        "versions": versions(),
    } | ({"note": note} if note else {})


def _print_json(rows: Sequence[dict[str, Any]]) -> None:
    content = rows[0] if len(rows) == 1 else {"rows": list(rows)}
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _print_rows(rows: Sequence[dict[str, Any]], question: str) -> None:
    headers = ("policy", "answer", "visual tokens", "retention ratio", "GFLOPs", "ms", "sizes, px")
    cells = [
        (
            row["policy"],
            row["answer"] or "(nothing)",
            str(row["visual_tokens"]),
            f"{row['retention_ratio']:.2f}",
            f"{row['flops'] / 1e9:.3g}",
            f"{sum(row['ms'].values()):.0f}",
            ", ".join(f"{width} x {height}" for height, width in _sizes(row)) or "no picture",
        )
        for row in rows
    ]
    print_table(headers, cells, title=question)


def _sizes(row: dict[str, Any]) -> list[list[int]]:
    return [view["size_px"] for view in row["views"]]


def _save(
    directory: str,
    images: Sequence[np.ndarray],
    answers: Sequence[Answer],
    policies: Sequence[str],
    spec: ProcessorSpec,
) -> None:
    files: dict[str, bytes] = {}
    for policy, answer in zip(policies, answers, strict=True):
        files |= show_views(images, answer.views, spec, name=policy)
    paths = write_together(directory, files)
    progress(f"wrote {len(paths)} pictures to {directory}")
