"""What a model's processor tells the host side. Filled by `models/<family>/processor.py`."""

import dataclasses
from typing import Literal

from mres_jax.geometry import ClipSize, Grid, Size

ResizeRule = Literal["fit", "hf", "naflex"]  # native sizes: ours, as Qwen2-VL's, as SigLIP2's


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """Trusted text around the turns of a chat; `{role}` is `system`, `user` or `assistant`.

    Trusted parts are encoded with control tokens on, what users write with control tokens off.
    """

    system: str | None  # default system prompt
    turn_open: str  # "<|im_start|>{role}\n"
    turn_close: str  # "<|im_end|>\n"
    image_open: str  # before the visual tokens of one view
    image_close: str  # after them
    after_images: str = ""  # between the last picture of a turn and its text
    before_text: str = ""  # before a text that begins a turn, if it is no answer
    clip_open: str = ""  # before the visual tokens of a clip; `{count}` frames, `{length}` h:mm:ss
    clip_close: str = ""  # after them
    frame_open: str = ""  # before each of its views; `{seconds}`, or `{clock}` mm:ss, is its time
    frame_close: str = ""  # after each
    start: str = ""  # before everything, even in a template without turns
    answer_open: str = ""  # before the assistant's text, and part of it
    roles: tuple[tuple[str, str, str], ...] = ()  # (role, open, close) instead of the turn_* fields
    is_joined: bool = False  # neighbouring texts are encoded as one, as released code does

    @property
    def parts_frames(self) -> bool:
        """Whether the views of a clip stand apart, with text between them."""
        return bool(self.frame_open or self.frame_close)

    def opening(self, role: str) -> str:
        """What opens a turn."""
        by_role = {name: text for name, text, _ in self.roles}
        return by_role[role] if role in by_role else self.turn_open.format(role=role)

    def closing(self, role: str) -> str:
        """What closes a turn."""
        return {name: text for name, _, text in self.roles}.get(role, self.turn_close)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSpec:
    """How clips become the input of one model: which frames, how many pixels, which places.

    The defaults are those of Qwen2-VL and Qwen2.5-VL: at most 768 visual tokens per two frames and
    115,200 in a clip, as their own tools cap them.

    Attributes:
      token_id: placeholder in the text, one per visual token.
      min_pixels: smallest frame, or with `limits="clip"` all frames of a clip together.
      max_pixels: largest, likewise.
      total_pixels: with `limits="frame"`, what two frames of each group share out between them: a
        frame gets `total_pixels * temporal_patch_size / frames` at most; None sets no limit.
      limits: what the pixel limits are of.
      frame_pixels: with `limits="clip"`, what a frame may have at most; None leaves it to the clip.
      fps: frames that are looked at, per second of video.
      min_frames: at least so many, if the video has them.
      max_frames: at most so many.
      multiple: frames come in multiples of this.
      spread: which frames these are, see `data.video.FrameSampling`.
      tokens_per_second: steps of the time axis per second, under the rule `mrope_seconds`.
    """

    token_id: int
    min_pixels: int
    max_pixels: int
    total_pixels: int | None = None
    limits: Literal["frame", "clip"] = "frame"
    frame_pixels: int | None = None
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    multiple: int = 2
    spread: Literal["starts", "ends", "inner"] = "starts"
    tokens_per_second: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositionTable:
    """Learned positions of a square grid, resized to the grid of each view.

    `bicubic_antialias` is torch's with antialias, as timm and LLaVA-HR resize; `bicubic` the one
    without, as `transformers` does for CLIP; `linear_corners` is linear, the corners of a view read
    the corners of the table, as in Qwen3-VL; `linear_antialias` is torch's with antialias, as in
    SigLIP2; `none` takes views of the table's own grid only.
    """

    side: int  # rows and columns
    resize: Literal["none", "bicubic", "bicubic_antialias", "linear_corners", "linear_antialias"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileRule:
    """How a model that was trained on tiles takes them; see `mres_jax.data.tiles`."""

    side: int  # of a tile, pixels
    canvases: tuple[Size, ...]  # that pictures are fitted into, in order of preference, pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitRule:
    """How a model takes a picture cut into numbered squares; see `mres_jax.data.splits`.

    Attributes:
      side: of a square, pixels.
      shown: of each square the encoder sees so much from its upper left corner, pixels a side.
      longest: what the longer side of a picture becomes, pixels.
      frame_longest: likewise of a frame of a clip, which is then squashed to one square.
      most: rows and columns that the vocabulary has numbers for.
      tile_open: before the visual tokens of a tile; `{row}` and `{column}` count from 1.
      row_end: behind a row of tiles.
      tiles_end: between them all and the whole picture.
    """

    side: int
    shown: int
    longest: int
    frame_longest: int
    most: int
    tile_open: str
    row_end: str
    tiles_end: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanvasRule:
    """A second pathway that sees each view at its full size, on a canvas.

    The patches of the first pathway then show the view smaller: `patches` a side for each square of
    `stride` pixels. Views are sized so that one of `shapes` holds them.
    """

    stride: int  # pixels of the view
    patches: int  # a side
    shapes: tuple[Size, ...]  # of canvases, pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessorSpec:
    """How pictures and text become the input of one model."""

    patch_size: int  # pixels
    merge_size: int  # patches per side of one visual token
    temporal_patch_size: int  # frames
    mean: tuple[float, float, float]  # of pixel values / 255
    std: tuple[float, float, float]
    min_pixels: int  # smallest and largest view the model is meant for
    max_pixels: int
    image_token_id: int
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    reserved_token_ids: tuple[int, ...]  # vision placeholders: never sampled
    template: ChatTemplate
    position_rule: str  # a name in `mres_jax.data.positions.POSITION_RULES`
    coord_frame: Literal["relative_1000", "relative_1", "resized_px"]
    accepts: frozenset[str] = frozenset({"image", "tile"})  # kinds of views, see `View.kind`
    video: VideoSpec | None = None  # None where the model takes no clips
    image_size: int | None = None  # side of the only square a fixed tower takes, pixels
    native_pixels: int | None = None  # of a picture or frame at native size, if below max_pixels
    resize_rule: ResizeRule = "fit"
    resample: Literal["bicubic", "lanczos", "bilinear"] = "bicubic"  # Pillow's filter
    window_side: int | None = None  # of attention windows, visual tokens; None: no windows
    default_policy: str = "native"  # where neither user nor checkpoint name one
    background: tuple[int, int, int] = (128, 128, 128)  # of canvases of views, RGB
    pad_first: bool = False  # a view's canvas is filled before the picture is resized
    positions: PositionTable | None = None  # None: no learned table of positions
    tiles: TileRule | None = None  # None: tiles are pictures like any other
    split: SplitRule | None = None  # None: the model knows no numbered tiles
    canvas: CanvasRule | None = None  # None: one pathway

    @property
    def stride(self) -> int:
        """Side of one visual token, pixels of a view."""
        return self.canvas.stride if self.canvas else self.patch_size * self.merge_size

    @property
    def patch_extent(self) -> float:
        """Side of what one patch stands for, pixels of a view."""
        return self.canvas.stride / self.canvas.patches if self.canvas else self.patch_size

    @property
    def patch_row_size(self) -> int:
        """Values of one still patch row."""
        return 3 * self.patch_size**2

    def grid(self, size: Size) -> Grid:
        """Patch counts of a still view of `size` px."""
        if self.canvas is None:
            return Grid(1, size.height // self.patch_size, size.width // self.patch_size)
        rows, columns = (side // self.canvas.stride * self.canvas.patches for side in size)
        return Grid(1, rows, columns)

    def num_visual_tokens(self, grid: Grid) -> int:
        """Visual tokens of one view."""
        return grid.num_visual_tokens(self.merge_size)

    def num_views(self, clip: ClipSize) -> int:
        """Views of a whole clip: groups of frames that are seen together."""
        return len(clip.groups(self.temporal_patch_size))
