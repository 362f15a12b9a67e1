"""Conversations about documents depend on (seed, epoch, number) alone and are what they say."""

import dataclasses

import numpy as np
import pytest

from mres_jax.config import Documents
from mres_jax.data.documents import (
    AREA_BINS,
    BOARD_KINDS,
    KEYS,
    KINDS,
    make_document,
    patch_labels,
)
from mres_jax.data.documents.pages import KIND as PAGE
from mres_jax.errors import ConfigError
from mres_jax.models.nativeres_llava import processor
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.resolution.policies import parse_policy
from mres_jax.resolution.zoom import find_places
from mres_jax.testing import tiny_llava_hr, tiny_smolvlm
from mres_jax.training.input.documents import (
    HARD_GROUNDS,
    HARD_HEIGHTS,
    NATIVE,
    PATCH_CLASSES,
    DocumentExamples,
    document_tokenizer,
)

DATA = Documents(
    examples=20,
    kinds={"page": 1.0, "invoice": 1.0, "sign": 1.0},
    questions={"rc": 0.8, "sc": 0.2},
    area_bins=dict.fromkeys("BCD", 1.0),
    images_per_prompt={"1": 0.5, "3": 0.5},
)
POLICIES = {"native": 0.5, "scale:0.5": 0.3, "budget:40": 0.2}


def make_examples(seed: int = 0, **changes) -> DocumentExamples:
    tokenizer = document_tokenizer()
    return DocumentExamples(
        dataclasses.replace(DATA, **changes),
        policies={parse_policy(text): weight for text, weight in POLICIES.items()},
        spec=processor.make_spec(mres_tiny(), tokenizer.token_id),
        tokenizer=tokenizer,
        seed=seed,
        labelled=True,
    )


def test_an_example_is_a_function_of_seed_epoch_and_number():
    first, again = make_examples(), make_examples()
    again.example(0, 7)  # what was drawn before does not matter
    for x, y in zip(
        dataclasses.astuple(first.example(0, 3)),
        dataclasses.astuple(again.example(0, 3)),
        strict=True,
    ):
        np.testing.assert_equal(x, y)
    seen = {
        e.tokens.tobytes() + e.patches.tobytes()
        for e in (
            first.example(0, 3),
            first.example(0, 4),
            first.example(1, 3),
            make_examples(seed=1).example(0, 3),
        )
    }
    assert len(seen) == 4


def test_sizes_are_those_of_the_examples_and_every_patch_is_labelled():
    examples = make_examples()
    sizes = examples.sizes(2)
    assert len(sizes) == DATA.examples
    for number, size in enumerate(sizes):
        example = examples.example(2, number)
        assert tuple(example.size) == tuple(size)
        assert example.loss_mask.any()
        assert set(example.patch_labels) == set(PATCH_CLASSES)
        for name, labels in example.patch_labels.items():
            assert len(labels) == len(example.patches)
            assert labels.max() < PATCH_CLASSES[name]
        assert (example.patch_labels["char0"] > 0).mean() > 0.005


@pytest.mark.parametrize("aspect", ["pad", "native"])
def test_patches_of_a_small_picture_are_named_by_what_they_show_of_the_large_one(aspect):
    """LLaVA-HR at 512 px: a patch of the ViT stands for 32 px of the view."""
    tiny = tiny_llava_hr(side=512, image_aspect_ratio=aspect)
    policy = "native" if aspect == "native" else "fixed:512,mode=pad"
    examples = DocumentExamples(
        dataclasses.replace(DATA, images_per_prompt={"1": 1.0}),
        policies={parse_policy(policy): 1.0},
        spec=tiny.spec,
        tokenizer=document_tokenizer(),
        seed=0,
        labelled=True,
    )
    for number in range(5):
        example = examples.example(0, number)
        (document,), (view,) = examples.conversation(0, number)[:2]
        assert len(example.patch_labels["char0"]) == len(example.patches) <= 256
        named = patch_labels(document, view, patch_size=32, columns=2)["char"]
        both = np.stack([example.patch_labels[f"char{i}"] for i in (0, 1)], -1)
        np.testing.assert_array_equal(both.reshape(named.shape), named)
        assert (named > 0).any()


def test_patches_that_stand_for_no_whole_pixels_are_not_named():
    tiny = tiny_llava_hr()
    canvas = dataclasses.replace(tiny.spec.canvas, stride=32, patches=3)
    spec = dataclasses.replace(tiny.spec, canvas=canvas)
    with pytest.raises(ConfigError, match=r"one stands for 10\.67 px of a view"):
        DocumentExamples(
            DATA, policies={}, spec=spec, tokenizer=document_tokenizer(), seed=0, labelled=True
        )


def test_hard_documents_are_small_text_on_uneven_grounds():
    hard = make_examples(hard_share=1.0, images_per_prompt={"1": 1.0})
    for number in range(20):
        (document,) = hard.conversation(0, number).documents
        assert {f.text_height for f in document.fields} <= set(HARD_HEIGHTS)
        assert document.facts.get("ground") in HARD_GROUNDS


def test_capitals_are_as_high_as_the_run_says():
    """Where there is room: in small pictures text shrinks."""
    high = make_examples(
        cap_heights=(30, 34),
        kinds={"sign": 1.0},
        area_bins={"G": 1.0},
        images_per_prompt={"1": 1.0},
    )
    heights = [
        field.text_height
        for number in range(20)
        for document in high.conversation(0, number).documents
        for field in document.fields
    ]
    assert max(heights) <= 34
    assert np.mean([height >= 30 for height in heights]) > 0.5
    for wrong in ((7, 16), (20, 16)):
        with pytest.raises(ConfigError, match="cap_heights"):
            Documents(cap_heights=wrong)


def test_with_several_pictures_a_question_fits_one_of_them():
    examples = make_examples(images_per_prompt={"3": 1.0})
    for number in range(20):
        documents, _, messages = examples.conversation(0, number)
        for question, answer in turns(messages):
            having = [
                document
                for document in documents
                if any(f.key and f.key in question and f.value == answer for f in document.fields)
            ]
            named = [key for key in KEYS if f" {key}" in question]
            keys = [f.key for document in documents for f in document.fields]
            assert answer == "none" or (len(having) == 1 and keys.count(max(named, key=len)) == 1)


def test_no_question_is_asked_twice_in_a_conversation():
    examples = make_examples(images_per_prompt={"1": 1.0}, questions_per_image=8)
    for number in range(20):
        asked = [q for q, _ in turns(examples.conversation(0, number).messages)]
        assert len(asked) == len(set(asked)) <= 8


def turns(messages) -> list[tuple[str, str]]:
    """Question and answer of each turn."""
    texts = [message.parts[-1] for message in messages]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_run_files_know_every_kind_and_size_that_can_be_drawn():
    """`config` may not import `data`, so it repeats these names."""
    kinds = (PAGE, *KINDS, *BOARD_KINDS)
    Documents(kinds=dict.fromkeys(kinds, 1.0), area_bins=dict.fromkeys(AREA_BINS, 1.0))
    with pytest.raises(ConfigError, match=f"Have {', '.join(kinds)}\\."):
        Documents(kinds={"other": 1.0})
    with pytest.raises(ConfigError, match=f"Have {', '.join(AREA_BINS)}"):
        Documents(area_bins={"other": 1.0})


def test_text_too_small_in_the_view_is_not_asked():
    """At half the size a capital of 8 px has 4; what need not be read is asked at any size."""
    examples, half = make_examples(min_text_height=6.0), parse_policy("scale:0.5")
    left_out = 0
    for seed in range(30):
        document = make_document(seed, area_bin="C")
        native = examples.questions([document], NATIVE([document.size], "", examples.spec))
        (view,) = half([document.size], "", examples.spec)
        seen = examples.questions([document], [view])
        scales = [a / b for a, b in zip(view.size, document.size, strict=True)]
        legible = [q for q in native if q.type == "sc" or min(scales) * q.text_height >= 6]
        assert seen == legible
        left_out += len(native) - len(seen)
    assert left_out > 10


def test_places_are_asked_where_names_are_legible_and_answered_for_the_view():
    """A value may be too small to be read; its place must be found again in the picture."""
    examples = make_examples(
        kinds={"desktop": 1.0, "scene": 1.0},
        questions={"point": 1.0},
        images_per_prompt={"1": 1.0},
        min_name_height=4.0,
        policies={"scale:0.4": 1.0},
    )
    for number in range(12):
        (document,), (view,), messages = examples.conversation(0, number)
        assert view.size.height < 0.5 * document.size.height
        boxes = {q.text: q.box for q in document.questions if q.type == "point"}
        for question, answer in turns(messages):
            picture = document.size
            found = find_places(answer, view=view, coord_frame="relative_1000", picture=picture)
            (place,), box = found.places, boxes[question]
            assert box is not None
            y, x = place.centre
            assert abs(2 * y - box.top - box.bottom) < 2e-3 * document.size.height
            assert abs(2 * x - box.left - box.right) < 2e-3 * document.size.width
    with pytest.raises(ConfigError, match="gave nothing to ask"):
        make_examples(
            kinds={"desktop": 1.0},
            questions={"rc": 1.0},
            min_text_height=20.0,
            images_per_prompt={"1": 1.0},
        ).conversation(0, 0)


def test_places_in_several_views_of_a_picture_are_refused():
    tiny = tiny_smolvlm()

    def ask(policy: str):
        data = Documents(examples=4, questions={"point": 1.0}, area_bins={"D": 1.0})
        policies = {parse_policy(policy): 1.0}
        examples = DocumentExamples(
            data, policies=policies, spec=tiny.spec, tokenizer=tiny.tokenizer, seed=0
        )
        return examples.conversation(0, 0)

    assert len(ask("split,mode=whole").views) == 1
    with pytest.raises(ConfigError, match=r"policy split shows \d+ of 1 pictures"):
        ask("split")


def test_a_conversation_about_a_clip_shows_all_frames_and_reads_the_telling_ones():
    policies = {"native": 1.0, "scale:0.25": 1.0}
    examples = make_examples(clip_frames={"8": 1.0, "16": 1.0}, policies=policies)
    lengths, small = set(), 0
    for number in range(12):
        frames, views, messages = examples.conversation(0, number)
        lengths.add(len(frames))
        assert [view.item for view in views] == list(range(len(frames)))
        assert messages[0].parts[:-1] == tuple(range(len(frames)))
        for question, answer in turns(messages):
            telling = [i for i, f in enumerate(frames) if answer in {x.value for x in f.fields}]
            named = [i for i in telling if any(q.text == question for q in frames[i].questions)]
            assert len(named) in (1, 2)
            assert all(views[i].size == (128, 160) for i in named)
        small += sum(view.size.height == 32 for view in views)
        assert tuple(examples.example(0, number).size)[2] == len(frames)
    assert lengths == {8, 16}
    assert small > 20
