"""Annotation files of published video data sets -> rows of questions to learn from."""

from mres_jax.data.rows.annotations.converting import (
    FORMATS as FORMATS,
    Converted as Converted,
    convert_annotations as convert_annotations,
)
