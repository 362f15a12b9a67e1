"""Items, views and turns -> one `Example`: here alone tokens, slots and positions are made.

Axes: t decoder positions, p patches, r values of a patch row.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data._pixels import Pixels
from mres_jax.data.conversations import Message, Piece, tokenize_messages
from mres_jax.data.patches import patchify, patchify_frames, widen
from mres_jax.data.positions import ClipGrids, rotary_positions
from mres_jax.data.spec import ChatTemplate, ProcessorSpec, VideoSpec
from mres_jax.data.taps import position_taps
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, ExampleSize
from mres_jax.data.views import render_view
from mres_jax.data.windows import window_layout
from mres_jax.errors import PromptError
from mres_jax.geometry import Grid, View
from mres_jax.protocols import Clip


def assemble(
    images: Sequence[Pixels | Clip],
    views: Sequence[View],
    messages: Sequence[Message],
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    *,
    generation_prompt: bool = False,
    label_mask: str | None = None,
    patch_labels: Mapping[str, np.ndarray] | None = None,
) -> Example:
    """Returns one conversation, ready to be packed.

    Args:
      images: upright RGB pictures, of `decode_image` or `decode_pillow`, and clips.
      views: what is looked at; the views of one picture or clip stand together where it is placed.
      messages: the turns; their pictures are indices into `images`.
      spec: of the model.
      tokenizer: of the model.
      generation_prompt: end with the opening of an assistant turn.
      label_mask: which tokens are to be predicted, see `tokenize_messages`.
      patch_labels: `int32 [p]` by name, for auxiliary losses; rows follow `patches`.

    Raises:
      PromptError: an empty turn; a picture without a place, a view or neither; a view of a picture
        that is not there; a view that is not whole visual tokens, or of a clip where there is a
        picture.
    """
    _check_items(len(images), views, messages)
    for view in views:
        _check_item(images[view.item], view, spec)
    pieces = tokenize_messages(
        messages,
        spec.template,
        tokenizer,
        generation_prompt=generation_prompt,
        label_mask=label_mask,
    )
    ordered = _prompt_order(views, pieces)
    grids = [_grid(view, spec) for view in ordered]
    seconds = {i: item.frame_seconds for i, item in enumerate(images) if isinstance(item, Clip)}
    runs = list(_runs(ordered, pieces, spec, tokenizer, seconds))
    patches, positions, still = _patches(images, ordered, spec)
    tokens, slots, mask = _sequence(runs, spec)
    example = Example(
        tokens=tokens,
        slots=slots,
        positions=rotary_positions(
            spec.position_rule,
            [len(run.tokens) if run.visual is None else run.visual for run in runs],
            merge_size=spec.merge_size,
        ),
        loss_mask=mask,
        patches=patches,
        patch_positions=positions,
        grids=tuple(grids),
        views=tuple(ordered),
        patch_labels=dict(patch_labels or {}),
        still=still,
        **_for_the_tower(grids, spec),
    )
    _check_labels(example)
    return example


def _for_the_tower(grids: Sequence[Grid], spec: ProcessorSpec) -> dict[str, Any]:
    """What the tower asks the host for: none of it, or by field of the example."""
    arrays: dict[str, Any] = {}
    if spec.window_side is not None:
        side, merge_size = spec.window_side, spec.merge_size
        arrays["windows"] = window_layout(grids, side=side, merge_size=merge_size)
    if spec.position_side is not None:
        side, merge_size = spec.position_side, spec.merge_size
        arrays["taps"] = position_taps(grids, side=side, merge_size=merge_size)
    return arrays


def measure(
    views: Sequence[View],
    messages: Sequence[Message],
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    *,
    generation_prompt: bool = False,
) -> ExampleSize:
    """Returns the size that `assemble` would give, without any pixels."""
    _check_items(None, views, messages)
    pieces = tokenize_messages(
        messages, spec.template, tokenizer, generation_prompt=generation_prompt
    )
    text_tokens = sum(len(piece.token_ids) for piece in pieces)
    return measure_views(views, spec, tokenizer, text_tokens=text_tokens)


def measure_views(
    views: Sequence[View], spec: ProcessorSpec, tokenizer: Tokenizer, *, text_tokens: int = 0
) -> ExampleSize:
    """Returns the size of an example of which only views and text length are known."""
    grids = [_grid(view, spec) for view in views]
    encoded = functools.cache(tokenizer.encode_trusted)
    visual = sum(spec.num_visual_tokens(grid) for grid in grids)
    around = sum(
        len(encoded(text)) for _, some in _items(views) for text in _around(some, spec.template)
    )
    return ExampleSize(
        num_patches=sum(grid.num_patches for grid in grids),
        num_tokens=text_tokens + visual + around,
        num_views=len(grids),
    )


class _Run(NamedTuple):
    """A part of a prompt: tokens with their mask, or views and what stands for them there."""

    tokens: tuple[int, ...] = ()
    mask: tuple[bool, ...] = ()
    visual: Grid | ClipGrids | None = None
    placeholder: int = -1


def _runs(
    ordered: Sequence[View],
    pieces: Sequence[Piece],
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    seconds: Mapping[int, float],
) -> Iterator[_Run]:
    """The parts in prompt order; `seconds` are those of a frame of each clip."""
    by_item = dict(_items(ordered))

    def text(words: str) -> Iterator[_Run]:
        tokens = tuple(tokenizer.encode_trusted(words)) if words else ()
        yield _Run(tokens, (False,) * len(tokens))

    for piece in pieces:
        if piece.item is None:
            yield _Run(piece.token_ids, piece.mask)
            continue
        views = by_item[piece.item]
        words = iter(_around(views, spec.template))
        yield from text(next(words))
        for visual in _visual(views, spec, seconds.get(piece.item, 0.0)):
            yield from text(next(words))
            yield visual
            yield from text(next(words))
        yield from text(next(words))


def _around(views: Sequence[View], template: ChatTemplate) -> Iterator[str]:
    """Texts about the views of one item: before all, before and behind each part, behind all."""
    is_clip = bool(views[0].frames)
    yield template.clip_open if is_clip else ""
    if is_clip and not template.parts_frames:
        yield from ("", "")
    else:
        for view in views:
            if is_clip:
                yield template.frame_open.format(seconds=view.time)
                yield template.frame_close
            else:
                yield from (template.image_open, template.image_close)
    yield template.clip_close if is_clip else ""


def _visual(views: Sequence[View], spec: ProcessorSpec, frame_seconds: float) -> Iterator[_Run]:
    """The parts of one item: each view alone, or a clip as one where no text parts its views."""
    grids = tuple(_grid(view, spec) for view in views)
    if not views[0].frames:
        yield from (_Run(visual=grid, placeholder=spec.image_token_id) for grid in grids)
        return
    video = _video(spec, views[0])
    if spec.template.parts_frames:
        yield from (_Run(visual=grid, placeholder=video.token_id) for grid in grids)
        return
    step = video.tokens_per_second * spec.temporal_patch_size * frame_seconds
    yield _Run(visual=ClipGrids(grids, step), placeholder=video.token_id)


def _sequence(
    runs: Sequence[_Run], spec: ProcessorSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens: list[int] = []
    slots: list[int] = []
    mask: list[bool] = []
    visual = 0
    for run in runs:
        if run.visual is not None:
            count = run.visual.num_visual_tokens(spec.merge_size)
            tokens += [run.placeholder] * count
            slots += range(visual, visual + count)
            mask += [False] * count
            visual += count
        else:
            tokens += run.tokens
            slots += [-1] * len(run.tokens)
            mask += run.mask
    return np.array(tokens, np.int32), np.array(slots, np.int32), np.array(mask, bool)


def _patches(
    images: Sequence[Pixels | Clip], ordered: Sequence[View], spec: ProcessorSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Rows, their places, and which are still where there is a clip."""
    sizes = {"patch_size": spec.patch_size, "merge_size": spec.merge_size}
    has_clip = any(view.frames for view in ordered)
    row_size = spec.patch_row_size * (spec.temporal_patch_size if has_clip else 1)
    rows, places, still = [np.zeros((0, row_size), np.uint8)], [np.zeros((0, 2), np.int32)], []
    for view in ordered:
        item = images[view.item]
        if isinstance(item, Clip):
            shown = {i: render_view(item.frames[i], view) for i in dict.fromkeys(view.frames)}
            patches, positions = patchify_frames([shown[i] for i in view.frames], **sizes)
        else:
            patches, positions = patchify(render_view(item, view), **sizes)
        rows.append(patches if patches.shape[1] == row_size else widen(patches, row_size))
        places.append(positions)
        still.append(np.full(len(patches), not view.frames))
    return np.concatenate(rows), np.concatenate(places), np.concatenate(still) if has_clip else None


def _items(views: Sequence[View]) -> Iterator[tuple[int, list[View]]]:
    """The views of each item together."""
    by_item: dict[int, list[View]] = {}
    for view in views:
        by_item.setdefault(view.item, []).append(view)
    yield from by_item.items()


def _video(spec: ProcessorSpec, view: View) -> VideoSpec:
    if spec.video is None:
        raise PromptError(f"assemble: item {view.item} is a clip, but the model takes none.")
    return spec.video


def _prompt_order(views: Sequence[View], pieces: Sequence[Piece]) -> list[View]:
    place = {piece.item: i for i, piece in enumerate(pieces) if piece.item is not None}
    return sorted(views, key=lambda view: place[view.item])


def _grid(view: View, spec: ProcessorSpec) -> Grid:
    size = view.encoded_size
    if size.height % spec.stride or size.width % spec.stride or min(size) < 1:
        raise PromptError(
            f"assemble: a view of picture {view.item} is {size.width} x {size.height} px, not "
            f"whole visual tokens of {spec.stride} px."
        )
    if view.kind not in spec.accepts:
        raise PromptError(
            f"assemble: picture {view.item} comes as a view of kind {view.kind}, but the model "
            f"takes {', '.join(sorted(spec.accepts))}. Choose another policy."
        )
    return view.grid(spec.patch_size)


def _check_item(item: Pixels | Clip, view: View, spec: ProcessorSpec) -> None:
    """Raises `PromptError` unless a view is of such an item, clip or picture."""
    if isinstance(item, Clip) != bool(view.frames):
        what, other = ("picture", "clip") if view.frames else ("clip", "picture")
        raise PromptError(
            f"assemble: item {view.item} is a {what}, but its view is of a {other}. Choose a "
            f"policy for {what}s."
        )
    if not isinstance(item, Clip):
        return
    if len(view.frames) != spec.temporal_patch_size:
        raise PromptError(
            f"assemble: a view of clip {view.item} has {len(view.frames)} frames, but the model "
            f"looks at {spec.temporal_patch_size} at a time."
        )
    if view.time is None:
        raise PromptError(f"assemble: a view of clip {view.item} does not say its time.")
    if not all(0 <= i < len(item.frames) for i in view.frames):
        raise PromptError(
            f"assemble: a view of clip {view.item} shows frames {view.frames}, but there are "
            f"{len(item.frames)} from 0."
        )


def _check_items(
    num_images: int | None, views: Sequence[View], messages: Sequence[Message]
) -> None:
    placed = {item for message in messages for item in message.items}
    viewed = {view.item for view in views}
    given = viewed if num_images is None else set(range(num_images))
    if len(placed) != len(given):
        raise PromptError(
            f"prompt: {len(placed)} picture placeholders, but {len(given)} pictures. Give as many "
            "placeholders as pictures."
        )
    for item in sorted(placed | viewed):
        if item not in given:
            raise PromptError(f"prompt: there is no picture {item}; have {len(given)} from 0.")
        if item not in viewed:
            raise PromptError(f"prompt: picture {item} has no view. The policy must give one.")
        if item not in placed:
            raise PromptError(f"prompt: picture {item} has a view, but no place in the prompt.")


def _check_labels(example: Example) -> None:
    for name, labels in example.patch_labels.items():
        if labels.shape != (len(example.patches),):
            raise PromptError(
                f"assemble: patch_labels[{name!r}] has shape {labels.shape}, but there are "
                f"{len(example.patches)} patches."
            )
