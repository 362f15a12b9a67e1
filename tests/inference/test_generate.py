"""Laws of decoding packs against a cache."""

import collections
import contextlib
import dataclasses
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

import mres_jax.inference.generate
from mres_jax.data.packing import plan_packs
from mres_jax.data.types import Rung
from mres_jax.errors import PromptError, RunError
from mres_jax.inference import sampling as draws
from mres_jax.inference.generate import Generator
from mres_jax.protocols import Sampling

RUNG = Rung(max_patches=128, max_tokens=256, max_views=8, max_examples=4)
GREEDY = Sampling(max_new_tokens=12)
HOT = Sampling(temperature=1.3, top_p=0.95, max_new_tokens=12)


def run(maker, examples, ids, *, sampling=GREEDY, rung=RUNG, n=1, seed=0, watch=None, **options):
    generator = Generator(maker.tiny.model, maker.tiny.spec, **options)
    packed = maker.pack(*examples, rung=rung)
    numbers = {"sampling": sampling, "n": n, "seed": seed}
    return generator.generate(packed, ids, rung=rung, watch=watch, **numbers)[0]


def prompts(maker):
    """One picture, several pictures of several sizes, text alone."""
    return [
        maker.prompt(1, grids=[(2, 3)]),
        maker.prompt(2, grids=[(1, 4), (3, 2), (1, 1)], words=7),
        maker.prompt(3, grids=[], words=5),
    ]


def same_numbers(left, right):
    """Equal tokens; numbers within 1e-4: float32 sums over other shapes, through four layers."""
    assert left.token_ids == right.token_ids
    assert left.finish_reason == right.finish_reason
    np.testing.assert_allclose(left.logprobs, right.logprobs, atol=1e-4)
    np.testing.assert_allclose(left.entropies, right.entropies, atol=1e-4)


@pytest.mark.parametrize(
    "sampling",
    [pytest.param(GREEDY, id="greedy", marks=pytest.mark.slow), pytest.param(HOT, id="sampled")],
)
def test_cached_decoding_equals_reading_the_whole_sequence_again(maker, sampling):
    check_cached_decoding(maker, sampling)


def test_windows_and_deepstack_have_reached_the_cache(later):
    """The same of later generations, under a temperature and top-p."""
    check_cached_decoding(later, HOT)


def check_cached_decoding(maker, sampling):
    examples, names = prompts(maker), ["a", "b", "c"]
    answers = run(maker, examples, names, sampling=sampling)
    forbidden = draws.forbidden_mask(
        maker.tiny.spec.reserved_token_ids, maker.tiny.model.config.text_config.vocab_size
    )
    logits_of = jax.jit(lambda model, pack: model.logits(model.hidden(pack)))
    for example, (answer,) in zip(examples, answers, strict=True):
        assert len(answer.token_ids) == 12 or answer.finish_reason == "stop"
        whole = with_answer(example, answer.token_ids)
        logits = logits_of(maker.tiny.model, maker.pack(whole))
        before = slice(len(example.tokens) - 1, len(whole.tokens) - 1)
        processed = draws.processed_logits(logits[before], sampling, forbidden)
        tokens = np.array(answer.token_ids)
        logprobs, entropies = draws.token_logprobs(processed, jax.numpy.asarray(tokens))
        # float32 sums in another order: the last bit of each weight moves single scores of these
        # random models by 1e-4
        np.testing.assert_allclose(answer.logprobs, np.asarray(logprobs), atol=5e-4)
        np.testing.assert_allclose(answer.entropies, np.asarray(entropies), atol=5e-4)
        if sampling is GREEDY:
            assert np.asarray(processed).argmax(axis=-1).tolist() == tokens.tolist()


@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "sampled"])
def test_what_is_packed_beside_a_request_does_not_change_its_answer(qwen, sampling):
    examples, names = prompts(qwen), ["a", "b", "c"]
    together = run(qwen, examples, names, sampling=sampling)
    backwards = run(qwen, examples[::-1], names[::-1], sampling=sampling)[::-1]
    for i, name in enumerate(names):
        (alone,) = run(qwen, [examples[i]], [name], sampling=sampling)
        same_numbers(together[i][0], alone[0])
        same_numbers(backwards[i][0], alone[0])


def test_samples_that_share_a_prefill_equal_samples_decoded_one_by_one(qwen):
    examples, names = prompts(qwen)[:2], ["a", "b"]
    shared = run(qwen, examples, names, sampling=HOT, n=3)
    one_by_one = run(qwen, examples, names, sampling=HOT, n=3, rows=(1,))
    for left, right in zip(flat(shared), flat(one_by_one), strict=True):
        same_numbers(left, right)
    assert len({answer.token_ids for answer in shared[0]}) == 3
    single = run(qwen, examples, names, sampling=HOT, n=1)
    same_numbers(single[1][0], shared[1][0])


def test_the_draw_depends_on_request_and_seed(qwen):
    example = qwen.prompt(4)
    answers = {
        run(qwen, [example], [name], sampling=HOT, seed=seed)[0][0].token_ids
        for name, seed in (("a", 0), ("b", 0), ("a", 1))
    }
    assert len(answers) == 3
    assert run(qwen, [example], ["a"], sampling=HOT)[0][0].token_ids in answers


def test_a_stop_token_ends_its_row_and_no_other(qwen):
    examples, names = prompts(qwen), ["a", "b", "c"]
    free = run(qwen, examples, names)
    stop = free[0][0].token_ids[3]
    spec = dataclasses.replace(qwen.tiny.spec, eos_token_ids=(stop, stop))
    stopper = qwen._replace(tiny=qwen.tiny._replace(spec=spec))
    for (before,), (after,) in zip(free, run(stopper, examples, names), strict=True):
        expected = before.token_ids
        if stop in expected:
            expected = expected[: expected.index(stop) + 1]
        assert after.token_ids == expected
        assert after.finish_reason == ("stop" if stop in expected else "length")
        assert len(after.logprobs) == len(after.entropies) == len(expected)


@pytest.mark.parametrize("sampling", [GREEDY, HOT], ids=["greedy", "sampled"])
def test_decoding_in_chunks_gives_the_same_bits_and_is_seen_as_it_grows(
    qwen, sampling, monkeypatch
):
    """Chunks of 5 of 12 tokens, so that the last one is cut short; n=2."""
    monkeypatch.setattr(mres_jax.inference.generate, "CHUNK", 5)
    examples, names = prompts(qwen), ["a", "b", "c"]
    seen = collections.defaultdict(list)

    def watch(prompt, sample, token_ids):
        seen[prompt, sample].append(tuple(token_ids))
        return False

    whole = run(qwen, examples, names, sampling=sampling, n=2)
    assert run(qwen, examples, names, sampling=sampling, n=2, watch=watch) == whole
    for (prompt, sample), growing in seen.items():
        token_ids = whole[prompt][sample].token_ids
        assert growing[-1] == token_ids
        assert all(token_ids[: len(part)] == part for part in growing)
        lengths = [len(part) for part in growing]
        assert lengths == sorted({min(n, len(token_ids)) for n in (1, 6, 11, 12)})
    assert len(seen) == 6


def test_an_answer_that_is_ended_from_outside_changes_no_other(qwen, monkeypatch):
    monkeypatch.setattr(mres_jax.inference.generate, "CHUNK", 3)
    examples, names = prompts(qwen), ["a", "b", "c"]
    free = run(qwen, examples, names)
    cut = run(qwen, examples, names, watch=lambda i, sample, ids: i == 1 and len(ids) >= 4)
    assert cut[1][0].token_ids == free[1][0].token_ids[:4]
    assert cut[1][0].finish_reason == "stop"
    assert [cut[0], cut[2]] == [free[0], free[2]]


def test_placeholders_of_pictures_are_never_generated_however_hot(qwen):
    examples, names = prompts(qwen), ["a", "b", "c"]
    hot = Sampling(temperature=1e6, max_new_tokens=60)
    answers = run(qwen, examples, names, sampling=hot, n=5)
    tokens = {token for some in answers for answer in some for token in answer.token_ids}
    assert len(tokens) > 150  # of 288: hot enough to meet them otherwise
    assert not tokens & set(qwen.tiny.spec.reserved_token_ids)


def test_a_prompt_without_pictures_needs_no_patches(qwen):
    example = qwen.prompt(3, grids=[], words=5)
    bare = Rung(max_patches=0, max_tokens=128, max_views=0, max_examples=2)
    (with_buffer,) = run(qwen, [example], ["a"])
    (without,) = run(qwen, [example], ["a"], rung=bare)
    same_numbers(with_buffer[0], without[0])


def test_a_prompt_longer_than_the_cache_is_refused_with_its_numbers(qwen):
    example = qwen.prompt(1)
    length = len(example.tokens)
    run(qwen, [example], ["a"], max_context=length + 12)
    with pytest.raises(PromptError) as error:
        run(qwen, [example], ["a"], max_context=length + 9)
    assert str(error.value) == (
        f"generate: request 'a' has {length} prompt tokens and max_new_tokens=12, but the cache "
        f"holds {length + 9} (over by 3). Give its pictures a smaller budget, shorten its text, or "
        "lower max_new_tokens."
    )


def test_scores_that_are_no_numbers_are_an_error_and_not_an_answer(qwen):
    graphdef, state = nnx.split(qwen.tiny.model)
    broken = nnx.merge(graphdef, jax.tree.map(lambda x: x * np.nan, state))
    maker = qwen._replace(tiny=qwen.tiny._replace(model=broken))
    with pytest.raises(RunError, match="request 'a': the scores of token 0 are not numbers"):
        run(maker, [qwen.prompt(1)], ["a"])


@pytest.mark.parametrize(
    ("number", "room"), [(100, 16), pytest.param(1_000, 32, marks=pytest.mark.slow)]
)
def test_mixes_of_sizes_compile_no_more_than_the_rungs_touched(qwen, number, room):
    """By the log of compiles, in which whatever else the path may compile would stand too.

    The `room` beyond the visual tokens gives each case shapes that no other has compiled.
    """
    ladder = [
        Rung(max_patches=64, max_tokens=64 + room, max_views=4, max_examples=2),
        Rung(max_patches=128, max_tokens=128 + room, max_views=6, max_examples=3),
        Rung(max_patches=192, max_tokens=192 + room, max_views=8, max_examples=4),
    ]
    rng = np.random.default_rng(0)
    shapes = [(r, c) for r in range(1, 7) for c in range(1, 7) if r * c <= 16]
    examples = [
        qwen.prompt(i, grids=[shapes[j] for j in rng.integers(0, len(shapes), 1 + i % 2)], words=w)
        for i, w in enumerate(rng.integers(1, 9, 60))
    ]
    generator = Generator(qwen.tiny.model, qwen.tiny.spec, rows=(4,))
    touched, mixes = set(), set()
    with compiles() as compiled:
        while len(mixes) < number:
            some = rng.choice(60, 4)
            for plan in plan_packs([examples[i].size for i in some], ladder):
                chosen = [examples[some[i]] for i in plan.indices]
                mix = (plan.rung, tuple(example.grids for example in chosen))
                if mix in mixes:
                    continue
                mixes.add(mix)
                touched.add(plan.rung)
                names = [str(i) for i in plan.indices]
                sampling = Sampling(max_new_tokens=int(rng.integers(1, 3)))
                packed = qwen.pack(*chosen, rung=plan.rung)
                generator.generate(packed, names, rung=plan.rung, sampling=sampling)
    assert len(touched) == 3
    per_rung = ("jit(_encode)", "jit(_prefill)", "jit(_start)")
    assert {name: compiled.pop(name) for name in per_rung} == dict.fromkeys(per_rung, 3)
    # All caches have 256 positions; the lambda asks, once a process, what options XLA knows.
    assert set(compiled) <= {"jit(_decode)", "jit(<lambda>)"}
    assert max(compiled.values(), default=0) <= 1  # 0 where another test came first


def flat(answers):
    return list(itertools.chain.from_iterable(answers))


@contextlib.contextmanager
def compiles():
    """A counter of what is compiled inside the block, by name."""
    counter = collections.Counter()

    def listen(event, duration_secs, **info):
        if event == "/jax/core/compile/backend_compile_duration":
            counter[info["fun_name"]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counter
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def with_answer(example, token_ids):
    """The example with an answer behind it."""
    more = len(token_ids)
    positions = example.next_position + np.arange(more, dtype=np.int32)
    return dataclasses.replace(
        example,
        tokens=np.concatenate([example.tokens, np.array(token_ids, np.int32)]),
        slots=np.concatenate([example.slots, np.full(more, -1, np.int32)]),
        positions=np.concatenate([example.positions, np.tile(positions, (3, 1))], axis=1),
        loss_mask=np.concatenate([example.loss_mask, np.ones(more, bool)]),
    )
