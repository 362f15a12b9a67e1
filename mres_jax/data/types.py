"""Arrays that travel from the host to the model. Axes: see `mres_jax.typing`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mres_jax.data.positions import next_position
from mres_jax.data.windows import Windows
from mres_jax.geometry import Grid, View

TEXT, NEWLINE = -1, -2  # slots without a visual token of a view


class ExampleSize(NamedTuple):
    """What an example takes of a pack."""

    num_patches: int
    num_tokens: int  # decoder positions, visual tokens included
    num_views: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One conversation with its pictures, assembled and ready to be packed.

    Attributes:
      tokens: `int32 [t]`, image placeholders expanded, one per visual token.
      slots: `int32 [t]`, index of the visual token that stands there, `TEXT` or `NEWLINE`.
      positions: `int32 [3 t]`, rotary positions (t, h, w); three equal rows under the plain rule.
      loss_mask: `bool [t]`, tokens that are to be predicted (all False in a prompt).
      patches: `uint8 [p r]`, rows of all views in block order; rows of several frames where the
        example has a clip.
      patch_positions: `int32 [p 2]`, row and column of each patch in its view.
      grids: one per view, in prompt order.
      views: the views themselves.
      patch_labels: optional `int32 [p]` arrays by name, for auxiliary losses.
      windows: for towers that have windows, see `ProcessorSpec.window_side`.
      position_weights: `float32 [p 2 o]`, for towers with a table of positions, see
        `data.position_weights`.
      still: `bool [p]`, which rows are of pictures and have only their first frame; None where the
        example has no clip, and rows of one frame.
      canvases: `uint8 [H W 3]`, one per view, where the model has a second pathway.
      num_encoded: visual tokens that its views give; None where `slots` name each of them once.
    """

    tokens: np.ndarray
    slots: np.ndarray
    positions: np.ndarray
    loss_mask: np.ndarray
    patches: np.ndarray
    patch_positions: np.ndarray
    grids: tuple[Grid, ...]
    views: tuple[View, ...]
    patch_labels: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    windows: Windows | None = None
    position_weights: np.ndarray | None = None
    still: np.ndarray | None = None
    canvases: tuple[np.ndarray, ...] = ()
    num_encoded: int | None = None

    @property
    def num_visual_tokens(self) -> int:
        """Positions of the decoder that are no text."""
        return int((self.slots != TEXT).sum())

    @property
    def size(self) -> ExampleSize:
        """What it takes of a pack."""
        return ExampleSize(len(self.patches), len(self.tokens), len(self.grids))

    @property
    def next_position(self) -> int:
        """Rotary position of the first generated token."""
        ends_in_text = bool((self.slots[-1:] == TEXT).all())
        return next_position(self.positions, ends_in_text=ends_in_text)


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Rung:
    """Static lengths of one pack; a run's ladder has a few of them, smallest first."""

    max_patches: int  # patch rows
    max_tokens: int  # decoder positions, visual tokens included
    max_views: int  # pictures, tiles, groups of frames
    max_examples: int  # conversations
    canvases: tuple[tuple[int, int], ...] = ()  # height and width, px; `max_views` of each


class Kind(NamedTuple):
    """What is known of a pack before it is read: packs of one kind have arrays of one shape.

    Attributes:
      rung: its static lengths.
      has_clip: whether its patch rows have several frames, see `Pack.still`.
    """

    rung: Rung
    has_clip: bool = False


class Canvases(NamedTuple):
    """Views of one canvas shape, for a convolutional pathway.

    Attributes:
      pixels: `uint8 [n H W 3]`, each view in the upper left corner, zeros around it.
      sizes: `int32 [n 2]`, height and width of the view, px; 0 for an unused canvas.
      views: `int32 [n]`, the view's place in the pack, 1..n as in `patch_segment_ids`; 0 = unused.
    """

    pixels: Any
    sizes: Any
    views: Any


class Pack(NamedTuple):
    """Several examples in one set of static buffers; a pytree, arrays of numpy or jax.

    Attributes:
      patches: `uint8 [p r]`, or normalised floats of the same shape; see `still`.
      patch_positions: `int32 [p 2]`, row and column of each patch in its view.
      patch_segment_ids: `int32 [p]`, 1..n per view, 0 = padding.
      grid_thw: `int32 [n 3]`, zeros for unused views.
      tokens: `int32 [t]`.
      segment_ids: `int32 [t]`, 1..s per example, 0 = padding.
      positions: `int32 [3 t]`.
      visual_index: `int32 [t]`, packed visual token that stands there, `TEXT` or `NEWLINE`.
      targets: `int32 [t]`, the token that follows in the same example, 0 where none does.
      loss_mask: `bool [t]`, True where `targets` counts.
      patch_labels: `int32 [p]` by name, -1 = unlabelled.
      windows: of the tower, where it has some.
      position_weights: `float32 [p 2 o]`, where the tower has a table of positions.
      still: None in a pack of pictures, whose rows have one frame. In a pack with clips rows have
        as many frames as the encoder takes at a time, and this is `bool [p]`: True where a row is a
        picture's, with its first frame alone.
      canvases: one `Canvases` per shape of the rung.
    """

    patches: Any
    patch_positions: Any
    patch_segment_ids: Any
    grid_thw: Any
    tokens: Any
    segment_ids: Any
    positions: Any
    visual_index: Any
    targets: Any
    loss_mask: Any
    patch_labels: Mapping[str, Any]
    windows: Windows | None = None
    position_weights: Any = None
    still: Any = None
    canvases: tuple[Canvases, ...] = ()
