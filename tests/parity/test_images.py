"""Sizes and pixels of Hugging Face's Qwen2-VL image processor, from live `transformers`."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mres_jax.data.images import decode_image
from mres_jax.data.patches import patchify
from mres_jax.data.views import render_view
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size, View, fit_size
from mres_jax.nn.patch_embed import normalise

pytestmark = pytest.mark.parity

PATCH, MERGE, FRAMES = 14, 2, 2
STRIDE = PATCH * MERGE
LIMITS = {"min_pixels": 56 * 56, "max_pixels": 400 * STRIDE**2}


@pytest.fixture(scope="module")
def module():
    name = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
    return pytest.importorskip(name, reason="needs transformers 5.x")


@pytest.fixture(scope="module")
def processor(module):
    return module.Qwen2VLImageProcessorPil(**LIMITS)


def photograph(height, width):
    """Smooth colours with some noise: a resize has something to blur."""
    rng = np.random.default_rng(height * 10_007 + width)
    coarse = rng.integers(0, 256, (height // 9 + 2, width // 9 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-20, 21, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def our_rows(image, processor):
    """Still rows, normalised as the model does it before its first matrix product."""
    height, width = image.shape[:2]
    size = fit_size(height, width, stride=STRIDE, **LIMITS, hf_compat=True)
    pixels = render_view(image, View(item=0, crop=Box(0, 0, height, width), size=size))
    patches, _ = patchify(pixels, patch_size=PATCH, merge_size=MERGE)
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    return size, np.asarray(normalise(jnp.asarray(patches), mean, std))


def their_rows(image, processor):
    out = processor(images=[Image.fromarray(image)], return_tensors="np")
    rows = out["pixel_values"].reshape(-1, 3, FRAMES, PATCH**2)
    grid = out["image_grid_thw"][0]
    return Size(*(int(n) * PATCH for n in grid[1:])), rows


def assert_pixels_equal(ours, theirs):
    difference = np.abs(ours - theirs.reshape(ours.shape)).max()
    print(f"largest pixel difference {difference:.3g}")
    assert difference <= 1e-6  # float32 rounding of values up to 2.7


def test_sizes_equal_smart_resize_over_random_sides_and_limits(module):
    rng = np.random.default_rng(0)
    sides = np.exp(rng.uniform(0, np.log(8_000), (20_000, 2))).astype(int).tolist()
    strides = rng.choice([14, 28, 32], 20_000).tolist()
    budgets = rng.integers(1, 17_000, 20_000).tolist()
    for (height, width), stride, budget in zip(sides, strides, budgets, strict=True):
        most = budget * stride**2
        limits = {"min_pixels": min(3_136, most), "max_pixels": most}
        try:
            expected = module.smart_resize(height, width, factor=stride, **limits)
        except ValueError:
            with pytest.raises(MresError, match="takes at most 200"):
                fit_size(height, width, stride=stride, **limits, hf_compat=True)
            continue
        assert fit_size(height, width, stride=stride, **limits, hf_compat=True) == expected


def test_grids_equal_those_of_the_processor_over_500_random_sizes(processor):
    rng = np.random.default_rng(1)
    sides = np.exp(rng.uniform(np.log(4), np.log(700), (500, 2))).astype(int)
    for height, width in sides.tolist():
        size = fit_size(height, width, stride=STRIDE, **LIMITS, hf_compat=True)
        out = processor(images=[Image.new("RGB", (width, height))], return_tensors="np")
        assert out["image_grid_thw"].tolist() == [[1, size.height // PATCH, size.width // PATCH]], (
            height,
            width,
        )


@pytest.mark.parametrize(
    ("height", "width"),
    [
        (448, 448),  # a multiple already
        (560, 560),  # at the cap
        (450, 301),  # to the nearest multiple
        (900, 1_400),  # shrunk
        (1_200, 350),  # shrunk, tall
        (17, 23),  # enlarged
        (30, 305),  # a strip
        (13, 400),  # theirs shrinks its long side
        (5, 5),
    ],
)
def test_normalised_pixels_equal_those_of_the_processor(processor, height, width):
    image = photograph(height, width)
    size, ours = our_rows(image, processor)
    their_size, theirs = their_rows(image, processor)
    assert size == their_size
    for frame in range(FRAMES):
        assert_pixels_equal(ours, theirs[:, :, frame])


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "L", "1", "CMYK"])
def test_files_of_other_modes_have_the_pixels_of_the_processor(processor, kind):
    image = Image.fromarray(photograph(112, 84))
    if kind in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    buffer = io.BytesIO()
    image.convert(kind).save(buffer, "JPEG" if kind == "CMYK" else "PNG")
    _, ours = our_rows(decode_image(buffer.getvalue()), processor)
    rows = processor(images=[Image.open(buffer)], return_tensors="np")["pixel_values"]
    assert_pixels_equal(ours, rows.reshape(-1, 3, FRAMES, PATCH**2)[:, :, 0])
