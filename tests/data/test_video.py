"""Clips: which frames, at what times, and one line for each that cannot be read."""

import fractions
import io
import pathlib
import struct
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from mres_jax.data.images import decode_image
from mres_jax.data.video import (
    FrameSampling,
    clip_of,
    decode_video,
    is_clip,
    open_clip,
    read_frames,
    read_video_header,
)
from mres_jax.errors import BadImageError, BadVideoError, ConfigError
from mres_jax.protocols import Clip

COUNTS, RATES = st.integers(1, 5_000), st.floats(0.05, 240)
SAMPLINGS = st.builds(
    FrameSampling,
    fps=st.floats(0.01, 120),
    min_frames=st.integers(1, 8),
    max_frames=st.integers(8, 768),
    multiple=st.integers(1, 4),
    spread=st.sampled_from(["starts", "ends"]),
)


def frames_of(count, height=16, width=24):
    """Frame `i` is grey of level `10 * i`, but for a bright upper left corner."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames += np.arange(0, 10 * count, 10, dtype=np.uint8)[:, None, None, None]
    frames[:, : height // 4, : width // 4] = 255
    return list(frames)


def level(frame):
    """The number of a frame, from its grey."""
    return round(float(frame[-1, -1].mean()) / 10)


def write_video(path, frames, *, times=None, codec="ffv1", pixels="bgr0", rate=10):
    """A video without losses; times in units of 1 / 1000 s."""
    av = pytest.importorskip("av", reason="PyAV reads video files")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = fractions.Fraction(1, 1_000)
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = round(1_000 * i / rate) if times is None else times[i]
            picture.time_base = fractions.Fraction(1, 1_000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Twenty frames at ten per second."""
    return write_video(tmp_path_factory.mktemp("video") / "clip.mkv", frames_of(20))


@given(SAMPLINGS, COUNTS, RATES)
def test_sampled_frames_ascend_within_the_video_and_keep_every_limit(sampling, count, rate):
    try:
        chosen = sampling.choose(count, rate, name="a")
    except BadVideoError:
        assert min(count, sampling.max_frames) < sampling.multiple or (
            max(count / rate * sampling.fps, sampling.min_frames) < sampling.multiple
        )
        return
    assert 0 <= chosen[0] <= chosen[-1] < count
    assert (np.diff(chosen) > 0).all()  # no frame twice
    assert len(chosen) % sampling.multiple == 0
    assert len(chosen) <= sampling.max_frames
    wanted = max(count / rate * sampling.fps, sampling.min_frames)
    most = min(wanted, count, sampling.max_frames)
    assert most - sampling.multiple - 1 < len(chosen) <= most + sampling.multiple


@pytest.mark.parametrize(
    ("count", "frames"),
    [
        (45, [0, 44]),  # 1.5 s at one frame a second: rounded to 2
        (20, [0, 19]),  # never fewer than min_frames
        (90, [0, 44, 89]),
        (300, [0, 42, 85, 128, 170, 213, 256, 299]),  # 10 s, 8 frames: no second is left out
        (330, [30, 68, 107, 145, 184, 222, 261, 300]),  # 11 s: more than 8 behind the two ends
    ],
)
def test_inner_leaves_out_a_second_at_either_end_of_a_long_video(count, frames):
    sampling = FrameSampling(fps=1, min_frames=2, max_frames=8, multiple=1, spread="inner")
    assert sampling.choose(count, 30.0, name="a").tolist() == frames


@given(st.integers(2, 500), st.integers(1, 60))
def test_ends_take_the_first_and_last_frame_and_starts_equal_parts(count, groups):
    number = min(count, groups)
    ends = FrameSampling(num_frames=number, multiple=1, spread="ends").choose(count, 1.0, name="a")
    starts = FrameSampling(num_frames=number, multiple=1).choose(count, 1.0, name="a")
    assert ends[0] == 0
    assert number == 1 or ends[-1] == count - 1
    np.testing.assert_array_equal(starts, [i * count // number for i in range(number)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fps": 0.0}, r"fps=0\.0 must be above 0, and 1000 at most"),
        ({"fps": float("nan")}, r"fps=nan"),
        ({"fps": 1e9}, r"fps=1000000000\.0"),
        ({"max_frames": 0}, r"max_frames=0"),
        ({"min_frames": 9, "max_frames": 8}, r"min_frames=9"),
        ({"num_frames": 3}, r"num_frames=3 is not a multiple of 2"),
    ],
)
def test_a_sampling_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        FrameSampling(**fields)


@pytest.mark.parametrize("rate", [0.0, float("nan"), 90_000.0])
def test_a_video_of_an_absurd_rate_is_refused(rate):
    with pytest.raises(BadVideoError, match="frames per second; more than 0 and at most 1000"):
        FrameSampling().choose(100, rate, name="a.mp4")


def test_a_clip_of_arrays_keeps_every_frame_and_its_time():
    frames = frames_of(5)
    clip = clip_of(frames, fps=4.0)
    assert [level(frame) for frame in clip.frames] == [0, 1, 2, 3, 4]
    assert list(clip.times) == [0, 0.25, 0.5, 0.75, 1.0]
    assert clip.frame_seconds == 0.25
    assert clip.extent.groups(2) == [(0, 1), (2, 3), (4, 4)]  # the last one is seen twice
    thinned = clip_of(frames_of(9), fps=1.0, max_frames=4)
    assert list(thinned.times) == [0, 2, 4, 6]
    assert thinned.frame_seconds == 9 / 4


def broken(**changes):
    """A clip of two frames with something wrong."""
    fields = {"frames": frames_of(2), "times": [0.0, 0.5], "frame_seconds": 0.5, "name": "a"}
    return Clip(**(fields | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": frames_of(1), "times": [0.0]}, "video a: 1 frames, but a clip has two or more"),
        ({"frames": [], "times": []}, "0 frames"),
        ({"frames": [frames_of(1)[0], np.zeros((8, 24, 3), np.uint8)]}, "24 x 8 px, but the first"),
        ({"frames": [np.zeros((4, 4, 3)), np.zeros((4, 4, 3))]}, "frame 0 is not uint8"),
        ({"frames": [np.zeros((4, 4, 1), np.uint8)] * 2}, r"\[4, 4, 1\], not"),
        ({"times": [0.0]}, "1 times for 2 frames"),
        ({"times": [0.0, float("nan")]}, "or one that is no number"),
        ({"times": [0.5, 0.5]}, "do not ascend"),
        ({"times": [-1.0, 0.5]}, "do not ascend"),
        ({"frame_seconds": 0.0}, "frame_seconds=0.0 must be above 0"),
    ],
)
def test_frames_that_make_no_clip_are_refused(changes, message):
    with pytest.raises(BadVideoError, match=message):
        broken(**changes)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clip_of_arrays_at_an_absurd_rate_is_refused(fps):
    with pytest.raises(BadVideoError, match="must be above 0"):
        clip_of(frames_of(2), fps=fps)


def save_frames(folder, frames, names):
    folder.mkdir()
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(frame).save(folder / name)
    return folder


def test_a_folder_of_frames_comes_in_the_order_of_its_numbers(tmp_path):
    names = ["f1.png", "f10.png", "f2.png", "f9.png"]
    folder = save_frames(tmp_path / "frames", frames_of(4), names)
    (folder / ".DS_Store").write_bytes(b"x")
    clip = read_frames(folder, fps=4.0)
    assert [level(frame) for frame in clip.frames] == [0, 2, 3, 1]
    assert list(clip.times) == [0, 0.25, 0.5, 0.75]
    assert list(open_clip(folder, FrameSampling(min_frames=2, max_frames=2)).times) == [0.0, 1.0]
    assert is_clip(folder)


def test_a_folder_that_makes_no_clip_is_refused(tmp_path):
    one, other = frames_of(2)
    with pytest.raises(BadVideoError, match="no such folder"):
        read_frames(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadVideoError, match="the folder has no frames"):
        read_frames(tmp_path / "empty")
    folder = save_frames(tmp_path / "mixed", [one, other[:8]], ["0.png", "1.png"])
    with pytest.raises(BadVideoError, match=r"1\.png is 24 x 8 px, but 0\.png 24 x 16 px"):
        read_frames(folder)
    (folder / "1.png").write_bytes((folder / "0.png").read_bytes()[:60])
    with pytest.raises(BadVideoError, match=r"1\.png: damaged or truncated"):
        read_frames(folder)
    (folder / "1.png").unlink()
    with pytest.raises(BadVideoError, match="1 frames, but a clip has two or more"):
        read_frames(folder)
    (folder / "notes.txt").write_text("x")
    with pytest.raises(BadVideoError, match=r"notes\.txt is no picture by its name"):
        read_frames(folder)


def test_a_video_file_gives_the_sampled_frames_and_their_true_times(video):
    clip = decode_video(video, FrameSampling(fps=2.0))
    assert [level(frame) for frame in clip.frames] == [0, 5, 10, 15]
    np.testing.assert_allclose(clip.times, [0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(clip.frames[1], frames_of(20)[5])  # FFV1 loses nothing
    assert clip.frame_seconds == pytest.approx(0.5)
    assert clip.name == str(video)
    (ends, *_) = [decode_video(video.read_bytes(), FrameSampling(num_frames=4, spread="ends"))]
    assert [level(frame) for frame in ends.frames] == [0, 6, 13, 19]


def test_a_header_tells_size_and_times_of_every_frame(video):
    header = read_video_header(video)
    assert header.size == (16, 24)
    np.testing.assert_allclose(header.times, np.arange(20) / 10)
    assert header.fps == pytest.approx(10.0)


def test_times_of_a_varying_rate_are_those_of_the_file(tmp_path):
    times = [0, 40, 80, 1_000, 1_040, 3_000]
    path = write_video(tmp_path / "a.mkv", frames_of(6), times=times)
    clip = decode_video(path, FrameSampling(fps=100.0))
    np.testing.assert_allclose(clip.times, np.array(times) / 1_000)


def test_frames_out_of_order_in_the_file_come_in_the_order_of_their_times(tmp_path):
    """MPEG-4 with pictures that refer to later ones (B-frames) in MP4."""
    av = pytest.importorskip("av")
    path, frames = tmp_path / "a.mp4", frames_of(24, 64, 96)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        stream.codec_context.max_b_frames = 2
        stream.codec_context.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    clip = decode_video(path, FrameSampling(fps=5.0))
    assert [level(frame) for frame in clip.frames] == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22]
    np.testing.assert_allclose(clip.times, np.arange(12) / 5, atol=1e-3)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_video_is_turned_as_its_file_says(tmp_path, quarters):
    """The matrix of an MP4's track header, ISO/IEC 14496-12, section 8.3.2."""
    path = write_video(
        tmp_path / "a.mp4", frames_of(4, 64, 96), codec="mpeg4", pixels="yuv420p", rate=4
    )
    a, b = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarters]  # clockwise quarter turns
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    content[start : start + 36] = matrix
    clip = decode_video(bytes(content), FrameSampling(fps=4.0))
    upright = np.rot90(frames_of(4, 64, 96)[1], -quarters)
    assert clip.frames[1].shape == upright.shape
    assert np.abs(clip.frames[1].astype(int) - upright).mean() < 8  # the codec loses some
    assert read_video_header(bytes(content)).size == upright.shape[:2]


def test_videos_are_told_from_pictures_by_their_contents(video, tmp_path):
    Image.fromarray(frames_of(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "renamed.png").write_bytes(video.read_bytes())
    assert is_clip(tmp_path / "renamed.png")
    assert is_clip(video.read_bytes())
    assert is_clip(clip_of(frames_of(2)))
    assert not is_clip(tmp_path / "a.png")
    assert not is_clip((tmp_path / "a.png").read_bytes())
    assert not is_clip(tmp_path / "none.mp4")
    with pytest.raises(BadImageError):
        decode_image(video)


def truncated(path: pathlib.Path, share: float) -> bytes:
    content = path.read_bytes()
    return content[: int(share * len(content))]


def test_every_truncation_of_a_video_is_one_line(video, tmp_path):
    """At the front nothing can be read; further on frames are missing, and that shows."""
    mp4 = write_video(tmp_path / "a.mp4", frames_of(40, 64, 96), codec="mpeg4", pixels="yuv420p")
    for path in (video, mp4):
        for share in (0.01, 0.2, 0.5, 0.8):
            with pytest.raises(BadVideoError, match=r"^video of .* bytes: .*truncated") as caught:
                decode_video(truncated(path, share))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\0" * 4_096, "its contents are no video that is read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "its contents are no video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "its contents are no video"),
        (b"\0\0\0\x18ftypmp42" + b"\xff" * 4_096, "damaged or truncated"),
        (b"\x1aE\xdf\xa3" + b"\0" * 4_096, "damaged or truncated"),
    ],
    ids=["empty", "zeros", "playlist", "concat", "mp4 of rubbish", "matroska of rubbish"],
)
def test_what_is_no_video_is_refused(content, message, tmp_path):
    pytest.importorskip("av")
    (tmp_path / "clip.mp4").write_bytes(content)
    assert is_clip(tmp_path / "clip.mp4")
    with pytest.raises(BadVideoError, match=message):
        open_clip(tmp_path / "clip.mp4")


def test_a_video_without_pictures_is_refused():
    av = pytest.importorskip("av")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8_000
        container.mux(stream.encode(frame))
    with pytest.raises(BadVideoError, match="it has no pictures"):
        decode_video(file.getvalue())


def test_a_video_of_one_frame_is_refused(tmp_path):
    path = write_video(tmp_path / "a.mkv", frames_of(1))
    with pytest.raises(BadVideoError, match="of 1 frame none is left after sampling in multiples"):
        decode_video(path)
    with pytest.raises(BadVideoError, match="1 frames, but a clip has two or more"):
        decode_video(path, FrameSampling(multiple=1))


def test_more_pixels_than_may_be_kept_are_refused_before_decoding(video):
    with pytest.raises(BadVideoError, match=r"4 frames of 24 x 16 px are more than 1000 px"):
        decode_video(video, max_clip_pixels=1_000)


def test_more_frames_than_there_are_cannot_be_asked_for(video):
    with pytest.raises(BadVideoError, match="20 frames, but num_frames=22 are asked for"):
        decode_video(video, FrameSampling(num_frames=22))


def test_addresses_and_missing_files_are_refused(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(BadVideoError, match="it is a URL"):
        decode_video("https://example.com/a.mp4")
    with pytest.raises(BadVideoError, match="no such file"):
        decode_video(tmp_path / "none.mp4")


def test_without_pyav_video_files_are_refused_with_the_cure(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BadVideoError, match=r"needs PyAV: pip install 'mres-jax\[video\]'"):
        decode_video(video)
