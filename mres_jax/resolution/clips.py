"""How large the frames of a clip are looked at, and its views: one per group of frames.

A clip is one item: what a policy says of an item's visual tokens holds for all its frames together.
"""

import dataclasses
import functools
import math

from mres_jax.data.spec import ProcessorSpec, VideoSpec
from mres_jax.errors import PolicyError
from mres_jax.geometry import Box, ClipSize, Size, View, fit_size


def clip_views(
    item: int, clip: ClipSize, target: Size, spec: ProcessorSpec, canvas: Size | None = None
) -> list[View]:
    """Returns the views of a whole clip in order of time, all of one size."""
    view = View(item=item, crop=Box(0, 0, *clip.size), size=target, canvas=canvas, group=item)
    return over_time(view, clip, spec)


def over_time(view: View, clip: ClipSize, spec: ProcessorSpec) -> list[View]:
    """Returns the views of a whole clip, each of which shows its frames as `view` does."""
    group = spec.temporal_patch_size
    return [
        dataclasses.replace(view, time=time, clip_seconds=clip.length, frames=frames)
        for time, frames in zip(clip.middles(group), clip.groups(group), strict=True)
    ]


def native_clip_size(clip: ClipSize, spec: ProcessorSpec) -> Size:
    """Returns what the model's own rule makes of each frame of a clip, pixels.

    Raises:
      PolicyError: the model takes no clips, or so many frames leave none of them a visual token.
    """
    video, num_frames = video_of(spec), len(clip.times)
    if spec.image_size is not None:
        return Size(spec.image_size, spec.image_size)
    height, width = clip.size
    is_hf = spec.resize_rule == "hf"
    if is_hf and video.limits == "clip":
        return fit_clip_size(
            height,
            width,
            num_frames=num_frames,
            group=spec.temporal_patch_size,
            stride=spec.stride,
            min_pixels=video.min_pixels,
            max_pixels=min(
                _most_clip_pixels(num_frames, video),
                num_frames * (spec.native_pixels or video.max_pixels),
            ),
        )
    smallest, largest = frame_limits(num_frames, spec)
    largest = min(largest, spec.native_pixels or largest)
    fit = functools.partial(
        fit_size,
        height,
        width,
        stride=spec.stride,
        min_pixels=min(smallest, largest),
        max_pixels=largest,
    )
    size = fit(hf_compat=is_hf)
    # Theirs rounds up where it enlarges, above a limit that is near to the smallest frame.
    return fit() if size.area > (spec.native_pixels or size.area) else size


def frame_limits(num_frames: int, spec: ProcessorSpec) -> tuple[int, int]:
    """Returns the smallest and largest size of a frame of a clip, pixels.

    Where a clip's total is shared out, a frame may still have 1.05 of the smallest, as in
    `transformers`.

    Raises:
      PolicyError: the model takes no clips, or a frame's share is less than one visual token.

    Reference:
      `Qwen2VLVideoProcessor.resize` of `transformers` 5.23 with `cap_pixels_per_frame`, the rule of
      qwen-vl-utils.
    """
    video = video_of(spec)
    if video.limits == "clip":
        smallest = -(-video.min_pixels // num_frames)
        largest = _most_clip_pixels(num_frames, video) // num_frames
    else:
        smallest, largest = video.min_pixels, video.max_pixels
        if video.total_pixels is not None:
            share = video.total_pixels * spec.temporal_patch_size // num_frames
            largest = max(min(largest, share), int(smallest * 1.05))
    if largest < spec.stride**2:
        raise PolicyError(
            f"policy: a clip of {num_frames} frames leaves {largest} px for each, less than one "
            f"visual token of {spec.stride} x {spec.stride} px. Look at fewer frames."
        )
    return smallest, largest


def _most_clip_pixels(num_frames: int, video: VideoSpec) -> int:
    """The largest clip under `limits="clip"`, where each of its frames may be capped too.

    Reference:
      `Qwen3VLVideoProcessor.resize` of `transformers` 5.23 with `cap_pixels_per_frame`.
    """
    if video.frame_pixels is None:
        return video.max_pixels
    share = min(video.frame_pixels, video.max_pixels // num_frames)
    return num_frames * max(share, int(video.min_pixels * 1.05))


def fit_clip_size(
    height: int,
    width: int,
    *,
    num_frames: int,
    group: int,
    stride: int,
    min_pixels: int,
    max_pixels: int,
) -> Size:
    """Returns the size of each frame where the limits are of all frames together.

    Exactly what Hugging Face does, faults included: the product may exceed `max_pixels` where a
    frame would be thinner than one visual token.

    Args:
      height: of a frame, pixels.
      width: of a frame, pixels.
      num_frames: of the clip.
      group: frames that are seen together.
      stride: side of one visual token, pixels.
      min_pixels: of all frames.
      max_pixels: of all frames.

    Raises:
      PolicyError: a ratio of sides above 200.

    Reference:
      `smart_resize` of the Qwen3-VL video processor in `transformers` 5.23.
    """
    if height < stride or width < stride:
        scale = max(stride / height, stride / width)
        height, width = int(height * scale), int(width * scale)
    ratio = max(height, width) / min(height, width)
    if ratio > 200:
        raise PolicyError(
            f"policy: frames of {width} x {height} px have a ratio of {ratio:.1f}, but Hugging "
            "Face's rule takes at most 200. Crop them."
        )
    rows, columns = round(height / stride), round(width / stride)
    total = round(num_frames / group) * group * rows * columns * stride**2
    if total > max_pixels:
        shrink = math.sqrt((num_frames * height * width) / max_pixels)
        rows = max(1, math.floor(height / shrink / stride))
        columns = max(1, math.floor(width / shrink / stride))
    elif total < min_pixels:
        grow = math.sqrt(min_pixels / (num_frames * height * width))
        rows = math.ceil(height * grow / stride)
        columns = math.ceil(width * grow / stride)
    return Size(rows * stride, columns * stride)


def share_tokens(tokens: int, clip: ClipSize, spec: ProcessorSpec, *, policy: object) -> int:
    """Returns the visual tokens of each view where a clip has so many.

    Raises:
      PolicyError: fewer than one.
    """
    views = spec.num_views(clip)
    if tokens < views:
        raise PolicyError(
            f"policy {policy}: a clip of {len(clip.times)} frames has {views} views, which need at "
            f"least {views} visual tokens. Give more, or look at fewer frames."
        )
    return tokens // views


def video_of(spec: ProcessorSpec) -> VideoSpec:
    """Returns how a model takes clips.

    Raises:
      PolicyError: it takes none.
    """
    if spec.video is None:
        raise PolicyError(
            f"policy: the model takes {', '.join(sorted(spec.accepts))}, no clips. Choose a model "
            "for video, or give frames as pictures."
        )
    return spec.video
