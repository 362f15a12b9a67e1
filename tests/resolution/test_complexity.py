"""Complexity: nothing in a flat picture and in noise, and as much as a second program counts."""

import collections
import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mres_jax.errors import BadImageError, MresError
from mres_jax.resolution.complexity import (
    COMPLEXITIES,
    compressed_share,
    find_complexity,
    histogram_entropy,
    mdl_complexity,
    mean_gradient,
    measure_images,
)
from mres_jax.resolution.complexity.mdl import mdl_levels
from mres_jax.resolution.complexity.mixture import Mixture
from mres_jax.resolution.complexity.thumbnail import thumbnail

TALL, WIDE = 150, 200


def flat() -> np.ndarray:
    return np.full((TALL, WIDE, 3), 90, np.uint8)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (TALL, WIDE, 3), np.uint8)


def stripes(period: int = 16) -> np.ndarray:
    image = np.full((TALL, WIDE, 3), 255, np.uint8)
    image[:, (np.arange(WIDE) % period) < period // 2] = 0
    return image


def text() -> np.ndarray:
    page = Image.new("RGB", (WIDE, TALL), "white")
    for line in range(9):
        words = " ".join(f"{(line + 1) * k * 7919 % 9973}" for k in range(1, 7))
        ImageDraw.Draw(page).text((6, 4 + 16 * line), words, fill="black")
    return np.asarray(page)


def photograph() -> np.ndarray:
    """Shading and textures as of nature (amplitude falls as frequency**-1.6), and round things."""
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(TALL)[:, None], np.fft.rfftfreq(WIDE)[None])
    frequency[0, 0] = 1

    def shade(power: float) -> np.ndarray:
        phases = np.exp(2j * np.pi * rng.random(frequency.shape))
        field = np.fft.irfft2(phases / frequency**power, (TALL, WIDE))
        return field / field.std()

    base = shade(1.6)
    out = np.stack([base + 0.5 * shade(1.6) for _ in range(3)], -1)
    y, x = np.mgrid[:TALL, :WIDE]
    for _ in range(8):
        cy, cx, radius = rng.random() * TALL, rng.random() * WIDE, 10 + 25 * rng.random()
        inside = ((y - cy) ** 2 + (x - cx) ** 2 < radius**2)[..., None]
        out = np.where(inside, 1.5 * rng.normal(size=3) + 0.4 * shade(1.2)[..., None], out)
    return np.clip(128 + 45 * out, 0, 255).astype(np.uint8)


def test_meaningful_complexity_puts_flat_noise_stripes_text_and_photograph_in_order():
    found = [mdl_complexity(make()) for make in (flat, noise, stripes, text, photograph)]
    assert found[0] == found[1] == 0.0
    assert 0 < found[2] < found[3] < found[4]


def test_simple_measures_order_what_they_can_and_take_noise_for_rich():
    for measure in (mean_gradient, histogram_entropy, compressed_share):
        assert measure(flat()) < measure(text()) < measure(noise())
    assert mean_gradient(flat()) == histogram_entropy(flat()) == 0.0
    assert compressed_share(flat()) < 0.01
    assert compressed_share(noise()) > 0.9


def test_gradient_and_entropy_are_those_counted_by_hand():
    """Two halves, 0 and 200, resized to themselves: an edge of 4 x 200 over two columns."""
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10:] = 200
    assert mean_gradient(image, side=20) == pytest.approx(2 / 18 * 4 * 200)
    assert histogram_entropy(image, side=20) == pytest.approx(1.0)
    image[:, :5], image[:, 5:10], image[:, 15:] = 50, 100, 250  # four levels, a quarter each
    assert histogram_entropy(image, side=20) == pytest.approx(2.0)


def test_a_picture_of_two_halves_has_the_entropy_of_its_windows():
    """20 x 20, windows of 2 x 2: 9 of 19 columns black, 9 white, 1 mixed."""
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10:] = 255
    shares = np.array([9, 9, 1]) / 19
    level = mdl_levels(image, side=20)[0]
    assert level.clusters == 2
    assert level.bits == pytest.approx(-(shares * np.log2(shares)).sum())


def slow_levels(image: np.ndarray, side: int) -> list[tuple[int, float]]:
    """The same measure once more: lists and loops, for pictures of a few hundred positions."""
    pixels = thumbnail(image, side=side)
    grid = [[[float(v) / 255 for v in pixel] for pixel in row] for row in pixels]
    found = []
    for level in range(4):
        labels, kinds = slow_cluster(grid)
        if kinds < 2:
            return [*found, (kinds, 0.0)]
        p = min(2 * (level + 1), len(labels), len(labels[0]))
        rows, columns = len(labels) - p + 1, len(labels[0]) - p + 1
        grid = [[[0.0] * kinds for _ in range(columns)] for _ in range(rows)]
        for y in range(rows):
            for x in range(columns):
                for dy in range(p):
                    for dx in range(p):
                        grid[y][x][labels[y + dy][x + dx]] += 1
        tally = collections.Counter(tuple(cell) for row in grid for cell in row)
        total = sum(tally.values())
        found.append((kinds, -sum(n / total * math.log2(n / total) for n in tally.values())))
    return found


def slow_cluster(grid):
    points = [cell for row in grid for cell in row]
    values = [v for point in points for v in point]
    if max(values) == min(values):
        return [[0] * len(grid[0]) for _ in grid], 0
    if len(points[0]) > 3:
        array = np.array(points)
        _, _, axes = np.linalg.svd(array - array.mean(0), full_matrices=False)
        points = ((array - array.mean(0)) @ axes[:2].T).tolist()
        values = [v for point in points for v in point]
    spread, axes = max(values) - min(values), len(points[0])
    listed = axes * math.log2(spread)
    best, least = None, len(points) * listed
    for count in range(1, 9):
        parts = slow_mixture(points, count, 1e-6 * spread**2)
        bits = len(parts) * 2 * axes * (math.log2(spread) + 32)
        names = [slow_best(point, parts) for point in points]
        sizes = collections.Counter(names)
        for point, name in zip(points, names, strict=True):
            place = -slow_log(point, parts[name]) / math.log(2)
            inside = place <= listed
            bits += place + math.log2(len(points) / sizes[name]) if inside else listed
        if bits < least:
            best, least = names, bits
    if best is None:
        return [[0] * len(grid[0]) for _ in grid], 0
    order = {name: i for i, name in enumerate(sorted(set(best)))}
    flat, width = [order[name] for name in best], len(grid[0])
    return [flat[i : i + width] for i in range(0, len(flat), width)], len(order)


def slow_log(point, part):
    _, mean, variance = part
    pairs = zip(point, mean, variance, strict=True)
    return sum(-0.5 * ((x - m) ** 2 / v + math.log(2 * math.pi * v)) for x, m, v in pairs)


def slow_best(point, parts):
    scores = [slow_log(point, part) + math.log(part[0]) for part in parts]
    return scores.index(max(scores))


def slow_mixture(points, count, floor):
    distance = lambda a, b: sum((x - y) ** 2 for x, y in zip(a, b, strict=True))  # noqa: E731
    centres = [[sum(axis) / len(points) for axis in zip(*points, strict=True)]]
    while len(centres) < count:
        gaps = [min(distance(point, centre) for centre in centres) for point in points]
        centres.append(points[gaps.index(max(gaps))])
    nearest = lambda point: min(  # noqa: E731
        range(len(centres)), key=lambda k: distance(point, centres[k])
    )
    for _ in range(4):
        groups = collections.defaultdict(list)
        for point in points:
            groups[nearest(point)].append(point)
        centres = [
            [sum(axis) / len(groups[k]) for axis in zip(*groups[k], strict=True)]
            for k in sorted(groups)
        ]
    shares = [[float(k == nearest(point)) for k in range(len(centres))] for point in points]
    parts = slow_maximize(points, shares, floor)
    for _ in range(8):
        shares = []
        for point in points:
            scores = [slow_log(point, part) + math.log(part[0]) for part in parts]
            terms = [math.exp(score - max(scores)) for score in scores]
            shares.append([term / sum(terms) for term in terms])
        parts = slow_maximize(points, shares, floor)
    return parts


def slow_maximize(points, shares, floor):
    parts = []
    for k in range(len(shares[0])):
        total = sum(row[k] for row in shares)
        if total <= 1e-9:
            continue
        pairs = list(zip(points, shares, strict=True))
        mean = [sum(p[a] * s[k] for p, s in pairs) / total for a in range(len(points[0]))]
        square = [sum(p[a] ** 2 * s[k] for p, s in pairs) / total for a in range(len(mean))]
        variance = [max(q - m * m, floor) for q, m in zip(square, mean, strict=True)]
        parts.append((total / len(points), mean, variance))
    return parts


@pytest.mark.parametrize("make", [photograph, text, noise])
def test_meaningful_complexity_is_what_a_slow_and_plain_program_finds(make):
    image = make()[:60, :50]
    ours, theirs = mdl_levels(image, side=14), slow_levels(image, side=14)
    assert [level.clusters for level in ours] == [clusters for clusters, _ in theirs]
    # the same counts, so nothing but the rounding of the last sum
    assert [level.bits for level in ours] == pytest.approx([bits for _, bits in theirs], abs=1e-9)


def test_a_strip_one_pixel_thin_has_a_complexity():
    strip = np.random.default_rng(0).integers(0, 2, (1, 400, 3), np.uint8) * 255
    for name in COMPLEXITIES:
        assert math.isfinite(find_complexity(name)(strip))


def test_two_processes_give_the_numbers_of_one_and_paths_those_of_arrays(tmp_path):
    images = [make()[:40, :60] for make in (flat, noise, stripes, text, photograph)] * 2
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    alone = measure_images(images, "compressed")
    np.testing.assert_array_equal(measure_images(paths, "compressed", workers=2), alone)
    assert len(set(alone)) == 5


def test_an_unknown_measure_a_bad_file_and_a_sample_of_nothing_are_named(tmp_path):
    with pytest.raises(MresError, match=r"no measure 'mdk' \(did you mean mdl\?\); have mdl, grad"):
        measure_images([flat()], "mdk")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BadImageError, match=r"a\.png: damaged"):
        measure_images([tmp_path / "a.png"], "entropy")
    with pytest.raises(MresError, match="sample=8 must be at least 16"):
        mdl_complexity(flat(), sample=8)


def test_a_position_between_two_clusters_goes_to_the_larger_one():
    """Equal variances of 0.04 and shares of 9 to 1: the border lies 0.04 log 9 past the middle."""
    pair = Mixture(np.array([0.9, 0.1]), np.array([[0.0], [1.0]]), np.full((2, 1), 0.04))
    assert pair.assign(np.array([[0.4], [0.58], [0.6], [0.9]])).tolist() == [0, 0, 1, 1]
