"""Pictures, views and turns -> one `Example`: here alone tokens, slots and positions are made.

Axes: t decoder positions, p patches, r values of a patch row.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mres_jax.data._pixels import Pixels
from mres_jax.data.conversations import Message, Piece, tokenize_messages
from mres_jax.data.patches import patchify
from mres_jax.data.positions import rotary_positions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.taps import position_taps
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import Example, ExampleSize
from mres_jax.data.views import render_view
from mres_jax.data.windows import window_layout
from mres_jax.errors import PromptError
from mres_jax.geometry import Grid, View


def assemble(
    images: Sequence[Pixels],
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
      images: upright RGB pictures, of `decode_image` or `decode_pillow`.
      views: what is looked at; the views of one picture stand together where it is placed.
      messages: the turns; their pictures are indices into `images`.
      spec: of the model.
      tokenizer: of the model.
      generation_prompt: end with the opening of an assistant turn.
      label_mask: which tokens are to be predicted, see `tokenize_messages`.
      patch_labels: `int32 [p]` by name, for auxiliary losses; rows follow `patches`.

    Raises:
      PromptError: an empty turn; a picture without a place, a view or neither; a view of a picture
        that is not there; a view that is not whole visual tokens.
    """
    _check_items(len(images), views, messages)
    pieces = tokenize_messages(
        messages,
        spec.template,
        tokenizer,
        generation_prompt=generation_prompt,
        label_mask=label_mask,
    )
    ordered = _prompt_order(views, pieces)
    runs = list(_runs(ordered, pieces, spec, tokenizer))
    grids = [content for content, _ in runs if isinstance(content, Grid)]
    rows = [
        patchify(
            render_view(images[view.item], view),
            patch_size=spec.patch_size,
            merge_size=spec.merge_size,
        )
        for view in ordered
    ]
    patches = [np.zeros((0, spec.patch_row_size), np.uint8), *(patches for patches, _ in rows)]
    positions = [np.zeros((0, 2), np.int32), *(positions for _, positions in rows)]
    tokens, slots, mask = _sequence(runs, spec)
    example = Example(
        tokens=tokens,
        slots=slots,
        positions=rotary_positions(
            spec.position_rule,
            [run if isinstance(run, Grid) else len(run) for run, _ in runs],
            merge_size=spec.merge_size,
        ),
        loss_mask=mask,
        patches=np.concatenate(patches),
        patch_positions=np.concatenate(positions),
        grids=tuple(grids),
        views=tuple(ordered),
        patch_labels=dict(patch_labels or {}),
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
    frame = sum(
        len(tokenizer.encode_trusted(text))
        for text in (spec.template.image_open, spec.template.image_close)
        if text
    )
    visual = sum(spec.num_visual_tokens(grid) for grid in grids)
    return ExampleSize(
        num_patches=sum(grid.num_patches for grid in grids),
        num_tokens=text_tokens + visual + frame * len(grids),
        num_views=len(grids),
    )


_Content = tuple[int, ...] | Grid


def _runs(
    ordered: Sequence[View], pieces: Sequence[Piece], spec: ProcessorSpec, tokenizer: Tokenizer
) -> Iterator[tuple[_Content, tuple[bool, ...]]]:
    """Text as token ids with their mask, views as grids, in prompt order."""
    by_item: dict[int, list[View]] = {}
    for view in ordered:
        by_item.setdefault(view.item, []).append(view)
    frame = [
        tuple(tokenizer.encode_trusted(text)) if text else ()
        for text in (spec.template.image_open, spec.template.image_close)
    ]
    for piece in pieces:
        if piece.item is None:
            yield piece.token_ids, piece.mask
            continue
        for view in by_item[piece.item]:
            yield frame[0], (False,) * len(frame[0])
            yield _grid(view, spec), ()
            yield frame[1], (False,) * len(frame[1])


def _sequence(
    runs: Sequence[tuple[_Content, tuple[bool, ...]]], spec: ProcessorSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens: list[int] = []
    slots: list[int] = []
    mask: list[bool] = []
    visual = 0
    for content, flags in runs:
        if isinstance(content, Grid):
            count = spec.num_visual_tokens(content)
            tokens += [spec.image_token_id] * count
            slots += range(visual, visual + count)
            mask += [False] * count
            visual += count
        else:
            tokens += content
            slots += [-1] * len(content)
            mask += flags
    return np.array(tokens, np.int32), np.array(slots, np.int32), np.array(mask, bool)


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
