"""Laws of answering: order, independence, cost, refusals."""

import collections
import dataclasses
import io
import pathlib
import weakref
from concurrent import futures

import numpy as np
import pytest
from PIL import Image

import mres_jax
from mres_jax.data.types import ExampleSize, Rung
from mres_jax.errors import (
    BadImageError,
    BadVideoError,
    MresError,
    PackingError,
    PolicyError,
    PromptError,
)
from mres_jax.geometry import Size
from mres_jax.inference import windows
from mres_jax.inference.answer import LocalAnswerer
from mres_jax.inference.handle import VLM, to_pixels, to_request
from mres_jax.inference.ladder import Ladders, default_ladders
from mres_jax.protocols import Request, Sampling
from mres_jax.testing import tiny_clip

SHORT = Sampling(max_new_tokens=5)
LADDER = (Rung(max_patches=256, max_tokens=384, max_views=8, max_examples=4),)
POLICIES = (None, "scale:0.5", "budget:3", "fixed:16")


def picture(seed, height, width):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def request(i, **changes):
    """Question `i`: no picture, one or two, of any size, under any policy."""
    images = [picture(10 * i + j, 9 + 7 * i % 40, 12 + 11 * j + 5 * i % 33) for j in range(i % 3)]
    made = Request(
        id=f"question-{i}",
        images=images,
        question=f"what is the total {i}",
        policy=POLICIES[i % len(POLICIES)],
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def answerer(makers):
    return LocalAnswerer(*makers["qwen2_vl"].tiny, ladder=LADDER, rows=(1, 4))


def test_the_one_at_fault_is_named_also_where_it_is_alone_in_its_window(answerer, monkeypatch):
    monkeypatch.setattr(windows, "MOST", 2)
    large = request(6, images=[picture(0, 40, 40)] * 9, policy="native")
    with pytest.raises(PackingError, match=r"^request 'question-6': "):
        answerer.answer([request(0), request(3), large], sampling=SHORT)


def test_a_window_holds_so_many_bytes_and_is_gone_before_the_next_one(answerer, monkeypatch):
    """Packs of one prompt or two, answered one after the other or two at a time."""
    prompts, most = [], []

    def prepare(asked):
        made = plain(asked)
        prompts.append(weakref.ref(made))
        most.append(sum(prompt() is not None for prompt in prompts))
        return made

    monkeypatch.setattr(windows, "MOST_BYTES", 1)
    asked = [request(i) for i in (1, 2, 4, 5, 7)]  # pictures are bytes, texts are none
    policies = answerer._policies(asked)

    def plain(request):
        return answerer._prepare(request, policies[request.policy or answerer.policy], SHORT)

    for each, at_once, sizes in (
        (1, 1, [1] * 5),
        (1, 2, [2, 2, 1]),
        (2, 1, [2, 2, 1]),
        (2, 2, [4, 1]),
    ):
        most.clear()
        given = {"plan": lambda sizes, n=each: range(0, len(sizes), n), "at_once": at_once}
        found = [(at, len(some)) for at, some in windows.windows(asked, prepare, **given)]
        assert found == list(zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True))
        assert max(most) == sizes[0] + 1


@pytest.mark.parametrize(
    ("held", "at_once", "most", "sizes"),
    [
        (1, 1, 2, [2, 2, 2, 2, 2, 2, 1]),
        (3, 1, 2, [3, 3, 3, 3, 1]),  # a pack that is begun is filled
        (1, 4, 2, [4, 4, 4, 1]),  # each rank has a pack
        (3, 4, 2, [12, 1]),
        (3, 2, 7, [12, 1]),
    ],
)
def test_a_window_of_most_requests_leaves_no_rank_idle(
    answerer, monkeypatch, held, at_once, most, sizes
):
    """Of 13 requests, so many in a pack and so many packs at once."""
    monkeypatch.setattr(windows, "MOST", most)
    asked = [request(0)] * 13
    (policy,) = answerer._policies(asked).values()
    prompt = answerer._prepare(asked[0], policy, SHORT)
    given = {"plan": lambda sizes: range(0, len(sizes), held), "at_once": at_once}
    found = [len(some) for _, some in windows.windows(asked, lambda _: prompt, **given)]
    assert found == sizes


def test_answers_do_not_depend_on_how_many_are_held_at_a_time(answerer, monkeypatch):
    requests = [request(i) for i in range(5)]
    whole = answerer.answer(requests, sampling=SHORT)
    monkeypatch.setattr(windows, "MOST_BYTES", 1)
    for (ours,), (theirs,) in zip(answerer.answer(requests, sampling=SHORT), whole, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.cost.visual_tokens == theirs.cost.visual_tokens


def test_answers_come_in_order_and_do_not_depend_on_what_is_asked_beside(answerer):
    requests = [request(i) for i in range(11)]
    together = answerer.answer(requests, sampling=SHORT)
    assert [len(some) for some in together] == [1] * 11
    assert len({some[0].token_ids for some in together}) > 5  # they are different answers
    for asked, (answer,) in zip(requests, together, strict=True):
        ((alone,),) = answerer.answer([asked], sampling=SHORT)
        assert alone.token_ids == answer.token_ids
        assert alone.views == answer.views
        # float32 sums over other shapes, through four layers
        np.testing.assert_allclose(alone.logprobs, answer.logprobs, atol=1e-4)


def test_clips_are_answered_beside_pictures_with_their_cost(answerer):
    """A question about a clip, one about a clip and a picture, one about a picture."""
    clip = tiny_clip(1, 20, 30, frames=6)
    requests = [
        request(0, images=[clip], policy="native"),
        request(1, images=[picture(0, 16, 16), clip], policy="budget:12"),
        request(2, images=[picture(1, 16, 24)], policy="native"),
    ]
    together = answerer.answer(requests, sampling=SHORT)
    for asked, (answer,) in zip(requests, together, strict=True):
        ((alone,),) = answerer.answer([asked], sampling=SHORT)
        assert alone.token_ids == answer.token_ids
        np.testing.assert_allclose(alone.logprobs, answer.logprobs, atol=1e-4)
    (whole,), (both,), _ = together
    assert [view.frames for view in whole.views] == [(0, 1), (2, 3), (4, 5)]
    assert [view.time for view in whole.views] == [0.25, 1.25, 2.25]
    assert whole.cost.visual_tokens == 3 * 8
    assert whole.cost.retention_ratio == 1.0
    assert both.cost.visual_tokens <= 12 + 4
    assert both.cost.retention_ratio < 1.0 < whole.cost.flops / both.cost.flops


def test_a_clip_is_refused_where_the_model_or_its_frames_cannot_be(makers, answerer):
    clip = tiny_clip(1, 20, 30)
    stills = LocalAnswerer(*makers["nativeres_llava"].tiny, ladder=LADDER, rows=(1,))
    with pytest.raises(PolicyError, match="the model takes image, tile, no clips"):
        stills.answer([request(0, images=[clip])], sampling=SHORT)
    with pytest.raises(PolicyError, match=r"4 frames has 2 views, which need at least 2 visual"):
        answerer.answer([request(0, images=[clip], policy="budget:1")], sampling=SHORT)


def test_a_handle_takes_clips_in_every_form(answerer, tmp_path):
    clip = tiny_clip(1, 16, 24)
    for i, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    vlm = VLM("tiny", answerer)
    from_clip, from_folder = (
        vlm.answer(given, "what is the total", max_new_tokens=4) for given in (clip, tmp_path)
    )
    assert from_clip.token_ids == from_folder.token_ids
    assert len(from_clip.views) == 2
    (tmp_path / "0.png").unlink()
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").unlink()
    with pytest.raises(BadVideoError, match="1 frames, but a clip has two or more"):
        vlm.answer(tmp_path, "what is the total")


@pytest.mark.slow
def test_threads_that_ask_at_once_get_what_each_gets_alone():
    """The size at which two programs at once, on a CPU, spoil the smallest picture of a pack."""
    answerer = mres_jax.load().answerer
    sizes = (16, 48), (1248, 288), (800, 448), (800, 352)
    images = [picture(i, *size) for i, size in enumerate(sizes)]
    requests = [Request(id=str(i), question="Read.", images=[x]) for i, x in enumerate(images)]

    def ask(_):
        answers = answerer.answer(requests, sampling=SHORT)
        return [(some[0].token_ids, some[0].logprobs) for some in answers]

    alone = ask(None)
    with futures.ThreadPoolExecutor(2) as pool:
        assert [*pool.map(ask, range(4))] == [alone] * 4


def test_samples_of_one_request_differ_and_come_back_with_the_seed(answerer):
    hot = Sampling(temperature=1.5, max_new_tokens=8)
    (first,) = answerer.answer([request(1)], n=4, sampling=hot)
    (again,) = answerer.answer([request(1)], n=4, sampling=hot)
    (other,) = answerer.answer([request(1)], n=4, sampling=hot, seed=1)
    tokens = [answer.token_ids for answer in first]
    assert len(set(tokens)) == 4
    assert [answer.token_ids for answer in again] == tokens
    assert not {answer.token_ids for answer in other} & set(tokens)


def test_every_answer_carries_its_cost(answerer):
    spec = answerer.spec
    requests = [request(2), request(2, policy="native", id="native"), request(3)]
    (small,), (native,), (text,) = answerer.answer(requests, sampling=SHORT)
    for answer, asked in ((small, requests[0]), (native, requests[1]), (text, requests[2])):
        cost = answer.cost
        tokens = [spec.num_visual_tokens(view.grid(spec.patch_size)) for view in answer.views]
        assert cost.visual_tokens == sum(tokens)
        assert len(tokens) == len(asked.images)
        assert cost.new_tokens == len(answer.token_ids) == len(answer.logprobs)
        assert cost.text_tokens > 10
        assert set(cost.ms) == {"host", "vision", "prefill", "decode"}
        assert all(ms >= 0 for ms in cost.ms.values())
    assert native.cost.retention_ratio == 1
    assert 0 < small.cost.visual_tokens <= 6  # budget:3, two pictures
    ratio = small.cost.visual_tokens / native.cost.visual_tokens
    assert small.cost.retention_ratio == ratio < 1
    assert text.cost.visual_tokens == 0
    assert text.cost.retention_ratio == 1
    assert text.cost.flops < small.cost.flops < native.cost.flops


def test_what_a_listener_hears_is_the_answer_and_listening_changes_nothing(answerer):
    requests = [request(i) for i in range(5)]
    long = Sampling(max_new_tokens=20)
    heard = collections.Counter()
    texts = collections.defaultdict(str)

    def listen(i, sample, text):
        heard[i] += 1
        texts[i, sample] += text
        return False

    silent = answerer.answer(requests, n=2, sampling=long)
    listened = answerer.answer(requests, n=2, sampling=long, listen=listen)
    for i, (left, right) in enumerate(zip(silent, listened, strict=True)):
        for sample in range(2):
            assert left[sample].text == right[sample].text == texts[i, sample]
            assert left[sample].token_ids == right[sample].token_ids
            assert left[sample].logprobs == right[sample].logprobs
    assert min(heard.values()) >= 2 * 3  # after 1, 9 and 17 tokens, both samples


def test_an_answer_ends_before_its_stop_text_and_keeps_the_tokens_up_to_it(answerer):
    asked = request(1)
    ((free,),) = answerer.answer([asked], sampling=Sampling(max_new_tokens=20))
    stop = free.text[5:8]
    assert stop
    sampling = Sampling(max_new_tokens=20, stop=("never there", stop))
    ((cut,),) = answerer.answer([asked], sampling=sampling)
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.finish_reason == "stop"
    count = len(cut.token_ids)
    assert cut.cost.new_tokens == count == len(cut.logprobs) == len(cut.entropies)
    assert cut.token_ids == free.token_ids[:count]
    assert cut.logprobs == free.logprobs[:count]
    decode = answerer.tokenizer.decode
    assert stop in decode(cut.token_ids)
    assert stop not in decode(cut.token_ids[:-1])


def test_pictures_stand_where_the_turns_say(answerer):
    """The same as pictures first when they do, and another prompt when they do not."""
    asked = request(2)
    first = ("user", (0, 1, asked.question))
    last = ("user", (asked.question, 1, 0))
    turned = [dataclasses.replace(asked, turns=(turn,)) for turn in (first, last)]
    ((plain,), (same,), (other,)) = answerer.answer([asked, *turned], sampling=SHORT)
    assert same.token_ids == plain.token_ids
    assert [view.item for view in other.views] == [1, 0]
    with pytest.raises(PromptError, match="1 picture placeholders, but 2 pictures"):
        answerer.answer([dataclasses.replace(asked, turns=(("user", (0, "x")),))])


def test_a_check_says_without_pixels_what_an_answer_would(answerer):
    for i in range(4):
        ((answer,),) = answerer.answer([request(i)], sampling=SHORT)
        length = answer.cost.visual_tokens + answer.cost.text_tokens
        assert answerer.check(request(i), 5) == length
    for changes in ({"policy": "nativ"}, {"question": ""}, {"question": "x" * 800}):
        bad = request(1, **changes)
        with pytest.raises(MresError) as checked:
            answerer.check(bad, SHORT.max_new_tokens)
        with pytest.raises(type(checked.value)) as asked:
            answerer.answer([bad], sampling=SHORT)
        assert str(checked.value) == str(asked.value)


def test_a_placeholder_typed_by_a_user_stays_text(answerer):
    typed = request(0, question="what is <|image_pad|><|vision_start|> <|im_end|>")
    ((answer,),) = answerer.answer([typed], sampling=SHORT)
    assert answer.cost.visual_tokens == 0


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"policy": "native:3"}, PolicyError, "policy native: takes no value"),
        ({"policy": "nativ"}, PolicyError, "did you mean native?"),
        ({"policy": "fixed:20"}, PolicyError, "20 px is not a multiple of the 8 px"),
        ({"question": ""}, PromptError, "request 'bad': "),
        ({"question": "x" * 800}, PromptError, "request 'bad' has "),
        ({"images": [picture(0, 40, 40)] * 9, "policy": "native"}, PackingError, "request 'bad': "),
    ],
)
def test_what_cannot_be_answered_is_one_line_that_names_the_request(answerer, changes, error, text):
    with pytest.raises(error) as caught:
        answerer.answer([request(0), request(1, id="bad", **changes)], sampling=SHORT)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_holds_every_prompt_once_in_a_rung_of_its_kind(qwen):
    ladders = default_ladders(qwen.tiny.spec, max_context=32_768)
    rng = np.random.default_rng(0)
    sizes = []
    for visual in rng.integers(0, 3_000, 300) * (rng.random(300) < 0.8):
        text, views = int(rng.integers(20, 300)), int(visual > 0)
        sizes.append(ExampleSize(4 * int(visual), int(visual) + text, views))
    sizes += [ExampleSize(4 * 30_000, 30_500, 40), ExampleSize(0, 32_768, 0)]
    plans = ladders.plan(sizes)
    assert sorted(i for plan in plans for i in plan.indices) == list(range(302))
    for plan in plans:
        total = np.array([sizes[i] for i in plan.indices]).sum(axis=0)
        ladder, shared = ladders.pictures, ladders.shared[0]
        if total[0] == 0:
            ladder, shared = ladders.text, ladders.shared[1]
        assert plan.rung in ladder
        assert (total <= limits(plan.rung)).all()
        assert len(plan.indices) <= plan.rung.max_examples
        if plan.rung not in ladder[:shared]:  # a pack of its own, and it needs one
            assert len(plan.indices) == 1
            assert (total > limits(ladder[shared - 1])).any()


@pytest.mark.parametrize("max_context", [64, 512, 32_768, 131_072])
def test_default_ladders_hold_any_prompt_that_fits_the_context(qwen, max_context):
    ladders = default_ladders(qwen.tiny.spec, max_context)
    for visual in (0, 1, max_context // 2, max_context):
        size = ExampleSize(4 * visual, max_context, 1 if visual else 0)
        assert len(ladders.plan([size])) == 1


@pytest.mark.parametrize("visual", [0, 1_024, 4_096])
def test_a_prompt_alone_does_not_pay_for_a_pack_of_many(qwen, visual):
    ladders = default_ladders(qwen.tiny.spec, max_context=32_768)
    length = max(visual, 990) + 30
    (plan,) = ladders.plan([ExampleSize(4 * visual, length, 1 if visual else 0)])
    assert plan.rung.max_tokens <= 1.4 * length  # the next larger rung has twice its tokens


def test_a_given_ladder_is_used_for_all_prompts():
    ladders = Ladders.of(LADDER)
    plans = ladders.plan([ExampleSize(100, 50, 1), ExampleSize(0, 50, 0)])
    assert [plan.rung for plan in plans] == list(LADDER) * 2


def test_the_handle_takes_pictures_however_they_come(answerer, tmp_path: pathlib.Path):
    pixels = picture(7, 21, 34)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(file.getvalue())
    vlm = VLM("tiny", answerer)
    ways = [pixels, path, str(path), file.getvalue(), Image.fromarray(pixels), [pixels]]
    answers = [vlm.answer(way, "what is the total", max_new_tokens=3) for way in ways]
    assert len({answer.token_ids for answer in answers}) == 1
    assert answers[0].views[0].crop.size == Size(21, 34)
    both = vlm.answer([path, pixels], "what is the total", n=2, temperature=1.0, max_new_tokens=3)
    assert len(both) == 2
    assert len(both[0].views) == 2


def test_an_array_that_is_no_picture_is_refused():
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(BadImageError, match=r"^picture 3: an array of .*; give uint8"):
            to_pixels(array, name="3")


def test_a_picture_of_pillow_is_composited_and_turned_like_a_file():
    transparent = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    assert (to_pixels(transparent, name="0") == 255).all()
    turned = Image.fromarray(picture(1, 8, 5))
    turned.getexif()[0x0112] = 6
    assert to_pixels(turned, name="0").shape == (5, 8, 3)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2")])
def test_sixteen_bits_of_pillow_keep_their_greys(mode, kind):
    greys = np.array([[0, 256, 40_000, 65_535]], kind)
    pixels = to_pixels(Image.frombytes(mode, (4, 1), greys.tobytes()), name="0")
    assert pixels[0, :, 0].tolist() == [0, 1, 156, 255]


def test_premultiplied_transparency_of_pillow_is_composited():
    assert (to_pixels(Image.new("RGBa", (6, 4)), name="0") == 255).all()
    half = Image.new("RGBA", (6, 4), (200, 0, 100, 128))
    one, other = (to_pixels(image, name="0") for image in (half, half.convert("RGBa")))
    np.testing.assert_allclose(one.astype(int), other, atol=1)  # premultiplied bytes are rounded


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_a_picture_of_pillow_without_a_known_range_is_refused(mode):
    with pytest.raises(BadImageError, match=rf"^picture 2: .* mode {mode} .*give it as L or RGB"):
        to_pixels(Image.new(mode, (4, 4)), name="2")


def test_impossible_numbers_are_bad_input(answerer):
    with pytest.raises(MresError, match=r"top_p=0 in \(0, 1\]|top_p=0"):
        VLM("tiny", answerer).answer([], "what", top_p=0)
    with pytest.raises(MresError, match=r"n=0 must be at least 1"):
        VLM("tiny", answerer).answer([], "what", n=0)


@pytest.mark.parametrize("images", [None, 5])
def test_what_holds_no_pictures_is_refused(images, answerer):
    with pytest.raises(BadImageError, match=rf"^answer: images is {images}\. Give a picture or"):
        to_request(images, "what", answerer.spec, policy=None)


@pytest.mark.parametrize("question", [None, 5])
def test_a_question_that_is_no_text_is_refused(question, answerer):
    with pytest.raises(PromptError, match=rf"answer: the question is {question}, and no text\."):
        to_request([], question, answerer.spec, policy=None)


def limits(rung):
    return np.array([rung.max_patches, rung.max_tokens, rung.max_views])


def test_a_model_on_this_machine_zooms_as_a_served_one_does(makers):
    """A window by chance needs no first pass; a model that names no place sees all."""
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    answerer = LocalAnswerer(*makers["qwen2_vl"].tiny, ladder=LADDER)
    policies = ("zoom,window=0.5,source=random", "zoom,coarse=20")
    requests = [Request(id="a", images=[image], question="what", policy=p) for p in policies]
    (chance,), (lost,) = answerer.answer(requests, sampling=Sampling(max_new_tokens=4))
    assert chance.views[0].crop.size == (30, 45)
    assert len(chance.passes) == 1
    assert lost.views[0].crop == (0, 0, 60, 90)
    assert lost.note.startswith("no window: ")
    first, second = lost.passes
    assert lost.cost.visual_tokens == first.cost.visual_tokens + second.cost.visual_tokens <= 40
    assert lost.cost.flops == pytest.approx(first.cost.flops + second.cost.flops)
    assert set(lost.cost.ms) == {"host", "vision", "prefill", "decode"}
