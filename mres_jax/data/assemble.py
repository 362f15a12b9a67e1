"""Items, views and turns -> one `Example`: here alone tokens, slots and positions are made.

Axes: t decoder positions, p patches, r values of a patch row.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mres_jax.data._pixels import Pixels
from mres_jax.data.conversations import Message, Piece, tokenize_messages
from mres_jax.data.position_weights import position_weights
from mres_jax.data.positions import rotary_positions
from mres_jax.data.runs import (
    by_items,
    joined_clips,
    prompt_runs,
    sequence,
    texts_around,
    view_grid,
    visual_runs,
)
from mres_jax.data.shown import show
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import TEXT, Example, ExampleSize
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
        clips=joined_clips(views, spec.template),
    )
    ordered = _prompt_order(views, pieces)
    grids = tuple(view_grid(view, spec) for view in ordered)
    seconds = {i: item.frame_seconds for i, item in enumerate(images) if isinstance(item, Clip)}
    runs = list(prompt_runs(ordered, pieces, spec, tokenizer, seconds))
    shown = show(images, ordered, grids, spec)
    tokens, slots, mask = sequence(runs, spec)
    example = Example(
        tokens=tokens,
        slots=slots,
        positions=rotary_positions(
            spec.position_rule, [run.extent() for run in runs], merge_size=spec.merge_size
        ),
        loss_mask=mask,
        patches=shown.patches,
        patch_positions=shown.positions,
        grids=grids,
        views=tuple(ordered),
        patch_labels=dict(patch_labels or {}),
        still=shown.still,
        canvases=shown.canvases,
        num_encoded=sum(spec.num_visual_tokens(grid) for grid in grids),
        **_for_the_tower(grids, spec),
    )
    _check_labels(example)
    return example


def with_answer(prompt: Example, token_ids: Sequence[int]) -> Example:
    """Returns a prompt with the answer that a model gave to it, whose tokens are to be predicted.

    Args:
      prompt: assembled with `generation_prompt`.
      token_ids: as they were generated, what ended them included.
    """
    count = len(token_ids)
    places = prompt.next_position + np.arange(count, dtype=np.int32)
    return dataclasses.replace(
        prompt,
        tokens=np.concatenate([prompt.tokens, np.asarray(token_ids, np.int32)]),
        slots=np.concatenate([prompt.slots, np.full(count, TEXT, np.int32)]),
        positions=np.concatenate([prompt.positions, np.tile(places, (3, 1))], axis=1),
        loss_mask=np.arange(len(prompt.tokens) + count) >= len(prompt.tokens),
    )


def blank_example(spec: ProcessorSpec) -> Example:
    """Returns an example of nothing, which packs into padding alone."""
    nothing = np.zeros(0, np.int32)
    return Example(
        tokens=nothing,
        slots=nothing,
        positions=np.zeros((3, 0), np.int32),
        loss_mask=nothing.astype(bool),
        patches=show([], [], [], spec).patches,
        patch_positions=np.zeros((0, 2), np.int32),
        grids=(),
        views=(),
        **_for_the_tower((), spec),
    )


def _for_the_tower(grids: Sequence[Grid], spec: ProcessorSpec) -> dict[str, Any]:
    """What the tower asks the host for: none of it, or by field of the example."""
    arrays: dict[str, Any] = {}
    if spec.window_side is not None:
        side, merge_size = spec.window_side, spec.merge_size
        arrays["windows"] = window_layout(grids, side=side, merge_size=merge_size)
    if spec.positions is not None:
        weights = position_weights(grids, spec.positions, merge_size=spec.merge_size)
        arrays["position_weights"] = weights
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
        messages,
        spec.template,
        tokenizer,
        generation_prompt=generation_prompt,
        clips=joined_clips(views, spec.template),
    )
    text_tokens = sum(len(piece.token_ids) for piece in pieces)
    return measure_views(views, spec, tokenizer, text_tokens=text_tokens)


def measure_views(
    views: Sequence[View], spec: ProcessorSpec, tokenizer: Tokenizer, *, text_tokens: int = 0
) -> ExampleSize:
    """Returns the size of an example of which only views and text length are known."""
    grids = [view_grid(view, spec) for view in views]
    num_tokens = text_tokens
    for some in by_items(views).values():
        around = (text for text in texts_around(some, spec) if text)
        num_tokens += sum(len(tokenizer.encode_trusted(text)) for text in around)
        num_tokens += sum(run.num_tokens(spec.merge_size) for run in visual_runs(some, spec, 0.0))
    return ExampleSize(
        num_patches=sum(grid.num_patches for grid in grids),
        num_tokens=num_tokens,
        num_views=len(grids),
    )


def _prompt_order(views: Sequence[View], pieces: Sequence[Piece]) -> list[View]:
    place = {piece.item: i for i, piece in enumerate(pieces) if piece.item is not None}
    return sorted(views, key=lambda view: place[view.item])


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
