"""What the host side must know of a Qwen2-VL: pixels, template, positions."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from mres_jax.data.spec import ChatTemplate, ProcessorSpec, ResizeRule, VideoSpec
from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields
from mres_jax.models.pixel_fields import UNUSED, check_pixels
from mres_jax.models.qwen2_vl.config import QwenVLConfig

# Pixel limits of the released preprocessor_config.json.
MIN_PIXELS, MAX_PIXELS = 56 * 56, 28 * 28 * 16_384
# Of clips: limits of a frame and visual tokens of a clip, as Qwen's own tools cap them.
MIN_FRAME_TOKENS, MAX_FRAME_TOKENS, MAX_CLIP_TOKENS = 128, 768, 128_000
CLIP_SHARE = 0.9  # of these tokens that a clip may take
FILE, VIDEO_FILE = "preprocessor_config.json", "video_preprocessor_config.json"
EDGES = ("shortest_edge", "longest_edge")
# Read here, and where frames are chosen.
_READ = ("min_pixels", "max_pixels", "resize_rule", *UNUSED)
_VIDEO_READ = (
    *("min_pixels", "max_pixels", "cap_pixels_per_frame", "max_video_tokens", *UNUSED),
    *("fps", "min_frames", "max_frames", "do_sample_frames"),
    *("patch_size", "temporal_patch_size", "merge_size"),
)
_MOST = 2**40  # pixels that a file may ask for
_MOST_FPS = 1_000.0

TEMPLATE = ChatTemplate(
    system="You are a helpful assistant.",
    turn_open="<|im_start|>{role}\n",
    turn_close="<|im_end|>\n",
    image_open="<|vision_start|>",
    image_close="<|vision_end|>",
    clip_open="<|vision_start|>",
    clip_close="<|vision_end|>",
)

PLACEHOLDERS = (
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


def video_spec(settings: Mapping[str, Any], *, token_id: int, stride: int, group: int) -> VideoSpec:
    """Returns how clips are sampled and how large they are looked at, as Qwen2-VL does.

    Args:
      settings: contents of `video_preprocessor_config.json`, or none of it.
      token_id: of the placeholder.
      stride: side of one visual token, pixels.
      group: frames that are seen together.

    Raises:
      CheckpointError: a number that cannot be, or other pixels than ours.
    """
    fields = Fields(settings, VIDEO_FILE)
    token_area = stride**2
    smallest, largest = pixel_limits(
        settings, MIN_FRAME_TOKENS * token_area, MAX_FRAME_TOKENS * token_area, fields.where
    )
    check_frames(settings)
    is_capped = fields.get("cap_pixels_per_frame", True, (bool, type(None))) is not False
    tokens = fields.size("max_video_tokens", MAX_CLIP_TOKENS, most=_MOST)
    return VideoSpec(
        token_id=token_id,
        min_pixels=smallest,
        max_pixels=largest,
        total_pixels=int(tokens * token_area * CLIP_SHARE) if is_capped else None,
        multiple=group,
        **frame_rates(fields),
    )


def check_frames(settings: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` if a video processor makes other pixels of a frame than we do."""
    check_pixels(settings, VIDEO_FILE, resample="bicubic", edges=EDGES, known=_VIDEO_READ)


def check_pictures(
    settings: Mapping[str, Any], *, patch_size: int, temporal_patch_size: int, merge_size: int
) -> None:
    """Raises `CheckpointError` if a processor makes other pixels of a picture than we do."""
    sizes = {
        "patch_size": patch_size,
        "temporal_patch_size": temporal_patch_size,
        "merge_size": merge_size,
    }
    check_pixels(settings, FILE, resample="bicubic", edges=EDGES, same=sizes, known=_READ)


def frame_rates(fields: Fields) -> dict[str, Any]:
    """`fps`, `min_frames` and `max_frames` of a `VideoSpec`.

    Raises:
      CheckpointError: numbers that cannot be.
    """
    fps = float(fields.get("fps", 2.0, (int, float)))
    least, most = fields.size("min_frames", 4), fields.size("max_frames", 768)
    if not 0 < fps <= _MOST_FPS or least > most:
        raise CheckpointError(
            f"{fields.where}: fps={fps:g}, min_frames={least}, max_frames={most} cannot be."
        )
    return {"fps": fps, "min_frames": least, "max_frames": most}


def make_spec(
    config: QwenVLConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
    limits: tuple[int, int] = (MIN_PIXELS, MAX_PIXELS),
    make_video: Callable[..., VideoSpec] = video_spec,
    position_rule: str = "mrope",
) -> ProcessorSpec:
    """Returns the processor's description.

    Args:
      config: the model.
      token_id: id of a control token by name.
      preprocessor: contents of `preprocessor_config.json`; its pixel limits win over the released
        ones, in either of the two spellings Hugging Face uses. Settings for clips are nested in it
        under `video_processor`.
      limits: smallest and largest view of the released models, pixels.
      make_video: reads the settings for clips, which differ between generations; takes what
        `video_spec` does.
      position_rule: of the generation; a decoder without M-RoPE counts plainly.

    Raises:
      CheckpointError: limits that cannot be, or a processor that makes other pixels than we do.
    """
    vision = config.vision_config
    smallest, largest = pixel_limits(preprocessor or {}, *limits)
    check_pictures(
        preprocessor or {},
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    return ProcessorSpec(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
        mean=vision.image_mean,
        std=vision.image_std,
        min_pixels=smallest,
        max_pixels=largest,
        image_token_id=config.image_token_id,
        pad_token_id=token_id("<|endoftext|>"),
        eos_token_ids=(token_id("<|im_end|>"), token_id("<|endoftext|>")),
        reserved_token_ids=placeholder_ids(
            token_id, (config.image_token_id, config.video_token_id)
        ),
        template=TEMPLATE,
        position_rule=position_rule if config.text_config.mrope_section else "plain",
        coord_frame="relative_1000",
        accepts=frozenset({"image", "tile", "frame"}),
        video=make_video(
            (preprocessor or {}).get("video_processor") or {},
            token_id=config.video_token_id,
            stride=vision.stride,
            group=vision.temporal_patch_size,
        ),
        resize_rule=resize_rule(preprocessor or {}, "hf"),
    )


def placeholder_ids(token_id: Callable[[str], int], others: Sequence[int]) -> tuple[int, ...]:
    """Ids of the placeholders that the vocabulary has, then those of `others` not among them."""
    ids = []
    for name in PLACEHOLDERS:
        with contextlib.suppress(CheckpointError):  # plain Qwen2 vocabularies have none
            ids.append(token_id(name))
    return tuple(dict.fromkeys([*ids, *others]))


def pixel_limits(
    preprocessor: Mapping[str, Any],
    smallest: int,
    largest: int,
    where: str = FILE,
) -> tuple[int, int]:
    """Smallest and largest view, pixels: `min_pixels`/`max_pixels`, or `size` with its edges.

    Raises:
      CheckpointError: a limit that is no count of pixels, or a smallest view above the largest.
    """
    fields = Fields(preprocessor, where)
    edges = fields.child("size")
    least = fields.size("min_pixels", edges.size("shortest_edge", smallest, most=_MOST), most=_MOST)
    most = fields.size("max_pixels", edges.size("longest_edge", largest, most=_MOST), most=_MOST)
    if least > most:
        raise CheckpointError(f"{fields.where}: min_pixels is {least}, above max_pixels {most}.")
    return least, most


def resize_rule(preprocessor: Mapping[str, Any], default: ResizeRule) -> ResizeRule:
    """The rule for native sizes that the model was trained with; see `ProcessorSpec`."""
    rule = preprocessor.get("resize_rule", default)
    rules = get_args(ResizeRule)
    if rule not in rules:
        raise CheckpointError(f"{FILE}: resize_rule is {rule!r}; have {', '.join(rules)}.")
    return cast(ResizeRule, rule)
