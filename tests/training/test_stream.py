"""Packs of documents depend on (seed, step) alone and are what they say."""

import dataclasses
import random

import numpy as np
import pytest

from mres_jax.config import DataConfig
from mres_jax.data.documents import AREA_BINS, KEYS, KINDS
from mres_jax.data.documents.pages import KIND as PAGE
from mres_jax.data.types import Rung
from mres_jax.errors import ConfigError
from mres_jax.models.nativeres_llava import processor
from mres_jax.models.nativeres_llava.presets import mres_tiny
from mres_jax.resolution.policies import parse_policy
from mres_jax.training.loop import document_tokenizer
from mres_jax.training.stream import NATIVE, PATCH_CLASSES, DocumentStream

LADDER = (
    Rung(max_patches=512, max_tokens=512, max_views=8, max_examples=8),
    Rung(max_patches=4_096, max_tokens=1_536, max_views=8, max_examples=8),
)
DATA = DataConfig(
    kinds={"page": 1.0, "invoice": 1.0, "sign": 1.0},
    questions={"rc": 0.8, "sc": 0.2},
    area_bins=dict.fromkeys("BCD", 1.0),
    images_per_prompt={"1": 0.5, "3": 0.5},
)
POLICIES = {"native": 0.5, "scale:0.5": 0.3, "budget:40": 0.2}


def make_stream(seed: int = 0, **changes) -> DocumentStream:
    tokenizer = document_tokenizer()
    return DocumentStream(
        dataclasses.replace(DATA, **changes),
        policies=POLICIES,
        ladder=LADDER,
        spec=processor.make_spec(mres_tiny(), tokenizer.token_id),
        tokenizer=tokenizer,
        seed=seed,
    )


def test_a_pack_is_a_function_of_seed_and_step():
    first, again = make_stream(), make_stream()
    again.pack(7)  # what was drawn before does not matter
    for x, y in zip(first.pack(3)[:-1], again.pack(3)[:-1], strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.array_equal(first.pack(3).patches, first.pack(4).patches)
    assert not np.array_equal(first.pack(3).patches, make_stream(seed=1).pack(3).patches)


@pytest.mark.parametrize("step", range(6))
def test_packs_fill_a_rung_and_label_every_patch(step):
    pack = make_stream().pack(step)
    size = (len(pack.patches), len(pack.tokens))
    assert size in [(rung.max_patches, rung.max_tokens) for rung in LADDER]
    assert pack.loss_mask.any()
    real = pack.patch_segment_ids > 0
    assert set(pack.patch_labels) == set(PATCH_CLASSES)
    for name, labels in pack.patch_labels.items():
        assert labels.max() < PATCH_CLASSES[name]
        assert (labels[~real] == -1).all()
    assert (pack.patch_labels["char0"][real] > 0).mean() > 0.02


def test_with_several_pictures_a_question_fits_one_of_them():
    stream = make_stream(images_per_prompt={"3": 1.0})
    for number in range(20):
        rng = random.Random(number)
        documents = [stream._document(rng, small=True) for _ in range(3)]
        views = NATIVE([d.size for d in documents], "", stream.spec)
        for question, answer in stream._turns(rng, stream._questions(documents, views)):
            having = [
                document
                for document in documents
                if any(f.key and f.key in question and f.value == answer for f in document.fields)
            ]
            named = [key for key in KEYS if f" {key}" in question]
            keys = [f.key for document in documents for f in document.fields]
            assert answer == "none" or (len(having) == 1 and keys.count(max(named, key=len)) == 1)


def test_no_question_is_asked_twice_in_a_conversation():
    stream = make_stream(images_per_prompt={"1": 1.0}, questions_per_image=8)
    for number in range(20):
        rng = random.Random(number)
        document = stream._document(rng, small=False)
        views = NATIVE([document.size], "", stream.spec)
        answers = [q for q, _ in stream._turns(rng, stream._questions([document], views))]
        assert len(answers) == len(set(answers)) <= 8


def test_run_files_know_every_kind_and_size_that_can_be_drawn():
    """`config` may not import `data`, so it repeats these names."""
    DataConfig(kinds=dict.fromkeys((PAGE, *KINDS), 1.0), area_bins=dict.fromkeys(AREA_BINS, 1.0))
    with pytest.raises(ConfigError, match=f"Have {', '.join((PAGE, *KINDS))}"):
        DataConfig(kinds={"other": 1.0})
    with pytest.raises(ConfigError, match=f"Have {', '.join(AREA_BINS)}"):
        DataConfig(area_bins={"other": 1.0})


def test_text_too_small_in_the_view_is_not_asked():
    """At half the size a capital of 8 px has 4; what need not be read is asked at any size."""
    stream, half = make_stream(min_text_height=6.0), parse_policy("scale:0.5")
    left_out = 0
    for number in range(30):
        document = stream._document(random.Random(number), small=False)
        native = stream._questions([document], NATIVE([document.size], "", stream.spec))
        (view,) = half([document.size], "", stream.spec)
        seen = stream._questions([document], [view])
        scales = [a / b for a, b in zip(view.size, document.size, strict=True)]
        legible = [q for q in native if q.type == "sc" or min(scales) * q.text_height >= 6]
        assert seen == legible
        left_out += len(native) - len(seen)
    assert left_out > 10
