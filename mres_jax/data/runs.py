"""The parts of a prompt in order: text as tokens, pictures and clips as what stands for them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.clip_texts import clip_texts, joined_texts
from mres_jax.data.conversations import Piece
from mres_jax.data.positions import ClipGrids
from mres_jax.data.spec import ChatTemplate, ProcessorSpec, VideoSpec
from mres_jax.data.splits import split_texts
from mres_jax.data.tiles import TileLayout, tile_layout
from mres_jax.data.tokenizer import Tokenizer
from mres_jax.data.types import TEXT
from mres_jax.errors import PromptError
from mres_jax.geometry import Grid, View


class Run(NamedTuple):
    """A part of a prompt: tokens with their mask, or views and what stands for them there."""

    tokens: tuple[int, ...] = ()
    mask: tuple[bool, ...] = ()
    visual: Grid | ClipGrids | TileLayout | None = None
    placeholder: int = -1

    def num_tokens(self, merge_size: int) -> int:
        """Decoder positions."""
        if self.visual is None:
            return len(self.tokens)
        if isinstance(self.visual, TileLayout):
            return len(self.visual)
        return self.visual.num_visual_tokens(merge_size)

    def extent(self) -> int | Grid | ClipGrids:
        """What positions are counted from."""
        if self.visual is None:
            return len(self.tokens)
        return len(self.visual) if isinstance(self.visual, TileLayout) else self.visual


def prompt_runs(
    ordered: Sequence[View],
    pieces: Sequence[Piece],
    spec: ProcessorSpec,
    tokenizer: Tokenizer,
    seconds: Mapping[int, float],
) -> Iterator[Run]:
    """The parts in prompt order; `seconds` are those of a frame of each clip."""
    by_item = by_items(ordered)

    def text(words: str) -> Iterator[Run]:
        tokens = tuple(tokenizer.encode_trusted(words)) if words else ()
        yield Run(tokens, (False,) * len(tokens))

    for piece in pieces:
        if piece.item is None:
            yield Run(piece.token_ids, piece.mask)
            continue
        views = by_item[piece.item]
        words = iter(texts_around(views, spec))
        yield from text(next(words))
        for visual in visual_runs(views, spec, seconds.get(piece.item, 0.0)):
            yield from text(next(words))
            yield visual
            yield from text(next(words))
        yield from text(next(words))


def texts_around(views: Sequence[View], spec: ProcessorSpec) -> Iterator[str]:
    """Texts about the views of one item: before all, before and behind each part, behind all."""
    template = spec.template
    if views[0].frames:
        yield from _texts_around_clip(views, template)
        return
    yield ""
    if spec.split is not None:
        for texts in split_texts(views, spec):
            yield from texts
    else:
        for _ in views if spec.tiles is None else views[:1]:
            yield from (template.image_open, template.image_close)
    yield ""


def joined_clips(views: Sequence[View], template: ChatTemplate) -> dict[int, tuple[str, str]]:
    """What stands before and behind each clip where texts are joined: it is no text of its own."""
    if not template.is_joined:
        return {}
    clips = ((item, some) for item, some in by_items(views).items() if some[0].frames)
    return {item: joined_texts(template, **_timing(some)) for item, some in clips}


def _texts_around_clip(views: Sequence[View], template: ChatTemplate) -> list[str]:
    if not template.parts_frames:
        return [template.clip_open, "", "", template.clip_close]
    texts = clip_texts(template, **_timing(views))
    if template.is_joined:
        texts[:2] = texts[-2:] = ["", ""]
    return texts


def _timing(views: Sequence[View]) -> dict[str, Any]:
    """What `clip_texts` is told of a clip."""
    times = [view.time or 0.0 for view in views]
    seconds = views[0].clip_seconds
    return {
        "times": times,
        "num_frames": len({frame for view in views for frame in view.frames}),
        "seconds": times[-1] if seconds is None else seconds,
    }


def visual_runs(views: Sequence[View], spec: ProcessorSpec, frame_seconds: float) -> Iterator[Run]:
    """The parts of one item: each view alone, its tiles put together, or a clip as one where no
    text parts its views."""
    grids = tuple(view_grid(view, spec) for view in views)
    if not views[0].frames:
        pictures = grids if spec.tiles is None else (tile_layout(views, spec),)
        yield from (Run(visual=picture, placeholder=spec.image_token_id) for picture in pictures)
        return
    video = _video(spec, views[0])
    if spec.template.parts_frames:
        yield from (Run(visual=grid, placeholder=video.token_id) for grid in grids)
        return
    # In float32, as torch multiplies them: the time of a view may fall on an edge.
    seconds = np.float32(spec.temporal_patch_size * frame_seconds)
    step = float(np.float32(video.tokens_per_second) * seconds)
    yield Run(visual=ClipGrids(grids, step), placeholder=video.token_id)


def sequence(runs: Sequence[Run], spec: ProcessorSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, slots and mask of all parts, see `Example`."""
    tokens: list[int] = []
    slots: list[int] = []
    mask: list[bool] = []
    visual = 0
    for run in runs:
        if run.visual is None:
            tokens += run.tokens
            slots += [TEXT] * len(run.tokens)
            mask += run.mask
            continue
        count = run.num_tokens(spec.merge_size)
        tokens += [run.placeholder] * count
        mask += [False] * count
        if isinstance(run.visual, TileLayout):
            slots += run.visual.shifted(visual)
            visual += run.visual.num_encoded
        else:
            slots += range(visual, visual + count)
            visual += count
    return np.array(tokens, np.int32), np.array(slots, np.int32), np.array(mask, bool)


def by_items(views: Sequence[View]) -> dict[int, list[View]]:
    """The views of each item together."""
    by_item: dict[int, list[View]] = {}
    for view in views:
        by_item.setdefault(view.item, []).append(view)
    return by_item


def view_grid(view: View, spec: ProcessorSpec) -> Grid:
    """Patch counts of a view.

    Raises:
      PromptError: it is not whole visual tokens, or of a kind that the model does not take.
    """
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


def _video(spec: ProcessorSpec, view: View) -> VideoSpec:
    if spec.video is None:
        raise PromptError(f"assemble: item {view.item} is a clip, but the model takes none.")
    return spec.video
