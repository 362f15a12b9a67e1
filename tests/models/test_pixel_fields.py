"""Settings of image processors: released files load without a word, other pixels are refused."""

import re
import warnings

import pytest

from mres_jax import testing
from mres_jax.errors import CheckpointError
from mres_jax.models.registry import family_of
from mres_jax.testing.tiny_llava import SIDE

# Values as on the hub; sizes are those of a tiny model where it has to agree with them.
CLIP = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
STEPS = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True}
FACTOR = {"rescale_factor": 0.00392156862745098}
EDGES = {"size": {"longest_edge": 12_845_056, "shortest_edge": 3_136}}
QWEN = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
QWEN |= {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2, **CLIP}
LIMITS = {"min_pixels": 3_136, "max_pixels": 12_845_056}
NOTHING = (
    *("crop_size", "device", "disable_grouping", "do_center_crop", "do_pad"),
    *("input_data_format", "max_pixels", "min_pixels", "pad_size", "return_tensors"),
)
FAST = {**dict.fromkeys(NOTHING), "data_format": "channels_first", "default_to_square": True}
SQUARE = {"crop_size": {"height": SIDE, "width": SIDE}, "size": {"shortest_edge": SIDE}}
SQUARE |= {"do_center_crop": True, "image_processor_type": "CLIPImageProcessor", "resample": 3}
SMOL = {
    **{"image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor"},
    **{"do_image_splitting": True, "do_pad": True, "resample": 1, **STEPS, **FACTOR, **HALF},
    **{"max_image_size": {"longest_edge": 24}, "size": {"longest_edge": 72}},
}
CANVASES = [[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]]
CLIPS = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 24}}
MODELS = {
    "qwen2_vl": testing.tiny_qwen2_vl,
    "qwen2_5_vl": testing.tiny_qwen2_5_vl,
    "qwen3_vl": testing.tiny_qwen3_vl,
    "nativeres_llava": testing.tiny_nativeres_llava,
    "naflex": testing.tiny_naflex,
    "llava": testing.tiny_llava,
    "llava_next": testing.tiny_llava_next,
    "llava_hr": testing.tiny_llava_hr,
    "smolvlm": testing.tiny_smolvlm,
}
RELEASED = [
    ("qwen2_vl", {**QWEN, **LIMITS}),
    ("qwen2_vl", {**QWEN, **LIMITS, **STEPS, **FACTOR, "resample": 3, "size": LIMITS}),
    ("qwen2_5_vl", {**QWEN, **LIMITS, "image_processor_type": "Qwen2_5_VLImageProcessor"}),
    ("qwen2_5_vl", {**QWEN, **LIMITS, **EDGES, **STEPS, **FACTOR, "resample": 3}),
    ("qwen3_vl", {**QWEN, **EDGES, "processor_class": "Qwen3VLProcessor"}),
    ("qwen3_vl", {**QWEN, **FAST, **EDGES, **STEPS, **FACTOR, "resample": 3}),
    ("nativeres_llava", {**QWEN, **LIMITS}),
    (
        "naflex",
        {
            **{"image_processor_type": "Siglip2ImageProcessor", "max_num_patches": 256},
            **{"patch_size": 4, "resample": 2, **STEPS, **FACTOR, **HALF, "do_convert_rgb": None},
        },
    ),
    ("llava", {**SQUARE, **STEPS, **FACTOR, **CLIP, "processor_class": "LlavaProcessor"}),
    ("llava", {**SQUARE, **STEPS, **FACTOR, **CLIP, "_valid_processor_keys": ["images"]}),
    (
        "llava_next",
        {
            **{**SQUARE, **STEPS, **FACTOR, **CLIP, "aspect_ratio_setting": "anyres"},
            **{"do_pad": True, "image_grid_pinpoints": CANVASES},
        },
    ),
    (  # CLIP's own, as towers beside a checkpoint have it
        "llava_hr",
        {
            **{"crop_size": 336, "size": 336, "do_center_crop": True, "do_normalize": True},
            **{"do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor"},
            **{"resample": 3, **CLIP},
        },
    ),
    ("smolvlm", {**SMOL, "video_sampling": CLIPS}),
    ("smolvlm", SMOL),
]


@pytest.fixture(scope="module")
def models():
    return {name: make() for name, make in MODELS.items()}


def spec_of(tiny, settings):
    config = tiny.model.config
    return family_of(config).make_spec(config, tiny.tokenizer.token_id, preprocessor=settings)


@pytest.mark.parametrize(("name", "settings"), RELEASED)
def test_released_files_are_read_without_a_word(name, settings, models):
    with warnings.catch_warnings(action="error"):
        spec_of(models[name], settings)


@pytest.mark.parametrize("name", MODELS)
def test_other_pixels_are_refused_by_name(name, models):
    filters = {"smolvlm": "lanczos", "naflex": "bilinear"}
    own = filters.get(name, "bicubic")
    cases = [
        ({"do_resize": False}, "do_resize is False, but views are always resized"),
        ({"do_rescale": False}, "do_rescale is False, but values are always divided by 255"),
        ({"do_normalize": False}, "do_normalize is False, but values are always normalised"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor is 0.00784313725490196, have 1/255"),
        ({"resample": 0}, f"resample is 0 (nearest), but the model's is {own}"),
        ({"resample": 9}, f"resample is 9 (no filter), but the model's is {own}"),
        ({"resample": "3"}, "resample is '3', not int"),
    ]
    for settings, message in cases:
        where = re.escape(f"preprocessor_config.json: {message}")
        with pytest.raises(CheckpointError, match=f"^{where}"):
            spec_of(models[name], settings)


@pytest.mark.parametrize("name", MODELS)
def test_unknown_settings_are_named_in_one_warning(name, models):
    with pytest.warns(UserWarning, match="unknown fields are ignored: do_sharpen, gamma"):
        spec_of(models[name], {"gamma": 2.2, "do_sharpen": True, "nothing": None})


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "nativeres_llava"])
def test_a_size_that_would_not_be_read_is_refused(name, models):
    for size, wrong in [
        (LIMITS, "max_pixels, min_pixels"),
        ({"height": 224, "width": 224}, "height, width"),
        ({**EDGES["size"], "max_height": 9}, "max_height"),
    ]:
        message = rf"size has {wrong}; write shortest_edge and longest_edge"
        for more in ({}, dict.fromkeys(LIMITS)):
            with pytest.raises(CheckpointError, match=message):
                spec_of(models[name], {"size": size, **more})


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "nativeres_llava"])
def test_patches_of_another_size_than_the_tower_s_are_refused(name, models):
    vision = models[name].model.config.vision_config
    sizes = {
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
    }
    for field, own in sizes.items():
        message = f"{field} is {own + 1}, but the model has {own}"
        with pytest.raises(CheckpointError, match=message):
            spec_of(models[name], {field: own + 1})


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_other_pixels_of_clips_are_refused_too(name, models):
    released = {"do_sample_frames": True, "fps": 2, **FAST, **STEPS, **FACTOR, **HALF}
    released |= {"size": {"longest_edge": 24} if name == "smolvlm" else EDGES["size"]}
    with warnings.catch_warnings(action="error"):
        spec_of(models[name], {"video_processor": released})
    cases = [
        ({"do_normalize": False}, "do_normalize is False"),
        ({"resample": 2}, r"resample is 2 \(bilinear\)"),
        ({"size": {"height": 24, "width": 24}}, "size has height, width; write "),
    ]
    for changes, message in cases:
        with pytest.raises(CheckpointError, match=message):
            spec_of(models[name], {"video_processor": released | changes})


def test_all_that_is_wrong_is_one_line(models):
    settings = {"do_normalize": False, "resample": 2}
    with pytest.raises(CheckpointError) as error:
        spec_of(models["llava"], settings)
    assert str(error.value) == (
        "preprocessor_config.json: do_normalize is False, but values are always normalised; "
        "resample is 2 (bilinear), but the model's is bicubic."
    )


@pytest.mark.parametrize("name", ["llava", "llava_next"])
def test_squares_of_another_side_than_the_model_s_are_refused(name, models):
    for field, size in [
        ("crop_size", {"height": 336, "width": SIDE}),
        ("crop_size", 336),
        ("size", {"shortest_edge": 336}),
        ("size", 336),
    ]:
        message = rf"{field} is {re.escape(repr(size))}, but the model's squares have {SIDE} px"
        with pytest.raises(CheckpointError, match=message):
            spec_of(models[name], {field: size})


def test_other_canvases_than_the_model_s_are_refused(models):
    message = r"image_grid_pinpoints is \[\[336, 672\]\], but the model has \[\["
    with pytest.raises(CheckpointError, match=message):
        spec_of(models["llava_next"], {"image_grid_pinpoints": [[336, 672]]})
