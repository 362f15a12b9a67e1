"""Settings of image and video processors that change pixels: what we do not do is refused."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from mres_jax.models.hf_fields import Fields

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# Names and bookkeeping, and what is done before or behind all that makes pixels.
_HARMLESS = """
_processor_class _valid_processor_keys data_format default_to_square device disable_grouping
do_convert_rgb feature_extractor_type image_mean image_processor_type image_seq_length image_std
input_data_format model_valid_processing_keys processor_class return_metadata
return_row_col_info return_tensors video_metadata video_processor video_processor_type
"""
HARMLESS = frozenset(_HARMLESS.split())
# What the processors of `transformers` for pictures of any size take and never look at.
UNUSED = ("crop_size", "do_center_crop", "do_pad", "pad_size", "size_divisor")
_STEPS = {
    "do_resize": "views are always resized",
    "do_rescale": "values are always divided by 255",
    "do_normalize": "values are always normalised",
}


def check_pixels(
    settings: Mapping[str, Any],
    where: str,
    *,
    resample: str,
    edges: Collection[str] | None = None,
    side: int | None = None,
    same: Mapping[str, Any] | None = None,
    known: Collection[str] = (),
) -> None:
    """Checks that a processor makes the pixels that we make.

    Args:
      settings: contents of its file.
      where: what messages call it.
      resample: Pillow's filter that views are resized with.
      edges: what `size` may say; None where nothing of it is read.
      side: of the only square that `size` and `crop_size` may say, pixels; None where they change
        nothing.
      same: fields that have to agree with the model's configuration.
      known: fields that are read elsewhere or change nothing.

    Raises:
      CheckpointError: settings that make other pixels, all in one message.

    Warns:
      UserWarning: fields that are not known, all in one message.
    """
    fields = Fields(settings, where)
    fields.ignore((*HARMLESS, *known))
    for name, truth in _STEPS.items():
        if not fields.get(name, True):
            fields.problems.append(f"{name} is {fields.content[name]!r}, but {truth}")
    factor = fields.get("rescale_factor", 1 / 255, float)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        fields.problems.append(f"rescale_factor is {factor!r}, have 1/255")
    code = fields.get("resample", None, int)
    if code is not None and FILTERS.get(code) != resample:
        name = FILTERS.get(code, "no filter")
        fields.problems.append(f"resample is {code} ({name}), but the model's is {resample}")
    for name, value in (same or {}).items():
        if fields.get(name, value) != value:
            fields.problems.append(
                f"{name} is {fields.content[name]!r}, but the model has {value!r}"
            )
    fields.ignore(("size",))
    if side is not None:
        _check_side(fields, side)
    if edges is not None:
        _check_edges(fields, edges)
    fields.close()


def _check_side(fields: Fields, side: int) -> None:
    for name in ("size", "crop_size"):
        size = fields.get(name, None, (int, dict))
        found = size.values() if isinstance(size, dict) else (size,)
        if any(n not in (None, side) for n in found):
            fields.problems.append(f"{name} is {size!r}, but the model's squares have {side} px")


def _check_edges(fields: Fields, edges: Collection[str]) -> None:
    """Notes what `size` says besides.

    Old releases of `transformers` repeat `min_pixels` and `max_pixels` in it, which is no harm.
    """
    size = fields.get("size", {}, dict)
    limits = ("min_pixels", "max_pixels")
    repeated = [name for name in limits if fields.content.get(name) is not None]
    wrong = sorted(n for n in size.keys() - {*edges, *repeated} if size[n] is not None)
    if wrong:
        fields.problems.append(f"size has {', '.join(wrong)}; write {' and '.join(edges)}")
