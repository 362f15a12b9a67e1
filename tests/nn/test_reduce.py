"""Laws of token reduction: counts, order, items apart, means kept; brute force beside each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mres_jax.nn import keep_best, random_drop, tome, tome_rounds, visionzip

COUNTS, KEEP, PAD, WIDTH = (12, 5, 1, 30), (4, 5, 1, 7), 16, 6
SIZE = 24  # static length of the result, more than the 17 that are kept


@pytest.fixture(scope="module")
def pack():
    """Features, segment ids and scores of four items, behind them padding with NaN."""
    draw = np.random.default_rng(0)
    total = sum(COUNTS)
    features = draw.normal(size=(total + PAD, WIDTH)).astype(np.float32)
    features[total:] = np.nan
    ids = np.zeros(total + PAD, np.int32)
    ids[:total] = np.repeat(np.arange(1, 5), COUNTS)
    scores = draw.random(total + PAD).astype(np.float32)
    return jnp.asarray(features), jnp.asarray(ids), jnp.asarray(scores)


def reducers():
    keys = jax.random.split(jax.random.key(0), 4)
    keep = jnp.array(KEEP)
    dominant, contextual = jnp.array([3, 3, 1, 4]), jnp.array([1, 2, 0, 3])
    rounds = tome_rounds(list(COUNTS), list(KEEP))
    return {
        "random": lambda x, s, f: random_drop(x, s, keep, keys, size=SIZE),
        "best": lambda x, s, f: keep_best(x, s, f, keep, size=SIZE),
        "tome": lambda x, s, f: tome(x, x, s, keep, size=SIZE, rounds=rounds),
        "visionzip": lambda x, s, f: visionzip(x, x, f, s, dominant, contextual, size=SIZE),
    }


NAMES = tuple(reducers())


@functools.cache
def compiled(name):
    return jax.jit(reducers()[name])


@pytest.mark.parametrize("name", NAMES)
def test_each_item_keeps_what_it_should_in_order_and_padding_is_never_read(name, pack):
    features, ids, scores = pack
    out = compiled(name)(features, ids, scores)
    kept = np.asarray(out.segment_ids)
    np.testing.assert_array_equal(np.bincount(kept, minlength=5)[1:], KEEP)
    source = np.asarray(out.source)
    real = source >= 0
    assert (np.diff(source[real]) > 0).all()
    np.testing.assert_array_equal(kept[real], np.asarray(ids)[source[real]])
    assert not np.asarray(out.features)[~real].any()
    assert np.isfinite(np.asarray(out.features)).all()


@pytest.mark.parametrize("name", NAMES)
def test_an_item_does_not_see_its_neighbours(name, pack):
    features, ids, scores = pack
    other = features.at[12:].multiply(-3.0)
    one, two = (compiled(name)(x, ids, scores) for x in (features, other))
    np.testing.assert_array_equal(one.features[: KEEP[0]], two.features[: KEEP[0]])
    np.testing.assert_array_equal(one.source[: KEEP[0]], two.source[: KEEP[0]])


@pytest.mark.parametrize("name", NAMES)
def test_keeping_all_changes_nothing(name, pack):
    features, ids, scores = pack
    # the second and third item keep all they have
    out = compiled(name)(features, ids, scores)
    here = np.isin(np.asarray(out.segment_ids), (2, 3))
    np.testing.assert_allclose(np.asarray(out.features)[here], features[12:18], rtol=1e-6)


def test_the_best_are_the_best(pack):
    features, ids, scores = pack
    out = compiled("best")(features, ids, scores)
    expected = np.sort(np.argsort(-np.asarray(scores[:12]))[:4])
    np.testing.assert_array_equal(out.source[:4], expected)


def test_random_drop_keeps_every_token_equally_often(pack):
    features, ids, _ = pack
    keep = jnp.array(KEEP)

    @jax.jit
    @jax.vmap
    def sources(key):
        return random_drop(features, ids, keep, jax.random.split(key, 4), size=SIZE).source

    drawn = np.asarray(sources(jax.random.split(jax.random.key(1), 2_000)))
    share = np.bincount(drawn[drawn >= 0], minlength=48)[:12] / 2_000
    # four of twelve; five deviations of 2,000 draws
    np.testing.assert_allclose(share, 1 / 3, atol=5 * (2 / 9 / 2_000) ** 0.5)


def merged_by_hand(x, keep):
    """ToMe over one item, token by token."""
    tokens = [(vector.astype(np.float64), 1.0, i) for i, vector in enumerate(x)]
    while len(tokens) > keep:
        first, second = tokens[::2], tokens[1::2]
        unit = lambda v: v / np.linalg.norm(v)  # noqa: E731
        pairs = []
        for index, (vector, *_) in enumerate(second):
            likeness = [float(unit(vector) @ unit(other)) for other, *_ in first]
            pairs.append((max(likeness), index, int(np.argmax(likeness))))
        chosen = sorted(pairs, reverse=True)[: len(tokens) - keep]
        groups = [[token] for token in first]
        for _, index, home in chosen:
            groups[home].append(second[index])
        joined = {index for _, index, _ in chosen}
        merged = []
        for group in groups:
            weight = sum(w for _, w, _ in group)
            merged.append((sum(v * w for v, w, _ in group) / weight, weight, group[0][2]))
        rest = [token for index, token in enumerate(second) if index not in joined]
        tokens = sorted([*merged, *rest], key=lambda token: token[2])
    return np.array([vector for vector, *_ in tokens])


def test_tome_merges_as_by_hand(pack):
    features, ids, scores = pack
    out = compiled("tome")(features, ids, scores)
    np.testing.assert_allclose(
        out.features[: KEEP[0]], merged_by_hand(np.asarray(features[:12]), KEEP[0]), atol=1e-5
    )
    last = slice(sum(KEEP[:3]), sum(KEEP))
    np.testing.assert_allclose(
        out.features[last], merged_by_hand(np.asarray(features[18:48]), KEEP[3]), atol=1e-5
    )


def test_tome_keeps_the_mean_of_equal_tokens(pack):
    _, ids, _ = pack
    same = jnp.broadcast_to(ids[:, None].astype(jnp.float32), (len(ids), WIDTH))
    out = compiled("tome")(same, ids, same[:, 0])
    np.testing.assert_allclose(out.features[:, 0], out.segment_ids, rtol=1e-6)


def test_visionzip_averages_groups_as_by_hand(pack):
    features, ids, scores = pack
    out = compiled("visionzip")(features, ids, scores)
    x, s = np.asarray(features[18:48], np.float64), np.asarray(scores[18:48])
    dominant = set(np.argsort(-s)[:4].tolist())
    rest = [i for i in range(30) if i not in dominant]
    targets = rest[:: len(rest) // 3][:3]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    groups = {t: [t] for t in targets}
    for i in rest:
        if i not in groups:
            groups[max(targets, key=lambda t: unit[i] @ unit[t])].append(i)
    expected = {i: x[i] for i in dominant} | {t: x[g].mean(axis=0) for t, g in groups.items()}
    rows = slice(sum(KEEP[:3]), sum(KEEP))
    np.testing.assert_array_equal(out.source[rows] - 18, sorted(expected))
    np.testing.assert_allclose(
        out.features[rows], [expected[i] for i in sorted(expected)], atol=1e-5
    )


def test_one_compile_serves_all_counts(pack):
    features, ids, scores = pack
    runs = 0

    @jax.jit
    def run(keep):
        nonlocal runs
        runs += 1
        return keep_best(features, ids, scores, keep, size=SIZE)

    for keep in ((1, 2, 1, 3), (4, 5, 1, 7)):
        assert int((run(jnp.array(keep)).source >= 0).sum()) == sum(keep)
    assert runs == 1
