"""ConvNeXt on canvases: what lies around a view is never seen. transformers: tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mres_jax import testing
from mres_jax.models.convnext.config import ConvNeXtConfig, convnext_large, convnext_xxlarge
from mres_jax.models.convnext.model import ConvNeXt

CONFIG = ConvNeXtConfig(depths=(1, 2, 1, 1), hidden_sizes=(8, 8, 12, 16))


@pytest.fixture(scope="module")
def run():
    model = testing.fill(lambda: ConvNeXt(CONFIG, rngs=nnx.Rngs(0)), scale=0.4)
    graphdef, state = nnx.split(model)

    @jax.jit
    def compute(pixels, sizes):
        return nnx.merge(graphdef, state)(pixels, sizes)

    return lambda pixels, sizes: np.asarray(compute(jnp.asarray(pixels), jnp.asarray(sizes)))


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng([height, width]).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.slow
def test_a_view_with_a_margin_is_what_it_is_without(run):
    """Within rounding: a convolution may sum in another order on another canvas."""
    views = [picture(64, 96), picture(96, 32), picture(128, 128)]
    canvas = np.zeros((4, 128, 160, 3), np.uint8)
    sizes = np.zeros((4, 2), np.int32)
    for place, view in enumerate(views):
        canvas[place, : view.shape[0], : view.shape[1]] = view
        sizes[place] = view.shape[:2]
    together = run(canvas, sizes)
    for place, view in enumerate(views):
        height, width = view.shape[0] // 32, view.shape[1] // 32
        alone = run(view[None], sizes[place : place + 1])[0]
        assert alone.shape == (height, width, 16)
        np.testing.assert_allclose(together[place, :height, :width], alone, atol=2e-5)


def test_what_lies_in_the_margin_changes_no_bit(run):
    canvas, sizes = np.zeros((1, 128, 160, 3), np.uint8), np.array([[64, 96]], np.int32)
    canvas[0, :64, :96] = picture(64, 96)
    poisoned = np.full_like(canvas, 255)
    poisoned[0, :64, :96] = canvas[0, :64, :96]
    first, second = run(canvas, sizes), run(poisoned, sizes)
    np.testing.assert_array_equal(first[0, :2, :3], second[0, :2, :3])


def test_without_the_mask_the_margin_is_seen(run, monkeypatch):
    """The law above says something: a margin of white is not a margin of nothing."""
    canvas = np.full((1, 128, 160, 3), 255, np.uint8)
    canvas[0, :64, :96] = picture(64, 96)
    masked = run(canvas, np.array([[64, 96]], np.int32))
    unmasked = run(canvas, np.array([[128, 160]], np.int32))
    assert np.abs(masked - unmasked)[0, :2, :3].max() > 1e-2


@pytest.mark.parametrize(
    ("config", "hidden", "millions"),
    [(convnext_large(), 1_536, 200.13), (convnext_xxlarge(), 0, 846.47)],
    ids=["L", "XXL"],
)
def test_released_sizes_have_the_parameters_that_timm_lists(config, hidden, millions):
    """timm counts the head too: a norm, a hidden layer where there is one, 1,000 classes."""
    state = nnx.state(nnx.eval_shape(lambda: ConvNeXt(config, rngs=nnx.Rngs(0))), nnx.Param)
    width = config.hidden_sizes[-1]
    head = 2 * width + hidden * (width + 1) + 1_000 * ((hidden or width) + 1)
    trunk = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state))
    assert (trunk + head) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize(
    ("config", "per_cell"), [(convnext_large(), 1.4024e9), (convnext_xxlarge(), 6.1864e9)]
)
def test_flops_are_those_counted_by_torch(config, per_cell):
    """torch's counter on the released modules: so many for each 32 x 32 px, to five digits."""
    assert config.flops(1_024, 768) == pytest.approx(32 * 24 * per_cell, rel=5e-5)


def test_sizes_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match=r"3 depths and 4 hidden_sizes"):
        ConvNeXtConfig(depths=(1, 1, 1), hidden_sizes=(8, 8, 8, 8))
    with pytest.raises(ValueError, match=r"kernel_size=4 odd"):
        ConvNeXtConfig(depths=(1,), hidden_sizes=(8,), kernel_size=4)
