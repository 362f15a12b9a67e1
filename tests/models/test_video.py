"""Laws of a tower that is given clips: its views are apart, and pictures are what they were."""

import dataclasses

import jax
import jax.numpy as jnp
import jinja2
import numpy as np
import pytest

from mres_jax.data.assemble import assemble
from mres_jax.data.conversations import prompt_messages
from mres_jax.data.packing import example_slices, pack
from mres_jax.data.types import Rung
from mres_jax.errors import CheckpointError
from mres_jax.models._chat_template import chat_template
from mres_jax.models.qwen2_vl.processor import TEMPLATE as QWEN2, make_spec
from mres_jax.models.qwen3_vl.processor import TEMPLATE as QWEN3, TEMPLATE_V5
from mres_jax.models.registry import FAMILIES
from mres_jax.protocols import Clip, extent_of
from mres_jax.resolution.policies import parse_policy
from mres_jax.testing import tiny_clip, tiny_config, tiny_qwen2_vl, tiny_tokenizer

RUNG = Rung(max_patches=192, max_tokens=160, max_views=8, max_examples=4)


@pytest.fixture(scope="module")
def tiny():
    return tiny_qwen2_vl()


@pytest.fixture(scope="module")
def encode(tiny):
    """Visual tokens of a pack; one compile with clips, one without."""
    run = jax.jit(tiny.model.encode)
    return lambda packed: np.asarray(run(jax.tree.map(jnp.asarray, packed)).tokens)


def example_of(tiny, *items, policy="native"):
    views = parse_policy(policy)([extent_of(item) for item in items], "", tiny.spec)
    messages = prompt_messages("what is the total", num_images=len(items))
    return assemble(list(items), views, messages, tiny.spec, tiny.tokenizer)


def visual_slices(packed):
    """Where the visual tokens of each view stand."""
    return [slice(s.start // 4, s.stop // 4) for s in example_slices(packed.patch_segment_ids)]


def test_a_picture_is_encoded_to_the_same_bits_beside_a_clip_and_without_one(tiny, encode):
    picture = tiny_clip(1, 24, 40).frames[0]
    still, clip = example_of(tiny, picture), example_of(tiny, tiny_clip(2, 24, 16))
    alone, beside = pack([still], RUNG), pack([still, clip], RUNG)
    assert alone.still is None
    assert beside.still is not None
    where = visual_slices(alone)[0]
    np.testing.assert_array_equal(encode(alone)[where], encode(beside)[where])


def test_the_views_of_a_clip_do_not_see_each_other_and_see_both_frames(tiny, encode):
    clip = tiny_clip(3, 24, 16)
    before = pack([example_of(tiny, clip)], RUNG)
    first, second = visual_slices(before)
    for frame in (0, 1):
        frames = [*clip.frames]
        frames[frame] = 255 - frames[frame]
        other: Clip = dataclasses.replace(clip, frames=frames)
        one, two = encode(before), encode(pack([example_of(tiny, other)], RUNG))
        assert not np.allclose(one[first], two[first], atol=1e-3)
        np.testing.assert_array_equal(one[second], two[second])


def test_a_clip_of_one_frame_twice_is_encoded_as_that_picture(tiny, encode):
    """The temporal weights are summed for the one and applied in turn for the other."""
    frame = tiny_clip(4, 16, 24).frames[0]
    twice = dataclasses.replace(tiny_clip(4, 16, 24, frames=2), frames=[frame, frame])
    moving, still = (
        pack([example_of(tiny, item, policy="fixed,tokens=6")], RUNG) for item in (twice, frame)
    )
    (where,) = visual_slices(still)
    # float32: two sums of 48 products of numbers around 1 in another order, then two layers; what
    # that rounds to is the processor's (4.5e-6 of the largest value where it has no AVX-512)
    want = encode(still)[where]
    np.testing.assert_allclose(encode(moving)[where], want, rtol=0, atol=2e-5 * np.abs(want).max())


def spec_of(tiny, **settings):
    """The processor of a model with such a `video_preprocessor_config.json`."""
    preprocessor = {"video_processor": settings}
    return make_spec(tiny.model.config, tiny.tokenizer.token_id, preprocessor=preprocessor)


def test_settings_for_clips_come_from_the_video_processor_s_file(tiny):
    area = tiny.spec.stride**2
    usual = spec_of(tiny).video
    assert (usual.min_pixels, usual.max_pixels) == (128 * area, 768 * area)
    assert usual.total_pixels == 115_200 * area
    assert (usual.fps, usual.min_frames, usual.max_frames, usual.multiple) == (2.0, 4, 768, 2)
    assert usual.token_id == tiny.tokenizer.token_id("<|video_pad|>")
    told = spec_of(
        tiny,
        size={"shortest_edge": 640, "longest_edge": 6_400},
        fps=1,
        max_frames=64,
        cap_pixels_per_frame=False,
    ).video
    assert (told.min_pixels, told.max_pixels, told.total_pixels) == (640, 6_400, None)
    assert (told.fps, told.max_frames) == (1.0, 64)
    assert usual.token_id in spec_of(tiny).reserved_token_ids  # never drawn


def made_here(family, **settings):
    """The processor of a later generation."""
    tokenizer = tiny_tokenizer()
    config = tiny_config(family, tokenizer)
    preprocessor = {"video_processor": settings}
    make_spec = FAMILIES[family].make_spec
    return config, make_spec(config, tokenizer.token_id, preprocessor=preprocessor)


def test_qwen2_5_vl_takes_clips_as_qwen2_vl_and_counts_their_seconds(tiny):
    config, spec = made_here("qwen2_5_vl")
    assert spec.position_rule == "mrope_seconds"
    assert spec.video.tokens_per_second == config.vision_config.tokens_per_second
    assert dataclasses.replace(spec.video, tokens_per_second=1.0) == spec_of(tiny).video
    assert spec.accepts >= {"frame"}


def test_qwen3_vl_limits_whole_clips_and_writes_times_before_their_views():
    _, spec = made_here("qwen3_vl")
    assert spec.position_rule == "mrope_blocks"
    video = spec.video
    assert (video.limits, video.min_pixels, video.max_pixels) == ("clip", 4_096, 25_165_824)
    assert (video.spread, video.multiple, video.frame_pixels) == ("ends", 1, None)
    assert spec.template.frame_open.format(seconds=1.25) == "<1.2 seconds><|vision_start|>"
    _, capped = made_here(
        "qwen3_vl", cap_pixels_per_frame=True, fps=1, size={"longest_edge": 9_999}
    )
    assert capped.video.frame_pixels == 768 * capped.stride**2
    assert (capped.video.max_pixels, capped.video.fps) == (9_999, 1.0)


@pytest.mark.parametrize(
    ("template", "clip"),
    [
        (QWEN2, "<|vision_start|><|video_pad|><|vision_end|>"),
        (QWEN3, "<|video_pad|>"),  # its processor writes the marks, about each view
        (TEMPLATE_V5, "<|vision_start|><|video_pad|><|vision_end|>"),
    ],
)
def test_an_exported_chat_template_has_a_place_for_clips(template, clip):
    content = [{"type": "video", "video": "a.mp4"}, {"type": "text", "text": "what"}]
    messages = [{"role": "user", "content": content}]
    text = chat_template(template, "<|image_pad|>", "<|video_pad|>")
    said = jinja2.Template(text).render(messages=messages)
    assert said.endswith(f"<|im_start|>user\n{clip}what<|im_end|>\n")
    stills = jinja2.Template(chat_template(template, "<|image_pad|>"))
    with pytest.raises(RuntimeError, match="no place for a part of type video"):
        stills.render(messages=messages, raise_exception=refuse)


def refuse(message):
    raise RuntimeError(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, r"fps=0, min_frames=4, max_frames=768 cannot be"),
        ({"fps": 1e6}, r"fps=1e\+06"),
        ({"max_frames": 2}, r"fps=2, min_frames=4, max_frames=2 cannot be"),
        ({"min_pixels": 10_000, "max_pixels": 100}, "min_pixels is 10000, above max_pixels 100"),
        ({"max_video_tokens": 0}, "max_video_tokens is 0"),
    ],
)
def test_settings_for_clips_that_cannot_be_are_refused_by_name(tiny, settings, message):
    with pytest.raises(CheckpointError, match=f"video_preprocessor_config.json: {message}"):
        spec_of(tiny, **settings)
