"""Frames and sizes of Hugging Face's video processors, from live `transformers`."""

import dataclasses
import importlib
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
from video_peers import video_processor

from mres_jax.data.runs import texts_around
from mres_jax.data.video import FrameSampling
from mres_jax.errors import BadVideoError
from mres_jax.geometry import ClipSize, Size
from mres_jax.models.qwen3_vl.processor import TEMPLATE_V5, make_spec
from mres_jax.resolution.clips import clip_views, native_clip_size
from mres_jax.testing import tiny_config, tiny_spec, tiny_tokenizer

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

FACTORS = {"qwen2_vl": 28, "qwen3_vl": 32}
CLASSES = {"qwen2_vl": "Qwen2VLVideoProcessor", "qwen3_vl": "Qwen3VLVideoProcessor"}


@pytest.fixture(scope="module", params=FACTORS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def processor(family) -> Any:
    """Their video processor, which gives the size in place of resized frames."""
    made = video_processor(family, CLASSES[family])
    base = type(made).__mro__[1]
    with mock.patch.object(base, "resize", lambda self, image, size, **_: size):
        made.num_frames = None
        yield made


def random_clips(count: int, *, seed: int):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        height, width = np.exp(rng.uniform(np.log(40), np.log(3_000), 2)).astype(int).tolist()
        yield height, width, 2 * int(rng.integers(1, 400))


def test_sampled_frames_are_theirs_over_500_videos(family, processor):
    rng = np.random.default_rng(0)
    spread = {"qwen2_vl": ("starts", 2), "qwen3_vl": ("ends", 1)}[family]
    metadata = importlib.import_module("transformers.video_utils").VideoMetadata
    same = 0
    for _ in range(500):
        total, rate = int(rng.integers(1, 4_000)), float(rng.choice([12.5, 24, 25, 29.97, 30, 60]))
        fps = float(rng.choice([0.5, 1, 2, 4]))
        sampling = FrameSampling(fps=fps, spread=spread[0], multiple=spread[1])
        try:
            ours = sampling.choose(total, rate, name="a")
        except BadVideoError:
            assert total < spread[1]  # theirs divides by zero
            continue
        theirs = processor.sample_frames(
            metadata(total_num_frames=total, fps=rate), fps=fps, min_frames=4, max_frames=768
        )
        theirs = [int(i) for i in theirs]
        assert ours.tolist() == theirs[: len(ours)]
        assert theirs[len(ours) :] in ([], [total])  # by rounding, a frame behind the last one
        same += 1
    assert same > 490


@pytest.mark.parametrize("is_capped", [True, False], ids=["capped", "uncapped"])
def test_sizes_of_frames_are_theirs_over_500_clips(family, processor, is_capped):
    factor = FACTORS[family]
    edges = processor.size
    if family == "qwen3_vl":
        edges = {"shortest_edge": 4_096, "longest_edge": 25_165_824}  # of the released files
    spec = _spec(family, edges, is_capped)
    sizes = importlib.import_module("transformers.image_utils").SizeDict(**edges)
    for height, width, frames in random_clips(500, seed=1):
        theirs = processor.resize(
            torch.empty(1, frames, 3, height, width, device="meta"),
            size=sizes,
            resample=None,
            factor=factor,
            temporal_factor=2,
            cap_pixels_per_frame=is_capped,
        )
        clip = ClipSize(Size(height, width), tuple(i / 2 for i in range(frames)))
        assert native_clip_size(clip, spec) == (theirs.height, theirs.width)


def _spec(family: str, edges: Any, is_capped: bool) -> Any:
    factor = FACTORS[family]
    module = importlib.import_module(f"mres_jax.models.{family}.processor")
    video = module.video_spec(
        {"size": edges, "cap_pixels_per_frame": is_capped}, token_id=1, stride=factor, group=2
    )
    tiny = tiny_spec(tiny_tokenizer())
    sizes = {"patch_size": factor // 2, "temporal_patch_size": 2}
    return dataclasses.replace(tiny, **sizes, video=video, resize_rule="hf")


def test_texts_of_times_are_theirs_over_200_videos():
    """Times of the frames that are looked at, and the blocks about them; sampled as the model does.

    Their chat template puts marks around all blocks, which 4.57 takes away again: `TEMPLATE_V5`
    has them, `TEMPLATE` has not.
    """
    processing = importlib.import_module("transformers.models.qwen3_vl.processing_qwen3_vl")
    metadata = importlib.import_module("transformers.video_utils").VideoMetadata
    theirs = object.__new__(processing.Qwen3VLProcessor)
    theirs.video_processor = SimpleNamespace(merge_size=2, temporal_patch_size=2)
    theirs.video_token, theirs.vision_start_token = "<|video_pad|>", "<|vision_start|>"
    theirs.vision_end_token = "<|vision_end|>"
    rng, sampling = np.random.default_rng(4), FrameSampling(multiple=1, spread="ends")
    spec = tiny_qwen3_spec()
    for _ in range(200):
        total, rate = int(rng.integers(2, 4_000)), float(rng.choice([12.5, 24, 25, 30, 60]))
        chosen = sampling.choose(total, rate, name="a")
        clip = ClipSize(Size(16, 8), tuple(i / rate for i in chosen.tolist()))
        views = clip_views(0, clip, Size(16, 8), spec)
        inputs = {
            "video_grid_thw": np.array([[len(views), 4, 2]]),
            "video_metadata": [
                metadata(total_num_frames=total, fps=rate, frames_indices=chosen.tolist())
            ],
        }
        blocks = list(texts_around(views, spec))
        pads = "<|video_pad|>" * 2
        ours = "".join(
            text + (pads if i % 2 and i < len(blocks) - 1 else "") for i, text in enumerate(blocks)
        )
        expected = theirs.replace_video_token(inputs, 0)
        assert ours == expected
        marked = dataclasses.replace(spec, template=TEMPLATE_V5)
        blocks = list(texts_around(views, marked))
        assert (blocks[0], blocks[-1]) == (theirs.vision_start_token, theirs.vision_end_token)


def test_seconds_of_a_view_are_theirs_over_200_videos():
    """The step of Qwen2.5-VL's clock, to the last bit of float32, for any rate and sampling."""
    metadata = importlib.import_module("transformers.video_utils").VideoMetadata
    rng, sampling = np.random.default_rng(5), FrameSampling()
    for _ in range(200):
        total, rate = int(rng.integers(8, 4_000)), float(rng.choice([12.5, 24, 25, 30, 60]))
        chosen = sampling.choose(total, rate, name="a")
        sampled = metadata(total_num_frames=total, fps=rate, frames_indices=chosen.tolist())
        ours = total / (rate * len(chosen))  # as `decode_video` has it
        assert np.float32(2 * ours) == pytest.approx(2 / sampled.sampled_fps, rel=1e-7)


def tiny_qwen3_spec() -> Any:
    vocabulary = tiny_tokenizer()
    config = tiny_config("qwen3_vl", vocabulary)
    return make_spec(config, vocabulary.token_id)
