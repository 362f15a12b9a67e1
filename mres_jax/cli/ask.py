"""`mres ask`: one question, one answer with its cost per policy."""

import argparse
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mres_jax.cli._report import (
    find_model,
    open_model,
    open_server,
    progress,
    refuse_processor,
    versions,
)
from mres_jax.cli._table import print_table
from mres_jax.config import is_server
from mres_jax.data.images import decode_image
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling, is_clip
from mres_jax.errors import ConfigError, PromptError
from mres_jax.files import check_directory, write_together
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.domain import Domain
from mres_jax.inference.handle import to_item
from mres_jax.inference.remote import RemoteAnswerer
from mres_jax.inference.show import show_views
from mres_jax.inference.view_json import view_to_json
from mres_jax.protocols import Answer, Item, Request, Sampling
from mres_jax.resolution.clips import video_of
from mres_jax.resolution.policies import check_policy, parse_policy

WARM_SECONDS = 30.0  # an answer that took less is given a second time, compiled, to be timed


def run(args: argparse.Namespace) -> int:
    """Answers, prints, saves."""
    sampling = _sampling(args)
    question = place_pictures(args.question, len(args.images))
    policies = [str(parse_policy(text)) for text in args.policy or ()]
    if args.stream and (args.json or len(policies) > 1):
        raise ConfigError("ask: --stream writes one answer as it grows: one policy, no --json.")
    if args.save:
        check_directory(args.save)  # before minutes of work
    pictures = {path: decode_image(path) for path in args.images if not is_clip(path)}
    FrameSampling.of(None, fps=args.fps, max_frames=args.max_frames)  # refuses early
    asked = _open(args)
    images = [
        pictures[path] if path in pictures else _read_clip(path, asked.spec, args)
        for path in args.images
    ]
    policies = policies or [asked.answerer.policy]
    for policy in policies:
        check_policy(parse_policy(policy), asked.spec)
    ask = functools.partial(_stream if args.stream else _answer, asked, images, question)
    answers = [ask(policy, sampling, args.seed) for policy in policies]
    rows = [
        to_json(answer, policy, asked, question)
        for policy, answer in zip(policies, answers, strict=True)
    ]
    if args.save:
        _save(args.save, images, answers, policies, asked.spec)
    if args.json:
        _print_json(rows)
    else:
        _print_rows(rows, question)
    notes = [row["note"] for row in rows if "note" in row]
    if notes:
        progress(f"note: {notes[0]}")  # the others say the same in other numbers
    return 0


class Asked(NamedTuple):
    """Whoever answers.

    Attributes:
      name: as it was asked for.
      answerer: a model on this machine or a server.
      note: says of a question and its answer what a reader should know, or None.
    """

    name: str
    answerer: LocalAnswerer | RemoteAnswerer
    note: Callable[[str, Answer], str | None]

    @property
    def spec(self) -> ProcessorSpec:
        """How pictures become its input."""
        return self.answerer.spec


def _open(args: argparse.Namespace) -> Asked:
    model, weights = args.model, args.weights
    if is_server(model):
        if weights is not None:
            raise ConfigError(f"ask: --weights {weights} is of models here; {model} is a server.")
        server = open_server(model, processor=args.processor)
        return Asked(model, server, lambda question, answer: None)
    refuse_processor("ask", args.processor)
    vlm = open_model(find_model(model), dtype=args.dtype, weights=weights)
    domain = Domain.of(vlm.facts)

    def note(question: str, answer: Answer) -> str | None:
        return domain and domain.note(question, answer, vlm.tokenizer)

    return Asked(vlm.name, vlm.answerer, note)


def _read_clip(path: str, spec: ProcessorSpec, args: argparse.Namespace) -> Item:
    video_of(spec)  # said before minutes of decoding
    return to_item(path, spec, name=path, fps=args.fps, max_frames=args.max_frames)


def _sampling(args: argparse.Namespace) -> Sampling:
    try:
        return Sampling(
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            max_new_tokens=args.max_new_tokens,
            stop=tuple(args.stop),
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
    asked: Asked,
    images: Sequence[Item],
    question: str,
    policy: str,
    sampling: Sampling,
    seed: int,
) -> Answer:
    """One answer, timed without compilation where that does not take long."""
    request = Request(id="ask", images=images, question=question, policy=policy)
    ask = lambda: asked.answerer.answer([request], sampling=sampling, seed=seed)[0][0]  # noqa: E731
    first = ask()
    if isinstance(asked.answerer, RemoteAnswerer):
        return first
    if sum(first.cost.ms.values()) < 1e3 * WARM_SECONDS:
        return ask()
    progress(f"{policy}: ms includes compilation")
    return first


def _stream(
    asked: Asked,
    images: Sequence[Item],
    question: str,
    policy: str,
    sampling: Sampling,
    seed: int,
) -> Answer:
    """One answer, written while it grows; its time holds compilation."""

    def write(request: int, sample: int, text: str) -> bool:
        shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)
        print(shown, end="", flush=True)
        return False

    if isinstance(asked.answerer, RemoteAnswerer):
        raise ConfigError("ask: --stream needs a model on this machine, not a server.")
    request = Request(id="ask", images=images, question=question, policy=policy)
    ((answer,),) = asked.answerer.answer([request], sampling=sampling, seed=seed, listen=write)
    print()
    return answer


def to_json(answer: Answer, policy: str, asked: Asked, question: str) -> dict[str, Any]:
    """Returns an answer as the object that `--json` prints."""
    cost = answer.cost
    notes = [note for note in (answer.note, asked.note(question, answer)) if note]
    passes = [_pass_to_json(each, asked.spec) for each in answer.passes]
    return {
        "answer": answer.text.strip(),
        "model": asked.name,
        "policy": policy,
        "views": [view_to_json(view, asked.spec) for view in answer.views],
        "visual_tokens": cost.visual_tokens,
        "text_tokens": cost.text_tokens,
        "retention_ratio": round(cost.retention_ratio, 6),
        "flops": cost.flops,
        "ms": {name: round(value, 3) for name, value in cost.ms.items()},
        "finish_reason": answer.finish_reason,
        "versions": versions(),
        **({"passes": passes} if passes else {}),
        **({"note": "; ".join(notes)} if notes else {}),
    }


def _pass_to_json(answer: Answer, spec: ProcessorSpec) -> dict[str, Any]:
    """One pass of several: what it saw, said and cost."""
    return {
        "answer": answer.text.strip(),
        "views": [view_to_json(view, spec) for view in answer.views],
        "visual_tokens": answer.cost.visual_tokens,
        "text_tokens": answer.cost.text_tokens,
        "flops": answer.cost.flops,
    }


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
            _sizes(row) or "no picture",
        )
        for row in rows
    ]
    print_table(headers, cells, title=question)


def _sizes(row: dict[str, Any]) -> str:
    """Sizes of the views, width first; views of a clip of one size stand together."""
    texts = []
    for is_clip_view, views in itertools.groupby(row["views"], lambda view: "frames" in view):
        sizes = [f"{view['size_px'][1]} x {view['size_px'][0]}" for view in views]
        if not is_clip_view:
            texts += sizes
            continue
        for size, same in itertools.groupby(sizes):
            texts.append(f"{len(list(same))} of {size}")
    return ", ".join(texts)


def _save(
    directory: str,
    images: Sequence[Item],
    answers: Sequence[Answer],
    policies: Sequence[str],
    spec: ProcessorSpec,
) -> None:
    files: dict[str, bytes] = {}
    for policy, answer in zip(policies, answers, strict=True):
        passes = answer.passes or (answer,)
        for number, each in enumerate(passes, start=1):
            name = policy if len(passes) == 1 else f"{policy}-pass{number}"
            files |= show_views(images, each.views, spec, name=name)
    paths = write_together(directory, files)
    progress(f"wrote {len(paths)} pictures to {directory}")
