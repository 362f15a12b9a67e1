"""Clips: a video file, a folder of frames or a list of arrays -> frames with their times.

Files need PyAV (`pip install mres-jax[video]`); folders and arrays need nothing.
"""

from mres_jax.data.video.decode import (
    VideoHeader as VideoHeader,
    decode_video as decode_video,
    read_clip_size as read_clip_size,
    read_video_header as read_video_header,
)
from mres_jax.data.video.frames import clip_of as clip_of, read_frames as read_frames
from mres_jax.data.video.open import is_clip as is_clip, open_clip as open_clip
from mres_jax.data.video.sampling import FrameSampling as FrameSampling
