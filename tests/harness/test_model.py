"""Answers for a harness: those of the other ways to ask, whatever is asked beside them."""

import json

import pytest

from mres_jax.data.wire import data_url, picture_part
from mres_jax.errors import MresError
from mres_jax.evaluation.arms.asking import Asker
from mres_jax.evaluation.arms.questions import AskedQuestion
from mres_jax.inference.handle import to_pixels
from mres_jax.inference.show import png
from mres_jax.protocols import Sampling
from mres_jax.serving import Limits, LocalBackend, PolicyRule
from mres_jax.serving.app import HttpRequest, Reply

LENGTH = 6
POLICY = "budget:4"


def by_evaluation(vlm, documents):
    """As `mres eval` asks."""
    asker = Asker(vlm.answerer, vlm.spec, Sampling(max_new_tokens=LENGTH), 0, "")
    items = [[to_pixels(document["image"], name="0")] for document in documents]
    questions = [
        AskedQuestion(
            id=f"{i}",
            text=document["ask"],
            answers=(),
            metric="",
            grade=lambda answer: 0.0,
            open=lambda spec: [],
        )
        for i, document in enumerate(documents)
    ]
    answers, _ = asker.ask(questions, items, POLICY)
    return [answer.text for answer in answers]


def by_server(vlm, documents):
    """As `mres serve` answers, each request on its own."""
    backend = LocalBackend(vlm, name="tiny", rule=PolicyRule(POLICY, False), limits=Limits())
    texts = []
    try:
        for document in documents:
            picture = data_url(png(to_pixels(document["image"], name="0")))
            parts = [picture_part(picture), {"type": "text", "text": document["ask"]}]
            messages = [{"role": "user", "content": parts}]
            content = {"model": "tiny", "messages": messages, "max_tokens": LENGTH}
            reply = backend.chat(content, HttpRequest("POST", "/v1/chat/completions"))
            assert isinstance(reply, Reply)
            texts.append(reply.content["choices"][0]["message"]["content"])
    finally:
        backend.close()
    return texts


def test_harness_evaluation_and_server_give_the_same_answers(make_model, ask, vlm, documents):
    model = make_model(policy=POLICY, max_new_tokens=LENGTH)
    texts = [one.text for one in model.generate([ask(i) for i in range(len(documents))])]
    assert texts == by_evaluation(vlm, documents)
    assert texts == by_server(vlm, documents)
    assert len(set(texts)) > 1


def test_answers_come_in_the_order_of_the_requests_whatever_the_batch(make_model, ask, documents):
    order = [2, 0, 3, 1]
    requests = [ask(i, max_new_tokens=3 if i == 3 else LENGTH) for i in order]
    made = make_model().generate(requests)
    alone = [make_model(batch_size=1).generate([ask(i)])[0].text for i in range(len(documents))]
    whole = [one for one, i in zip(made, order, strict=True) if i != 3]
    assert [one.text for one in whole] == [alone[i] for i in order if i != 3]
    assert made[2].num_output <= 3


def test_what_was_looked_at_and_its_cost_are_logged_with_each_answer(make_model, ask):
    (one,) = make_model(policy=POLICY).generate([ask(1)])
    facts = json.loads(json.dumps(one.facts))
    (view,) = facts["views"]
    assert facts["items_px"] == [[60, 140]]
    assert view["crop_px"] == [0, 0, 60, 140]
    assert view["tokens"] == facts["visual_tokens"] <= 4
    assert one.num_input == facts["visual_tokens"] + facts["text_tokens"]
    assert facts["policy"] == POLICY
    assert 0 < facts["retention_ratio"] < 1
    assert facts["flops"] > 0


def test_a_repeated_request_has_a_name_of_its_own(make_model, ask, monkeypatch):
    model, asked = make_model(), []
    answer = model.vlm.answerer.answer
    monkeypatch.setattr(
        model.vlm.answerer,
        "answer",
        lambda requests, **options: asked.extend(requests) or answer(requests, **options),
    )
    model.generate([ask(0), ask(1), ask(0)])
    assert [request.id for request in asked] == ["toy/test/0", "toy/test/1", "toy/test/0#2"]


@pytest.mark.slow
def test_a_repeated_request_draws_anew_and_draws_the_same_next_time(make_model, ask):
    def draw():
        requests = [ask(0, temperature=2.0)] * 4
        return [one.text for one in make_model().generate(requests)]

    texts = draw()
    assert len(set(texts)) > 1
    assert texts == draw()


def test_a_question_that_cannot_be_asked_is_named(make_model, ask, documents):
    model = make_model()
    model.task_dict = {"toy": {"test": [documents[0] | {"ask": "word " * 600}]}}
    with pytest.raises(MresError, match="toy/test/0"):
        model.generate([ask(0)])
