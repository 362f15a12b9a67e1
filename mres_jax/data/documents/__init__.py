"""Pictures of documents with their labels: what to read, to see and to point at.

Invoices, tables, signs and screens on plain, textured and photographic grounds (all procedural), in
35 cells of area and aspect ratio; text height does not depend on the size of the picture. `rc`
questions need reading, `sc` questions survive a picture of a quarter of the side, `point` questions
ask for a place. Seeded: the same seed gives the same bytes.
"""

from mres_jax.data.documents.bins import AREA_BINS, BINS, RATIO_BINS, bin_of
from mres_jax.data.documents.design import make_document
from mres_jax.data.documents.labels import patch_labels, scene_labels
from mres_jax.data.documents.sets import item_seed, make_set, row_of, write_set
from mres_jax.data.documents.types import Document, Field, Glyphs, Options, Question
from mres_jax.data.documents.vocabulary import (
    CHARSET,
    KEYS,
    KINDS,
    LABEL_CHARSET,
    SC_ANSWERS,
    VOCABULARY,
    words_of,
)

__all__ = [
    "AREA_BINS",
    "BINS",
    "CHARSET",
    "KEYS",
    "KINDS",
    "LABEL_CHARSET",
    "RATIO_BINS",
    "SC_ANSWERS",
    "VOCABULARY",
    "Document",
    "Field",
    "Glyphs",
    "Options",
    "Question",
    "bin_of",
    "item_seed",
    "make_document",
    "make_set",
    "patch_labels",
    "row_of",
    "scene_labels",
    "words_of",
    "write_set",
]
