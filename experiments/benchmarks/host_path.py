"""Times picture files -> what a model gets, next to `Qwen2VLImageProcessorPil` of `transformers`.

    python experiments/benchmarks/host_path.py

Needs torch and transformers beside the library (`make parity`). Both sides read the same JPEG
files; ours gives uint8 patch rows in block order with positions (the model normalises them), theirs
float32 `pixel_values` with grids. First both run in one process, and ours, normalised as the model
does it, must equal theirs on every file. Then each side runs in a process of its own, in turn.
"""

import argparse
import contextlib
import functools
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import numpy as np
from measure import medians, write_result
from PIL import Image

PATCH, MERGE = 14, 2
STRIDE = PATCH * MERGE
LIMITS = {"min_pixels": 56 * 56, "max_pixels": 1280 * STRIDE**2}  # the processor's own
SIDES = 336, 1920  # px
QUALITY = 90  # of the JPEG files
THREADS = 2
PACK_PATCHES = 16_384
TOLERANCE = 1e-6  # float32 rounding of values up to 2.7
GOAL = 2.5
Files = list[pathlib.Path]

LABELS = {  # run -> what the table calls it
    "ours": "ours: file to patch rows",
    "ours, one thread": "ours, one thread",
    "ours, to packs": f"ours: file to packs of {PACK_PATCHES:,} patches, tokens included",
    "theirs, pool": "theirs, a call per picture in a pool of two threads",
    "theirs": "theirs, a call per picture",
    "theirs, one call": "theirs, one call for all",
    "floor": "decoding and resizing by Pillow alone",
}
ONE_THREAD = {"ours, one thread", "theirs", "theirs, one call"}
RESULTS_OF = {"stages"}  # asked for what they return
ABOUT = (
    "Ours (`decode_pillow`, `render_view`, `patchify`: uint8 rows in block order, positions) next "
    "to `Qwen2VLImageProcessorPil` (float32 `pixel_values`, grids), each in a process of its own. "
    "{files}."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--results", type=pathlib.Path, help="folder for JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = draw_files(pathlib.Path(folder), options.files)
        work = describe(files)
        print(f"{work['files']}; comparing pixels")
        difference = max(pixel_difference(file) for file in files)
        assert difference <= TOLERANCE, f"pixels differ by {difference:.3g}"
        with side(our_runs, files) as ours, side(their_runs, files) as theirs:
            seconds = in_turn([ours, theirs], options.rounds)
            stages = ask(ours, "stages")[1]
    rows = [row(name, medians(seconds), work) for name in LABELS]
    write_result(
        "host_path",
        rows,
        title="Host path: picture files to patch rows",
        about=ABOUT.format(**work),
        dtype="uint8 rows, theirs float32",
        notes=notes(rows, difference, stages),
        details={"seconds": seconds, "stages_ms": stages},
        results=options.results,
    )


def row(name: str, seconds: dict[str, float], work: dict) -> dict:
    rate = work["count"] / seconds[name]
    return {
        "path": LABELS[name],
        "threads": 1 if name in ONE_THREAD else THREADS,
        "images/s": round(rate, 1),
        "MPix/s": round(rate * work["mpix"], 1),
        "ours is faster by": round(seconds[name] / seconds["ours"], 2),
    }


def notes(rows: list[dict], difference: float, stages: dict[str, float]) -> list[str]:
    rates = {name: line["images/s"] for name, line in zip(LABELS, rows, strict=True)}
    best = max(rate for name, rate in rates.items() if name.startswith("theirs"))
    ratio = rates["ours"] / best
    goal = "reached" if ratio >= GOAL else f"missed by {1 - ratio / GOAL:.0%}"
    profile = ", ".join(f"{stage} {ms:.1f}" for stage, ms in stages.items())
    return [
        f"Against the fastest way to call theirs: {ratio:.2f} times; the goal of {GOAL} is {goal}.",
        f"Pixels, normalised: at most {difference:.2g} apart on every file.",
        f"Ours, ms per picture on one thread: {profile}.",
        f"Decoding and Pillow's bicubic filter alone, which equal pixels need, leave room for "
        f"{rates['floor'] / best:.2f} times.",
    ]


def draw_files(folder: pathlib.Path, count: int) -> Files:
    """JPEG files; the longer side is log-uniform in `SIDES`, the ratio of sides in 1 to 2."""
    rng = np.random.default_rng(0)
    files = []
    for i in range(count):
        longer = np.exp(rng.uniform(*np.log(SIDES)))
        sides = [round(longer), max(SIDES[0], round(longer / 2 ** rng.uniform()))]
        height, width = sides if rng.uniform() < 0.4 else sides[::-1]
        files.append(folder / f"{i:03d}.jpg")
        Image.fromarray(photograph(height, width, rng)).save(files[-1], quality=QUALITY)
    return files


def photograph(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with a spectrum like that of photographs: amplitudes fall with frequency**1.2."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    noise = rng.standard_normal((2, 3, *frequency.shape))
    channels = np.fft.irfft2((noise[0] + 1j * noise[1]) / frequency**1.2, (height, width))
    channels /= channels.std(axis=(1, 2), keepdims=True)
    mixed = 0.85 * channels[:1] + 0.5 * channels  # colours go together
    return np.clip(128 + 50 * mixed, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def describe(files: Files) -> dict:
    sizes = np.array([Image.open(file).size for file in files])
    pixels = sizes.prod(axis=1)
    bits = 8 * sum(file.stat().st_size for file in files) / pixels.sum()
    text = (
        f"{len(files)} JPEG files of quality {QUALITY}, {bits:.1f} bits per pixel; longer side "
        f"log-uniform in {SIDES[0]} to {SIDES[1]:,} px, ratio of sides log-uniform in 1 to 2; mean "
        f"{sizes[:, 0].mean():.0f} x {sizes[:, 1].mean():.0f} px, {pixels.mean() / 1e6:.3f} MPix"
    )
    return {"files": text, "count": len(files), "mpix": float(pixels.mean()) / 1e6}


# Both sides


def our_rows(file: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    """Patch rows and positions of one file."""
    from mres_jax.data.images import decode_pillow
    from mres_jax.data.patches import patchify
    from mres_jax.data.views import render_view

    picture = decode_pillow(file)
    pixels = render_view(picture, whole_view(picture.height, picture.width))
    return patchify(pixels, patch_size=PATCH, merge_size=MERGE)


def whole_view(height: int, width: int):
    from mres_jax.geometry import Box, View, fit_size

    size = fit_size(height, width, stride=STRIDE, **LIMITS, hf_compat=True)
    return View(item=0, crop=Box(0, 0, height, width), size=size)


@functools.cache
def their_processor():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil()


def their_rows(files: Files):
    images = [Image.open(file) for file in files]
    return their_processor()(images=images, return_tensors="np")


def pixel_difference(file: pathlib.Path) -> float:
    """Largest difference of ours, normalised by the model's own function, from theirs."""
    import jax.numpy as jnp

    from mres_jax.nn.patch_embed import normalise

    processor, theirs = their_processor(), their_rows([file])
    rows, positions = our_rows(file)
    t, h, w = theirs["image_grid_thw"][0]
    assert (t, *(positions.max(0) + 1)) == (1, h, w)
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    ours = np.asarray(normalise(jnp.asarray(rows), mean, std)).reshape(len(rows), 3, 1, -1)
    both_frames = theirs["pixel_values"].reshape(len(rows), 3, 2, -1)
    return float(np.abs(ours - both_frames).max())


def our_runs(files: Files) -> dict[str, Callable]:
    pool = ThreadPoolExecutor(THREADS)
    make_packs = packer(files, pool)
    return {
        "ours": lambda: drain(pool.map(our_rows, files)),
        "ours, one thread": lambda: drain(map(our_rows, files)),
        "ours, to packs": lambda: drain(make_packs()),
        "floor": lambda: drain(pool.map(floor, files)),
        "stages": lambda: stage_times(files),
    }


def their_runs(files: Files) -> dict[str, Callable]:
    their_processor()
    pool = ThreadPoolExecutor(THREADS)
    one_by_one = [[file] for file in files]
    return {
        "theirs, pool": lambda: drain(pool.map(their_rows, one_by_one)),
        "theirs": lambda: drain(map(their_rows, one_by_one)),
        "theirs, one call": lambda: their_rows(files),
    }


def drain(results: Iterator) -> None:
    for _ in results:
        pass


def floor(file: pathlib.Path) -> Image.Image:
    """Decoding and resizing by Pillow alone, which either side needs for these pixels."""
    with Image.open(file) as image:
        image.load()
    size = whole_view(image.height, image.width).size
    return image.resize((size.width, size.height), Image.Resampling.BICUBIC)


def stage_times(files: Files) -> dict[str, float]:
    """Mean milliseconds per picture of each stage, one thread."""
    from mres_jax.data.images import decode_pillow
    from mres_jax.data.patches import patchify
    from mres_jax.data.views import render_view

    seconds = dict.fromkeys(("decode", "resize", "patchify"), 0.0)

    def clocked(stage: str, run: Callable, *args, **kwargs):
        start = time.perf_counter()
        result = run(*args, **kwargs)
        seconds[stage] += time.perf_counter() - start
        return result

    for file in files:
        picture = clocked("decode", decode_pillow, file)
        view = whole_view(picture.height, picture.width)
        pixels = clocked("resize", render_view, picture, view)
        clocked("patchify", patchify, pixels, patch_size=PATCH, merge_size=MERGE)
    return {stage: round(1e3 * total / len(files), 2) for stage, total in seconds.items()}


def packer(files: Files, pool: ThreadPoolExecutor) -> Callable[[], Iterator]:
    """Files to packs: sizes from the headers, a plan, examples in the pool, buffers filled."""
    from mres_jax.data.assemble import assemble, measure
    from mres_jax.data.conversations import prompt_messages
    from mres_jax.data.images import decode_pillow, read_size
    from mres_jax.data.ladder import fit_ladder
    from mres_jax.data.packing import pack, plan_packs
    from mres_jax.data.tokenizer import Tokenizer, build_tiny_tokenizer

    tokenizer = Tokenizer(build_tiny_tokenizer(["What", "is", "the", "total"]))
    spec, messages = make_spec(tokenizer), prompt_messages("What is the total?", num_images=1)

    def make(i: int, view):
        return assemble([decode_pillow(files[i])], [view], messages, spec, tokenizer)

    def packs() -> Iterator:
        views = [whole_view(*read_size(file)) for file in files]
        sizes = [measure([view], messages, spec, tokenizer) for view in views]
        plans = plan_packs(sizes, fit_ladder(sizes, (PACK_PATCHES,)))
        order = [i for plan in plans for i in plan.indices]
        examples = pool.map(make, order, [views[i] for i in order])
        for plan in plans:
            yield pack([next(examples) for _ in plan.indices], plan.rung)

    return packs


def make_spec(tokenizer):
    from mres_jax.data.spec import ChatTemplate, ProcessorSpec

    image = tokenizer.token_id("<|image_pad|>")
    end = tokenizer.token_id("<|endoftext|>")
    return ProcessorSpec(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=2,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        **LIMITS,
        image_token_id=image,
        pad_token_id=end,
        eos_token_ids=(end,),
        reserved_token_ids=(image,),
        template=ChatTemplate(
            system=None,
            turn_open="<|im_start|>{role}\n",
            turn_close="<|im_end|>\n",
            image_open="<|vision_start|>",
            image_close="<|vision_end|>",
        ),
        position_rule="mrope",
        coord_frame="relative_1000",
        resize_rule="hf",
    )


# A process a side


@contextlib.contextmanager
def side(make_runs: Callable, files: Files) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, make_runs, files), daemon=True)
    process.start()
    yield here
    here.send(None)
    process.join()


def serve(connection: Connection, make_runs: Callable, files: Files) -> None:
    """Does what it is asked for by name; answers with the seconds it took and the result."""
    runs = make_runs(files)
    connection.send(list(runs))
    while name := connection.recv():
        start = time.perf_counter()
        result = runs[name]()
        connection.send((time.perf_counter() - start, result if name in RESULTS_OF else None))


def ask(connection: Connection, name: str):
    connection.send(name)
    return connection.recv()


def in_turn(sides: list[Connection], rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, round by round; the first round is not counted, the order rotates."""
    runs = [(name, each) for each in sides for name in each.recv() if name not in RESULTS_OF]
    seconds: dict[str, list[float]] = {name: [] for name, _ in runs}
    for i in range(rounds + 1):
        first = i % len(runs)
        for name, each in runs[first:] + runs[:first]:
            taken, _ = ask(each, name)
            print(f"round {i}: {name}: {taken:.2f} s")
            if i:
                seconds[name].append(round(taken, 4))
    return seconds


if __name__ == "__main__":
    main()
