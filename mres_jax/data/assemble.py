"""Pictures, views and turns -> one `Example`: here alone tokens, slots and positions are made.

Axes: t decoder positions, p patches, r values of a patch row.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data._pixels import Pixels
from mres_jax.data.conversations import Message, Piece, tokenize_messages
from mres_jax.data.low_resolution import low_resolution_rows
from mres_jax.data.patch_arrays import patch_arrays
from mres_jax.data.patches import block_positions, patchify
from mres_jax.data.positions import rotary_positions
from mres_jax.data.spec import ProcessorSpec
from mres_jax.data.taps import position_taps
from mres_jax.data.tiles import TileLayout, tile_layout
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import TEXT, Example, ExampleSize
from mres_jax.data.views import cut_window, render_view
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
    grids = tuple(_grid(view, spec) for view in ordered)
    runs = list(_runs(ordered, pieces, spec, tokenizer))
    shown = _show(images, ordered, grids, spec)
    tokens, slots, mask = _sequence(runs, spec)
    example = Example(
        tokens=tokens,
        slots=slots,
        positions=rotary_positions(
            spec.position_rule,
            [content if isinstance(content, Grid) else len(content) for content, _ in runs],
            merge_size=spec.merge_size,
        ),
        loss_mask=mask,
        patches=shown.patches,
        patch_positions=shown.positions,
        grids=grids,
        views=tuple(ordered),
        patch_labels=dict(patch_labels or {}),
        patch_arrays=patch_arrays(grids, spec),
        canvases=shown.canvases,
        num_encoded=sum(spec.num_visual_tokens(grid) for grid in grids),
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
    frame = sum(len(each) for each in _frame(spec, tokenizer))
    contents = [content for each in _by_item(views).values() for content in _contents(each, spec)]
    return ExampleSize(
        num_patches=sum(grid.num_patches for grid in grids),
        num_tokens=text_tokens
        + sum(num_tokens(content, spec) for content in contents)
        + frame * len(contents),
        num_views=len(grids),
    )


def blank_example(spec: ProcessorSpec) -> Example:
    """Returns an example of nothing, which packs into padding alone."""
    nothing = np.zeros(0, np.int32)
    return Example(
        tokens=nothing,
        slots=nothing,
        positions=np.zeros((3, 0), np.int32),
        loss_mask=nothing.astype(bool),
        patches=_show([], [], [], spec).patches,
        patch_positions=np.zeros((0, 2), np.int32),
        grids=(),
        views=(),
        patch_arrays=patch_arrays([], spec),
        **_for_the_tower([], spec),
    )


Content = tuple[int, ...] | Grid | TileLayout  # of a run: text, one view, or a picture in tiles


def num_tokens(content: Content, spec: ProcessorSpec) -> int:
    """Decoder positions of a run."""
    return spec.num_visual_tokens(content) if isinstance(content, Grid) else len(content)


class _Shown(NamedTuple):
    """What the encoder gets of all views, one after the other."""

    patches: np.ndarray
    positions: np.ndarray
    canvases: tuple[np.ndarray, ...]


def _show(
    images: Sequence[Pixels], views: Sequence[View], grids: Sequence[Grid], spec: ProcessorSpec
) -> _Shown:
    dtype = np.uint8 if spec.canvas is None else np.float32
    patches = [np.zeros((0, spec.patch_row_size), dtype)]
    positions, canvases = [np.zeros((0, 2), np.int32)], []
    for pixels, grid in zip(_rendered(images, views, spec), grids, strict=True):
        if spec.canvas is None:
            rows, places = patchify(pixels, patch_size=spec.patch_size, merge_size=spec.merge_size)
        else:
            rows = low_resolution_rows(pixels, grid, spec)
            places = block_positions(grid, merge_size=spec.merge_size)
            canvases.append(pixels)
        patches.append(rows)
        positions.append(places)
    return _Shown(np.concatenate(patches), np.concatenate(positions), tuple(canvases))


def _rendered(
    images: Sequence[Pixels], views: Sequence[View], spec: ProcessorSpec
) -> Iterator[np.ndarray]:
    """Pixels of each view; windows of one canvas share it."""
    last, whole = None, np.zeros(0)
    for view in views:
        uncut = dataclasses.replace(view, window=None, tile=None)
        if uncut != last:
            whole = render_view(
                images[view.item], uncut, background=spec.background, pad_first=spec.pad_first
            )
            last = uncut
        yield whole if view.window is None else cut_window(whole, view)


def _by_item(views: Sequence[View]) -> dict[int, list[View]]:
    by_item: dict[int, list[View]] = {}
    for view in views:
        by_item.setdefault(view.item, []).append(view)
    return by_item


def _contents(views: Sequence[View], spec: ProcessorSpec) -> Iterator[Grid | TileLayout]:
    """What stands at the place of one picture: its views, or their tiles put together."""
    if spec.tiles is not None:
        yield tile_layout(views, spec)
    else:
        for view in views:
            yield _grid(view, spec)


def _frame(spec: ProcessorSpec, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Tokens before and after what stands for a picture."""
    return [
        tuple(tokenizer.encode_trusted(text)) if text else ()
        for text in (spec.template.image_open, spec.template.image_close)
    ]


def _runs(
    ordered: Sequence[View], pieces: Sequence[Piece], spec: ProcessorSpec, tokenizer: Tokenizer
) -> Iterator[tuple[Content, tuple[bool, ...]]]:
    """Text as token ids with their mask, what stands for pictures as it is, in prompt order."""
    by_item = _by_item(ordered)
    before, after = _frame(spec, tokenizer)
    for piece in pieces:
        if piece.item is None:
            yield piece.token_ids, piece.mask
            continue
        for content in _contents(by_item[piece.item], spec):
            yield before, (False,) * len(before)
            yield content, ()
            yield after, (False,) * len(after)


def _sequence(
    runs: Sequence[tuple[Content, tuple[bool, ...]]], spec: ProcessorSpec
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tokens: list[int] = []
    slots: list[int] = []
    mask: list[bool] = []
    visual = 0
    for content, flags in runs:
        if isinstance(content, tuple) and not isinstance(content, Grid):
            tokens += content
            slots += [TEXT] * len(content)
            mask += flags
            continue
        count = num_tokens(content, spec)
        tokens += [spec.image_token_id] * count
        mask += [False] * count
        if isinstance(content, Grid):
            slots += range(visual, visual + count)
            visual += count
        else:
            slots += content.shifted(visual)
            visual += content.num_encoded
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
    return spec.grid(size)


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
