"""What the host side must know of a SmolVLM2: numbered squares, one turn after the other."""

from collections.abc import Callable, Mapping
from typing import Any

from mres_jax.data.spec import (
    ChatTemplate,
    PositionTable,
    ProcessorSpec,
    SplitRule,
    VideoSpec,
)
from mres_jax.data.splits import LARGEST
from mres_jax.data.video.sampling import MAX_FPS
from mres_jax.errors import CheckpointError
from mres_jax.models.hf_fields import Fields
from mres_jax.models.pixel_fields import UNUSED, check_pixels
from mres_jax.models.smolvlm.config import SmolVLMConfig

SQUARES = 4  # a side of the longest picture, in released processors
AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"
TILE = "<row_{row}_col_{column}>"
END = "<end_of_utterance>"
FILE = "preprocessor_config.json"
_READ = ("max_image_size", "do_image_splitting", "video_sampling", *UNUSED)
_CLIP_READ = ("fps", "num_frames", "do_sample_frames")

FPS, MAX_FRAMES, MIN_FRAMES = 1.0, 64, 2  # of clips; a clip has two frames or more here

TEMPLATE = ChatTemplate(
    start="<|im_start|>",
    system=None,
    turn_open="",
    turn_close="",
    roles=(
        ("system", "System:", f"{END}\n"),
        ("user", "User:", f"{END}\n"),
        ("assistant", "Assistant:", f"{END}\n"),
    ),
    before_text=" ",
    answer_open=" ",
    image_open=AROUND + WHOLE,
    image_close=AROUND,
    clip_open="You are provided the following series of {count} frames from a {length} [H:MM:SS] "
    "video.\n",
    clip_close="\n\n",
    frame_open="\nFrame from {clock}:" + AROUND + WHOLE,
    frame_close=AROUND,
    is_joined=True,
)


def make_spec(
    config: SmolVLMConfig,
    token_id: Callable[[str], int],
    *,
    preprocessor: Mapping[str, Any] | None = None,
) -> ProcessorSpec:
    """Returns the processor's description.

    Args:
      config: the model.
      token_id: id of a control token by name.
      preprocessor: contents of `preprocessor_config.json`, which says how long the longer side of a
        picture becomes, whether it is cut, and which frames of a clip are looked at; None for a
        model that was made here. Settings for clips alone are nested in it under `video_processor`.

    Raises:
      CheckpointError: a vocabulary without the tokens that the prompt is made of, or a processor
        that makes other squares than the tower takes or other pixels than we do.
    """
    vision = config.vision_config
    shown = vision.table_side * vision.patch_size
    fields = Fields(preprocessor or {}, FILE)
    rule, default_policy = _rule(config, token_id, fields)
    for each in (fields, fields.child("video_processor")):
        check_pixels(
            each.content,
            each.where,
            resample="lanczos",
            edges=("longest_edge",),
            known=(*_READ, *_CLIP_READ),
        )
    placeholders = [config.image_token_id, *(token_id(name) for name in (AROUND, WHOLE))]
    numbers = range(1, rule.most + 1)
    tiles = [token_id(TILE.format(row=row, column=column)) for row in numbers for column in numbers]
    return ProcessorSpec(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=1,
        mean=vision.image_mean,
        std=vision.image_std,
        min_pixels=shown**2,
        max_pixels=shown**2,
        image_token_id=config.image_token_id,
        pad_token_id=token_id("<|im_end|>"),
        eos_token_ids=(token_id(END),),
        reserved_token_ids=(*placeholders, *tiles),
        template=TEMPLATE,
        position_rule="plain",
        coord_frame="relative_1000",
        accepts=frozenset({"image", "tile", "frame"}),
        video=VideoSpec(
            token_id=config.image_token_id,
            min_pixels=shown**2,
            max_pixels=shown**2,
            multiple=1,
            spread="inner",
            **_frame_rates(_clip_fields(fields)),
        ),
        image_size=shown,
        resample="lanczos",
        default_policy=default_policy,
        positions=PositionTable(side=vision.table_side, resize="none"),
        split=rule,
    )


def preprocessor_to_hf(spec: ProcessorSpec) -> dict[str, Any]:
    """Contents of a `preprocessor_config.json` with which `transformers` makes the same squares."""
    assert spec.split is not None
    assert spec.video is not None
    return {
        "image_processor_type": "SmolVLMImageProcessor",
        "processor_class": "SmolVLMProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"longest_edge": spec.split.longest},
        "max_image_size": {"longest_edge": spec.split.side},
        "do_image_splitting": spec.default_policy == "split",
        "do_pad": True,
        "resample": 1,  # Lanczos
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
        "video_sampling": {
            "fps": spec.video.fps,
            "max_frames": spec.video.max_frames,
            "video_size": {"longest_edge": spec.split.frame_longest},
        },
    }


def processor_to_hf(spec: ProcessorSpec) -> dict[str, Any]:
    """Contents of a `processor_config.json`: visual tokens of a square."""
    assert spec.image_size is not None
    return {
        "processor_class": "SmolVLMProcessor",
        "image_seq_len": (spec.image_size // spec.stride) ** 2,
    }


def _rule(
    config: SmolVLMConfig, token_id: Callable[[str], int], fields: Fields
) -> tuple[SplitRule, str]:
    """The squares, and the policy that shows them as the file says."""
    vision = config.vision_config
    side = fields.child("max_image_size").size("longest_edge", vision.image_size)
    if side != vision.image_size:
        raise CheckpointError(
            f"{FILE}: max_image_size is {side} px, but the tower takes {vision.image_size}."
        )
    most = _numbered(token_id, LARGEST // side)
    usual = min(SQUARES, most) * side
    longest = fields.child("size").size("longest_edge", usual, most=LARGEST)
    rule = SplitRule(
        side=side,
        shown=vision.table_side * vision.patch_size,
        longest=longest,
        frame_longest=_frame_longest(_clip_fields(fields), longest, side),
        most=most,
        tile_open=AROUND + TILE,
        row_end="\n",
        tiles_end="\n",
    )
    is_cut = fields.get("do_image_splitting", True, bool)
    if is_cut and -(-longest // side) > most:
        raise CheckpointError(
            f"{FILE}: size is {longest} px, {-(-longest // side)} squares of {side} px a side, but "
            f"the vocabulary numbers {most}."
        )
    return rule, "split" if is_cut else "split,mode=whole"


def _clip_fields(fields: Fields) -> Fields:
    """Where the video processor of `transformers` finds its settings: beside those for pictures
    unless it has a file of its own."""
    own = fields.child("video_processor")
    return own if own.content else fields


def _frame_rates(fields: Fields) -> dict[str, Any]:
    """`fps`, `min_frames` and `max_frames` of a `VideoSpec`; raises `CheckpointError`."""
    sampling = fields.child("video_sampling")
    fps = float(sampling.get("fps", fields.get("fps", FPS, (int, float)), (int, float)))
    most = sampling.size("max_frames", fields.size("num_frames", MAX_FRAMES))
    if not 0 < fps <= MAX_FPS or most < MIN_FRAMES:
        raise CheckpointError(f"{fields.where}: fps={fps:g}, max_frames={most} cannot be.")
    return {"fps": fps, "min_frames": MIN_FRAMES, "max_frames": most}


def _frame_longest(fields: Fields, usual: int, side: int) -> int:
    """What a frame's longer side becomes before it is squashed, pixels.

    `size`, which is that of pictures, goes before `video_sampling`, as in `transformers` 5.23.
    """
    square = fields.child("max_image_size").size("longest_edge", side)
    if square != side:
        raise CheckpointError(f"{fields.where}: frames of {square} px, but pictures of {side}.")
    sampled = fields.child("video_sampling").child("video_size")
    return fields.child("size").size(
        "longest_edge", sampled.size("longest_edge", usual, most=LARGEST), most=LARGEST
    )


def _numbered(token_id: Callable[[str], int], most: int) -> int:
    """Rows and columns, up to so many, that the vocabulary has tokens for.

    Raises:
      CheckpointError: it has none.
    """
    for count in range(most):
        try:
            token_id(TILE.format(row=count + 1, column=count + 1))
        except CheckpointError:
            if not count:
                raise
            return count
    return most
