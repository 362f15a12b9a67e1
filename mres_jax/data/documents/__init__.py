"""Pictures of documents with their labels: what to read, to see and to point at.

Invoices, tables, signs and screens on plain, textured and photographic grounds (all procedural), in
35 cells of area and aspect ratio; text height does not depend on the size of the picture. `rc`
questions need reading, `sc` questions survive a picture of a quarter of the side, `point` questions
ask for a place. Beside them large screens and scenes with small boards, for zooms, and clips of
which one or two frames tell, for allocators. Seeded: the same seed gives the same bytes.
"""

from mres_jax.data.documents.bins import (
    AREA_BINS as AREA_BINS,
    BINS as BINS,
    RATIO_BINS as RATIO_BINS,
    bin_of as bin_of,
)
from mres_jax.data.documents.boards import (
    BOARD_KINDS as BOARD_KINDS,
    make_board_picture as make_board_picture,
)
from mres_jax.data.documents.clips import DrawnClip as DrawnClip, draw_clip as draw_clip
from mres_jax.data.documents.design import make_document as make_document
from mres_jax.data.documents.document import Document as Document
from mres_jax.data.documents.labels import (
    patch_labels as patch_labels,
    scene_labels as scene_labels,
)
from mres_jax.data.documents.sets import (
    item_seed as item_seed,
    make_set as make_set,
    row_of as row_of,
    write_set as write_set,
)
from mres_jax.data.documents.types import (
    Field as Field,
    Glyphs as Glyphs,
    Options as Options,
    Question as Question,
)
from mres_jax.data.documents.vocabulary import (
    CHARSET as CHARSET,
    KEYS as KEYS,
    KINDS as KINDS,
    LABEL_CHARSET as LABEL_CHARSET,
    SC_ANSWERS as SC_ANSWERS,
    VOCABULARY as VOCABULARY,
    words_of as words_of,
)
