"""`mres ask`: one question, one answer with its cost per policy."""

import argparse
import functools
import itertools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mres_jax.cli._report import (
    find_model,
    of_models_here,
    open_model,
    open_server,
    progress,
    refuse_options,
    versions,
)
from mres_jax.cli._table import print_table
from mres_jax.config import is_server
from mres_jax.data.images import decode_image
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.video import FrameSampling, is_clip
from mres_jax.errors import ConfigError, PolicyError, PromptError
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

_MARKS = ("<image>", "<video>")  # of a picture, of a clip
_MARK = re.compile("|".join(_MARKS))
WARM_SECONDS = 30.0  # an answer that took less is given a second time, compiled, to be timed


def run(args: argparse.Namespace) -> int:
    """Answers, prints, saves."""
    sampling = _sampling(args)
    are_clips = [is_clip(path) for path in args.images]
    question = place_pictures(args.question, are_clips)
    policies = [str(parse_policy(text)) for text in args.policy or ()]
    if args.stream and (args.json or len(policies) > 1):
        raise ConfigError("ask: --stream writes one answer as it grows: one policy, no --json.")
    if args.save:
        check_directory(args.save)  # before minutes of work
    _check_clip_options(args, has_clip=any(are_clips))
    kinds = zip(args.images, are_clips, strict=True)
    pictures = {path: decode_image(path) for path, moves in kinds if not moves}
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
    notes = {row["note"]: row["policy"] for row in reversed(rows) if "note" in row}
    for note, policy in reversed(notes.items()):
        progress(f"note: {note}" if len(rows) == 1 else f"note: {policy}: {note}")
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
    model, here = args.model, of_models_here(args)
    if is_server(model):
        refuse_options("ask", model, **here)
        server = open_server(model, processor=args.processor, timeout=args.timeout)
        return Asked(model, server, lambda question, answer: None)
    refuse_options("ask", model, processor=args.processor, timeout=args.timeout)
    vlm = open_model(find_model(model), **here)
    domain = Domain.of(vlm.facts)

    def note(question: str, answer: Answer) -> str | None:
        return domain and domain.note(question, answer, vlm.tokenizer)

    return Asked(vlm.name, vlm.answerer, note)


def _read_clip(path: str, spec: ProcessorSpec, args: argparse.Namespace) -> Item:
    try:
        video_of(spec)  # said before minutes of decoding
    except PolicyError as error:
        raise PolicyError(f"ask: {path}: {error}") from None
    return to_item(path, spec, name=path, fps=args.fps, max_frames=args.max_frames)


def _sampling(args: argparse.Namespace) -> Sampling:
    try:
        sampling = Sampling(
            temperature=args.temperature,
            top_p=args.top_p,
            top_k=args.top_k,
            max_new_tokens=args.max_new_tokens,
            stop=tuple(args.stop),
        )
    except ValueError as error:
        raise ConfigError(f"ask: {error}") from None
    for option, value, default in (("top-p", args.top_p, 1.0), ("top-k", args.top_k, 0)):
        if value != default and not args.temperature:
            raise ConfigError(
                f"ask: --{option} {value} does nothing at temperature 0, which takes the likeliest "
                "token. Give a --temperature too, or leave it out."
            )
    return sampling


def _check_clip_options(args: argparse.Namespace, *, has_clip: bool) -> None:
    """Refuses a way to look at clips that cannot be, or that there is no clip for."""
    FrameSampling.of(None, fps=args.fps, max_frames=args.max_frames)
    given = {"--fps": args.fps, "--max-frames": args.max_frames}
    for option, value in given.items():
        if value is not None and not has_clip:
            raise ConfigError(
                f"ask: {option} {value} is of videos and folders of frames, and none is given. "
                "Leave it out."
            )


def place_pictures(question: str, are_clips: Sequence[bool]) -> str:
    """Returns the question without the marks that a shell user may bring from elsewhere.

    `<image>` is a picture and `<video>` a clip; where there is no picture, `<image>` may stand for
    clips, as in rows.

    Args:
      question: of the command.
      are_clips: which of the items before it are.

    Raises:
      PromptError: more or fewer marks than pictures and clips, marks in another order than theirs,
        or such as are not in front.
    """
    marks = _MARK.findall(question)
    if not marks:
        return question
    kinds = [_MARKS[moves] for moves in are_clips]
    stands_for_clips = all(are_clips) and _MARKS[True] not in marks
    meant = [_MARKS[True]] * len(marks) if stands_for_clips else marks
    if sorted(meant) != sorted(kinds):
        given = _counted(marks, (("<image>", "<image>"), ("<video>", "<video>")))
        have = _counted(kinds, (("<image>", "picture"), ("<video>", "clip")), plural="s")
        raise PromptError(
            f"ask: {given} placeholders in the question for {have or '0 pictures'}. Give as many, "
            "or none: pictures and clips stand before the question by themselves."
        )
    if meant != kinds:
        raise PromptError(
            f"ask: the question has {', '.join(marks)}, the command its pictures and clips in "
            "another order. Name them in the order of the question, or leave the marks out."
        )
    if not "".join(question.split()).startswith("".join(marks)):
        raise PromptError(
            f"ask: {marks[-1]} stands inside the question; pictures and clips stand before it. "
            f"Leave {marks[-1]} out."
        )
    return _MARK.sub("", question).lstrip()


def _counted(found: Sequence[str], names: Sequence[tuple[str, str]], *, plural: str = "") -> str:
    """How many there are of each, in words."""
    counts = [(found.count(each), name) for each, name in names]
    return " and ".join(f"{n} {name}{'' if n == 1 else plural}" for n, name in counts if n)


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
    progress(f"{policy}: ms includes compilation")
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
