"""Pixels -> vision width: bytes or floats, one frame or its copies."""

import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax import nn

PATCH, FRAMES, SIZE = 4, 2, 8
MEAN, STD = (0.5, 0.25, 0.75), (0.25, 0.5, 1.0)


@pytest.fixture
def embed(rngs) -> nn.PatchEmbed:
    embed = nn.PatchEmbed(
        patch_size=PATCH,
        temporal_patch_size=FRAMES,
        out_size=SIZE,
        mean=MEAN,
        std=STD,
        use_bias=True,
        dtype=jnp.float32,
        rngs=rngs,
    )
    assert embed.bias is not None
    embed.bias[...] = jnp.arange(SIZE, dtype=jnp.float32)
    return embed


def pixels(*, frames: int = 1, seed: int = 0) -> np.ndarray:
    """Random patches, `uint8 [5 channels frames pixels]`."""
    shape = (5, 3, frames, PATCH**2)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def flat(x: np.ndarray):
    return jnp.asarray(x.reshape(len(x), -1))


def normalised(x: np.ndarray) -> np.ndarray:
    """Each channel by its own mean and spread."""
    mean, std = (np.array(v)[None, :, None, None] for v in (MEAN, STD))
    return ((x / 255 - mean) / std).astype(np.float32)


def test_still_rows_of_a_pack_with_clips_come_out_to_the_last_bit_as_without(embed):
    still, moving = pixels(), pixels(frames=FRAMES, seed=1)
    wide = np.concatenate([still, np.full_like(still, 77)], axis=2)  # what is behind is not read
    mixed = flat(np.concatenate([wide, moving]))
    flags = jnp.asarray([True] * 5 + [False] * 5)
    for convert in (lambda x: x, lambda x: x.astype(jnp.float32) / 255):
        out = embed(convert(mixed), flags)
        np.testing.assert_array_equal(out[:5], embed(convert(flat(still))))
        np.testing.assert_array_equal(out[5:], embed(convert(flat(moving))))


@pytest.mark.parametrize("frames", [1, FRAMES], ids=["still", "video"])
def test_bytes_embed_as_their_normalised_floats(embed, frames):
    x = pixels(frames=frames)
    # float32: sums of up to 96 products of numbers around 1
    np.testing.assert_allclose(embed(flat(x)), embed(flat(normalised(x))), rtol=0, atol=1e-5)


def test_a_still_row_embeds_as_its_frame_repeated(embed):
    x = pixels()
    repeated = np.repeat(x, FRAMES, axis=2)
    np.testing.assert_allclose(embed(flat(x)), embed(flat(repeated)), rtol=0, atol=1e-5)  # as above


def test_the_frames_of_a_row_have_weights_of_their_own(embed):
    x = pixels(frames=FRAMES)
    assert np.abs(embed(flat(x)) - embed(flat(x[:, :, ::-1]))).max() > 0.1


def test_the_embedding_is_linear_in_channel_frame_and_pixel_order(embed):
    x = normalised(pixels(frames=FRAMES)).reshape(5, -1).astype(np.float64)
    expected = x @ np.asarray(embed.kernel[...], np.float64) + np.arange(SIZE)
    found = embed(jnp.asarray(x.astype(np.float32)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)  # as above


def test_rows_of_another_length_are_refused(embed):
    message = r"rows of 49 values; a still row has 48, a row of 2 frames 96\.$"
    with pytest.raises(ValueError, match=message):
        embed(jnp.zeros((2, 49)))
