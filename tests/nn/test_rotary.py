"""Rotary positions: turns keep lengths, and scores see differences only."""

import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax import nn

HEAD, THETA = 16, 10_000.0
SECTION = (2, 3, 3)


def heads(length: int, seed: int = 0):
    """Random heads, `[t 2 k]`."""
    shape = (length, 2, HEAD)
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def places(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 50, (rows, length)).astype(np.int32)


def decoder(positions, section=SECTION) -> nn.Rotary:
    return nn.decoder_rotary(
        jnp.asarray(positions), head_dim=HEAD, theta=THETA, mrope_section=section
    )


def vision(positions) -> nn.Rotary:
    return nn.vision_rotary(jnp.asarray(positions.T), head_dim=HEAD)


def plain(positions) -> nn.Rotary:
    return decoder(positions, None)


KINDS = {"plain": (plain, 3), "mrope": (decoder, 3), "vision": (vision, 2)}


def test_mrope_with_three_equal_rows_is_plain():
    positions = np.tile(places(1, 9), (3, 1))
    for one, other in zip(decoder(positions), plain(positions), strict=True):
        np.testing.assert_array_equal(one, other)


def test_plain_reads_the_first_row_alone():
    positions = places(3, 9)
    for one, other in zip(plain(positions), plain(positions[[0, 0, 0]]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("row", range(3), ids=["t", "h", "w"])
def test_each_row_turns_the_frequencies_of_its_section(row):
    before = np.zeros((3, 1), np.int32)
    after = before.copy()
    after[row] = 1
    moved = np.asarray(decoder(before).sin != decoder(after).sin)[0]
    assert moved.tolist() == np.repeat(np.arange(3) == row, SECTION).tolist()


def test_interleaved_frequencies_take_turns_as_long_as_columns_and_rows_have_some():
    axes = []
    for row in range(3):
        after = np.zeros((3, 1), np.int32)
        after[row] = 1
        rotary = nn.decoder_rotary(
            jnp.asarray(after), head_dim=16, theta=THETA, mrope_section=(4, 2, 2), interleaved=True
        )
        axes.append(np.asarray(rotary.sin)[0] != 0)
    assert np.argmax(axes, axis=0).tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert np.sum(axes, axis=0).tolist() == [1] * 8


def test_half_of_the_vision_frequencies_turns_with_the_row_and_half_with_the_column():
    angles = np.arctan2(*(np.asarray(x) for x in reversed(vision(np.array([[1], [2]], np.int32)))))
    frequencies = 10_000.0 ** -(np.arange(4) / 4)
    np.testing.assert_allclose(angles[0], [*frequencies, *(2 * frequencies)], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_depend_on_differences_of_positions_only(kind):
    make, rows = KINDS[kind]
    positions, q, k = places(rows, 9), heads(9), heads(9, seed=1)
    shift = np.array([[7], [20], [3]], np.int32)[:rows]
    scores = []
    for at in (positions, positions + shift):
        rotary = make(at)
        turned = (nn.apply_rotary(x, rotary) for x in (q, k))
        scores.append(np.einsum("ihk,jhk->hij", *map(np.asarray, turned)))
    # angles of up to 70 are off by 70 * 2**-24, which sums of 16 products hardly enlarge
    np.testing.assert_allclose(*scores, rtol=0, atol=5e-5)
    unturned = np.einsum("ihk,jhk->hij", *map(np.asarray, (q, k)))
    assert np.abs(scores[0] - unturned).max() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_turning_keeps_the_length_of_every_pair_and_position_0_turns_nothing(kind):
    make, rows = KINDS[kind]
    x = heads(9)
    turned = nn.apply_rotary(x, make(places(rows, 9)))
    pairs = [np.hypot(*np.split(np.asarray(y), 2, axis=-1)) for y in (x, turned)]
    np.testing.assert_allclose(*pairs, rtol=0, atol=2e-6)  # rounding of two products
    still = nn.apply_rotary(x, make(np.zeros((rows, 9), np.int32)))
    np.testing.assert_array_equal(still, x)


def test_angles_are_float32_and_heads_keep_their_type():
    x = heads(9).astype(jnp.bfloat16)
    rotary = decoder(places(3, 9))
    assert {y.dtype for y in rotary} == {jnp.dtype("float32")}
    assert nn.apply_rotary(x, rotary).dtype == jnp.bfloat16


def test_impossible_widths_are_refused():
    with pytest.raises(ValueError, match=r"head_dim=6 is not a multiple of 4\.$"):
        nn.vision_rotary(jnp.zeros((1, 2), jnp.int32), head_dim=6)
    message = r"mrope_section=\[2, 3, 4\] must be three counts that sum to head_dim / 2 = 8\.$"
    with pytest.raises(ValueError, match=message):
        decoder(np.zeros((3, 1), np.int32), (2, 3, 4))
