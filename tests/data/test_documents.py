import collections
import dataclasses
import json
import random

import numpy as np
import pytest
from PIL import Image

from mres_jax import scoring
from mres_jax.data import documents
from mres_jax.data.documents import design, grounds, render, shapes, vocabulary
from mres_jax.errors import MresError
from mres_jax.geometry import Box, Size, View


@pytest.fixture(scope="module")
def designs():
    """16 of every cell, not painted: (design, size, cell)."""
    made = []
    for i in range(16 * 35):
        cell = documents.BINS[i % 35]
        seed = documents.item_seed(1, i)
        made.append((*design.draw_design(seed, area_bin=cell[0], ratio_bin=cell[1]), cell))
    return made


@pytest.fixture(scope="module")
def some_documents():
    return list(documents.make_set(11, 105))


def covered(boxes, size):
    mask = np.zeros(size, bool)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


def test_a_seed_is_a_document():
    """Same seed, same bytes and questions; another seed, another picture."""
    first, again, other = (documents.make_document(seed) for seed in (5, 5, 6))
    assert first.image.tobytes() == again.image.tobytes()
    assert first.questions == again.questions
    assert first.image.tobytes() != other.image.tobytes()


def test_a_set_does_not_depend_on_its_length():
    short, long = documents.make_set(3, 4), documents.make_set(3, 40)
    for a, b in zip(short, long, strict=False):
        assert a.image.tobytes() == b.image.tobytes()


def test_every_cell_is_drawn_inside_its_bins(designs):
    for _, size, cell in designs:
        assert documents.bin_of(size) == cell
        assert min(size) >= 11


def test_no_two_documents_of_a_set_are_alike():
    made = list(documents.make_set(3, 20, bins=[("B", "NM")]))
    assert len({document.image.tobytes() for document in made}) == len(made)


def test_a_set_goes_round_the_cells():
    bins = documents.BINS[:10]
    cells = collections.Counter(
        (d.area_bin, d.ratio_bin) for d in documents.make_set(0, 24, bins=bins)
    )
    assert set(cells) == set(bins)
    assert max(cells.values()) - min(cells.values()) <= 1


@pytest.mark.parametrize(
    ("size", "cell"),
    [
        (Size(24, 24), ("A", "NM")),
        (Size(32, 32), ("B", "NM")),
        (Size(768, 768), ("G", "NM")),
        (Size(40, 80), ("B", "NM")),
        (Size(40, 81), ("B", "AW")),
        (Size(40, 160), ("B", "AW")),
        (Size(40, 161), ("B", "BW")),
        (Size(81, 40), ("B", "AH")),
        (Size(160, 40), ("B", "AH")),
        (Size(161, 40), ("B", "BH")),
    ],
)
def test_edges_of_the_bins(size, cell):
    assert documents.bin_of(size) == cell


def test_text_changes_pixels_only_inside_its_glyph_boxes(designs):
    for made, size, _ in designs[:70]:
        written, bare = (render.paint(made.plan, text=text) for text in (True, False))
        inside = covered(render.make_glyphs(made.plan).boxes, size)
        assert (written == bare)[~inside].all()


def test_each_glyph_box_is_tight_around_its_ink(designs):
    """Every side of every box touches ink of its glyph: no box is larger than what is drawn."""
    for made, _, _ in designs[:35]:
        for run in made.plan.runs:
            shown = [c for c in run.text if c != " "]
            for box, character in zip(run.boxes, shown, strict=True):
                mask = run.face.glyphs[character].mask
                assert mask.shape == (box[2] - box[0], box[3] - box[1])
                edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
                assert all(edge.any() for edge in edges)


def test_glyphs_spell_their_fields_inside_their_boxes(some_documents):
    for document in some_documents:
        glyphs = document.glyphs
        height, width = document.size
        assert (glyphs.boxes[:, :2] >= 0).all()
        assert (glyphs.boxes[:, 2] <= height).all()
        assert (glyphs.boxes[:, 3] <= width).all()
        for i, field in enumerate(document.fields):
            mine = (glyphs.fields == i) & (glyphs.parts == render.VALUE)
            order = np.argsort(glyphs.indices[mine])
            assert "".join(map(chr, glyphs.codes[mine][order])) == field.value
            assert render.union(glyphs.boxes[mine]) == field.value_box


def test_no_two_characters_share_a_pixel_of_ink(some_documents):
    """Boxes of slanted pairs may touch by a few columns; texts never lie on each other."""
    for document in some_documents:
        boxes = document.glyphs.boxes
        groups = document.glyphs.fields * 3 + document.glyphs.parts
        unions = [render.union(boxes[groups == g]) for g in np.unique(groups) if g != -1]
        for i, a in enumerate(unions):
            for b in unions[i + 1 :]:
                high, wide = min(a.bottom, b.bottom), min(a.right, b.right)
                assert high <= max(a.top, b.top) or wide <= max(a.left, b.left)


def test_keys_and_values_are_unique_in_a_document(some_documents):
    for document in some_documents:
        keys = [field.key for field in document.fields]
        values = [field.value for field in document.fields]
        assert len(set(keys)) == len(keys)
        assert len(set(values)) == len(values)
        assert set(keys) <= {*documents.KEYS, ""}


def test_short_values_are_unique_too():
    """With three characters, two of eight random values meet in every thirtieth document."""
    for seed in range(100):
        made, _ = design.draw_design(
            seed, area_bin="G", ratio_bin="NM", options=documents.Options(max_chars=3, logo=0.0)
        )
        values = [run.text for run in made.plan.runs if run.part == render.VALUE]
        assert len(set(values)) == len(values)


def test_every_text_stands_out_from_its_ground(designs):
    """WCAG 2 contrast of at least 4.5 against every pixel under every string, headings too."""
    for made, _, _ in designs[:140]:
        bare = render.paint(made.plan, text=False)
        for run in made.plan.runs:
            box = render.union(run.boxes)
            under = grounds.luminance(bare[box.top : box.bottom, box.left : box.right]) + 0.05
            ink = float(grounds.luminance(np.array(run.colour))) + 0.05
            assert min(np.maximum(under / ink, ink / under).ravel()) >= 4.5


def test_every_logo_stands_out_from_its_ground(designs):
    """A contrast of 2 against every pixel around and under the shape."""
    checked = 0
    for made, _, _ in designs[35:280]:
        if "logo" not in made.facts:
            continue
        [logo] = [t for t in made.plan.things if getattr(t, "shape", "") in shapes.SHAPES]
        rest = dataclasses.replace(made.plan, things=[t for t in made.plan.things if t != logo])
        under = render.paint(rest, text=False)
        under = under[logo.box.top : logo.box.bottom, logo.box.left : logo.box.right]
        shine = grounds.luminance(under) + 0.05
        ink = float(grounds.luminance(np.array([logo.colour]))[0]) + 0.05
        assert min(np.maximum(shine / ink, ink / shine).ravel()) >= 2
        checked += 1
    assert checked > 50


def test_capitals_are_at_least_8_px_and_values_as_long_as_stated(designs):
    for made, _, (area_bin, _) in designs:
        texts = collections.defaultdict(str)
        for run in made.plan.runs:
            assert run.face.cap_height >= 8
            if run.part == render.VALUE:
                assert run.face.cap_height <= 16
                texts[run.field] += run.text
        for key, text in zip(made.keys, texts.values(), strict=True):
            low, high = (1, 3) if area_bin == "A" else (3 if key else 1, 8)
            assert low <= len(text) <= high
            assert set(text) <= set(documents.CHARSET)


def test_text_height_does_not_depend_on_the_picture(designs):
    """Mean capital height of every bin from C to G is within 1 px of the mean of its range."""
    heights = collections.defaultdict(list)
    for made, _, (area_bin, _) in designs:
        if area_bin >= "C":
            heights[area_bin].append(made.plan.runs[-1].face.cap_height)
    # 80 draws of a spread of 2.6 px: the mean has a standard error of 0.3 px
    for values in heights.values():
        assert abs(np.mean(values) - 12) < 1


def test_answers_to_what_is_seen_are_balanced(designs):
    """Over all cells, no answer to an SC question is 0.09 commoner than its even share."""
    answers = collections.defaultdict(collections.Counter)
    for made, _, _ in designs:
        for topic in made.asked_facts:
            answers[topic][made.facts[topic]] += 1
    assert set(answers) == set(documents.SC_ANSWERS)
    for topic, counts in answers.items():
        assert set(counts) == set(documents.SC_ANSWERS[topic])
        # 180 answers or more: an even share of two has a standard error of 0.037
        assert max(counts.values()) / counts.total() < 1 / len(counts) + 0.09


def test_the_vocabulary_holds_every_word_of_questions_and_answers(some_documents):
    words = set(documents.VOCABULARY)
    for question in (q for document in some_documents for q in document.questions):
        assert set(documents.words_of(question.text)) <= words
        if question.type == "rc":
            assert set(question.answer) <= set(documents.CHARSET)
        else:
            assert set(documents.words_of(question.answer)) <= words


def test_questions_ask_for_what_is_there(some_documents):
    for document in some_documents:
        by_type = collections.Counter(q.type for q in document.questions)
        assert by_type["rc"] == len(document.fields)
        assert len({q.id for q in document.questions}) == len(document.questions)
        values = {f.value: f.value_box for f in document.fields}
        for question in document.questions:
            if question.type == "rc":
                assert question.box == values[question.answer]
            if question.type == "point":
                assert question.box in values.values()
                edges = json.loads(question.answer)
                if question.scorer == "box":
                    assert tuple(edges) == scoring.relative_box(question.box, document.size)
                assert len(edges) == {"point": 2, "box": 4}[question.scorer]
                assert all(0 <= edge <= 1000 for edge in edges)
                view = View(item=0, crop=Box(0, 0, *document.size), size=document.size)
                match = {"point": scoring.point_match, "box": scoring.box_match}[question.scorer]
                assert match(question.answer, question.box, view=view, coord_frame="relative_1000")


def test_a_bare_patch_belongs_to_the_glyph_at_its_centre(some_documents):
    """A patch that touches one glyph only, and holds its centre, carries that glyph's labels."""
    checked = 0
    for document in some_documents:
        glyphs, labels = document.glyphs, documents.patch_labels(document, patch_size=8)
        rows, cols = labels["char"].shape
        touched = np.zeros((rows + 1, cols + 1), int)
        for top, left, bottom, right in glyphs.boxes:
            touched[top // 8 : -(-bottom // 8), left // 8 : -(-right // 8)] += 1
        for i, box in enumerate(glyphs.boxes):
            row, col = (box[0] + box[2]) // 16, (box[1] + box[3]) // 16
            if row >= rows or col >= cols or touched[row, col] != 1:
                continue
            checked += 1
            label = labels["char"][row, col]
            assert documents.LABEL_CHARSET[label - 1] == chr(glyphs.codes[i])
            is_value = glyphs.parts[i] == render.VALUE
            assert labels["index"][row, col] == (glyphs.indices[i] + 1 if is_value else 0)
            key = document.fields[glyphs.fields[i]].key if glyphs.fields[i] >= 0 else ""
            for name, part in (("key", render.KEY), ("field", render.VALUE)):
                asked = key and glyphs.parts[i] == part
                expected = documents.KEYS.index(key) + 1 if asked else 0
                assert labels[name][row, col] == expected
    assert checked > 500


def test_a_shared_patch_belongs_to_the_larger_share(some_documents):
    """Against the definition: of each glyph's box, the share inside the patch; the largest wins."""
    shared = 0
    for document in some_documents[:40]:
        boxes = document.glyphs.boxes
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        char = documents.patch_labels(document, patch_size=8)["char"]
        for row, col in np.argwhere(char > 0):
            corner = np.array([row, col]) * 8
            low, high = np.maximum(boxes[:, :2], corner), np.minimum(boxes[:, 2:], corner + 8)
            share = np.prod(np.maximum(high - low, 0), axis=1) / area
            best = {chr(c) for c in document.glyphs.codes[share == share.max()]}
            assert documents.LABEL_CHARSET[char[row, col] - 1] in best
            shared += (share > 0).sum() > 1
    assert shared > 100


def test_patches_without_text_are_background(some_documents):
    for document in some_documents:
        labels = documents.patch_labels(document, patch_size=8)
        rows, cols = labels["char"].shape
        inked = covered(document.glyphs.boxes, document.size)[: rows * 8, : cols * 8]
        empty = ~inked.reshape(rows, 8, cols, 8).any(axis=(1, 3))
        assert all((array[empty] == 0).all() for array in labels.values())
        assert (labels["char"][~empty] != 0).all()


def test_labels_follow_the_view(some_documents):
    """Twice the size with twice the patch gives the same labels, a crop those of its part."""
    for document in some_documents[20:60]:
        height, width = (side // 8 * 8 for side in document.size)
        crop = Box(0, 0, height, width)
        labels = documents.patch_labels(document, patch_size=8)
        view = View(item=0, crop=crop, size=Size(2 * height, 2 * width))
        larger = documents.patch_labels(document, view, patch_size=16)
        half = height // 16 * 8
        part = View(item=0, crop=Box(half, 0, height, width), size=Size(height - half, width))
        lower = documents.patch_labels(document, part, patch_size=8)
        for name, array in labels.items():
            np.testing.assert_array_equal(larger[name], array)
            # a glyph that is cut by the crop has more of itself in the rest
            clear = (array[half // 8 :] > 0) & (lower[name] > 0)
            clear[:2] = False
            np.testing.assert_array_equal(lower[name][clear], array[half // 8 :][clear])


def test_scene_labels_say_the_answers_of_the_questions_to_see(some_documents):
    """Each asked fact stands on every patch, those about the logo where the logo is, on no other.

    A logo is found again by its paint: a document without it differs there and nowhere else.
    """
    topics = set()
    for seed, document in enumerate(some_documents):
        labels = documents.scene_labels(document, patch_size=8)
        asked = {q.tags[0]: q.answer for q in document.questions if q.type == "sc"}
        topics |= set(asked)
        for topic, answer in asked.items():
            named = set(np.unique(labels[topic])) - {-1}
            assert named == {1 + documents.SC_ANSWERS[topic].index(answer)}
        assert all(
            (array == array[0, 0]).all() for topic, array in labels.items() if "logo" not in topic
        )
        is_logo = labels["logo"] > 0
        assert is_logo.any() == ("logo" in document.facts)
        if seed < 40 and is_logo.any():
            cell = {"area_bin": document.area_bin, "ratio_bin": document.ratio_bin}
            drawn, _ = design.draw_design(document.seed, **cell)
            drawn.plan.things = [t for t in drawn.plan.things if not isinstance(t, render.Mark)]
            bare = render.paint(drawn.plan)
            rows, cols = is_logo.shape
            changed = (bare != document.image).any(-1)[: rows * 8, : cols * 8]
            changed = changed.reshape(rows, 8, cols, 8).any(axis=(1, 3))
            assert (changed & is_logo).sum() > 0.3 * is_logo.sum()
            y, x = np.nonzero(is_logo)
            changed[max(0, y.min() - 1) : y.max() + 2, max(0, x.min() - 1) : x.max() + 2] = False
            assert not changed.any()
    assert topics == set(documents.SC_ANSWERS)


def test_scene_labels_follow_the_view(some_documents):
    for document in some_documents[20:60]:
        height, width = (side // 8 * 8 for side in document.size)
        view = View(item=0, crop=Box(0, 0, height, width), size=Size(2 * height, 2 * width))
        larger = documents.scene_labels(document, view, patch_size=16)
        for topic, array in documents.scene_labels(document, patch_size=8).items():
            np.testing.assert_array_equal(larger[topic], array)


def test_half_patches_name_more_characters_than_patches():
    """With two cells per patch, narrow neighbours are told apart."""
    options = documents.Options(cap_heights=(8, 8), families={"mono": 1.0})
    for seed in range(5):
        document = documents.make_document(seed, size=Size(256, 256), options=options)
        named = [
            {
                (field, index)
                for field, index in zip(
                    labels["field"].ravel(), labels["index"].ravel(), strict=True
                )
                if field > 0
            }
            for labels in (
                documents.patch_labels(document, patch_size=8, columns=columns)
                for columns in (1, 2)
            )
        ]
        characters = sum(len(f.value) for f in document.fields)
        assert len(named[0]) <= len(named[1]) == characters


def test_options_narrow_what_is_drawn():
    options = documents.Options(
        cap_heights=(10, 11), max_fields=2, max_chars=4, grounds=("plain",), logo=0.0
    )
    for document in documents.make_set(0, 35, options=options):
        assert document.facts["ground"] == "plain"
        assert "logo" not in document.facts
        assert len(document.fields) <= 2
        assert all(len(f.value) <= 4 for f in document.fields)


def test_a_written_set_can_be_read_back(tmp_path):
    rows = documents.write_set(tmp_path, 4, 8, jpeg_share=0.5)
    made = list(documents.make_set(4, 8))
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(lines) == sum(len(d.questions) for d in made)
    suffixes = set()
    for line in lines:
        path = tmp_path / line["images"][0]
        suffixes.add(path.suffix)
        picture = np.asarray(Image.open(path).convert("RGB"))
        document = made[int(path.stem)]
        assert picture.shape == document.image.shape
        if path.suffix == ".png":
            np.testing.assert_array_equal(picture, document.image)
        question = next(q for q in document.questions if q.id == line["id"])
        assert (line["question"], line["answer"]) == (question.text, question.answer)
        assert set(line) >= {
            *("id", "images", "question", "answer", "type", "options", "scorer", "tags")
        }
    assert suffixes == {".png", ".jpg"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: documents.make_document(0, area_bin="H"), "no bin 'H'; have A, B, C"),
        (lambda: documents.make_document(0, kind="poem"), "no kind 'poem'; have invoice, table"),
        (lambda: documents.make_document(0, size=Size(20, 20)), "20 x 20 px is an area of 400"),
        (lambda: documents.make_document(0, size=Size(4, 300)), "no text with capitals of 8 px"),
        (lambda: next(documents.make_set(0, 5, bins=())), "n=5, 0 bins"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    with pytest.raises(MresError, match=message):
        call()


def test_every_key_belongs_to_two_kinds():
    counts = collections.Counter(k for keys in vocabulary.KEYS_OF_KIND.values() for k in keys)
    assert counts == dict.fromkeys(documents.KEYS, 2)


def test_values_have_the_stated_characters_and_length():
    rng = random.Random(0)
    for formats in (*vocabulary.VALUE_FORMATS.values(), vocabulary.BARE_FORMATS):
        for longest in range(1, 9):
            value = vocabulary.draw_value(rng, formats, longest, True)
            assert 1 <= len(value) <= longest
            assert set(value) <= set(documents.CHARSET) - set("JQ/")


def test_documents_are_frozen():
    document = documents.make_document(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        document.seed = 1
