"""Conversion of a checkpoint of Qwen2-VL-2B's size: to orbax and back, its memory and its speed.

A directory as on the hub (bfloat16 shards of at most 1 GB, index, configuration, a vocabulary of
151,657 tokens) is filled with random values, converted by `mres_jax.models.registry.convert` to a
checkpoint of ours and from that back, each in a process of its own. Every tensor is compared, and
live `transformers` answers from the directory that came back; so does our model from the
checkpoint. Steps already done in `--work` are not repeated. Needs torch and transformers.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from measure import loaded_versions, write_result

SLACK_BYTES = 2e9  # that conversion may need beyond the largest stacked parameter
QUESTION, NEW_TOKENS, SIDE = "what is the total", 8, 112  # px


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("conversion-work"))
    parser.add_argument("--depth", type=float, default=1.0, help="share of the layers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--until", choices=STEPS, default="report", help="stop after this step")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        print(json.dumps(STEPS[args.step](args.work, args)))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    log = args.work / "steps.json"
    done = json.loads(log.read_text()) if log.exists() else {}
    for step in list(STEPS)[: list(STEPS).index(args.until)]:
        times = args.rounds if step in ("in", "out") else 1
        while len(done.setdefault(step, [])) < times:
            done[step].append(in_process(step, args))
            log.write_text(json.dumps(done))
            print(step, done[step][-1], flush=True)
    if args.until == "report":
        report(done, args)
        shutil.rmtree(args.work)


def in_process(step: str, args: argparse.Namespace) -> Any:
    """Runs a step alone in a process; what it prints last is its outcome."""
    words = ["--step", step, "--work", args.work, "--depth", args.depth]
    command = [sys.executable, __file__, *map(str, words)]
    return json.loads(subprocess.check_output(command, text=True).splitlines()[-1])


def make(work: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    """Writes the directory to convert; returns its sizes."""
    from checkpoint_2b import make_checkpoint

    return make_checkpoint(work / "theirs", args.depth)


def convert_in(work: pathlib.Path, args: argparse.Namespace) -> dict[str, float]:
    """Hugging Face directory -> orbax checkpoint."""
    return convert(work / "theirs", work / "ours")


def convert_out(work: pathlib.Path, args: argparse.Namespace) -> dict[str, float]:
    """Orbax checkpoint -> Hugging Face directory."""
    return convert(work / "ours", work / "back")


def convert(source: pathlib.Path, target: pathlib.Path) -> dict[str, float]:
    """Converts as users do."""
    from mres_jax.models import registry

    return measured(target, lambda: registry.convert(source, target))


def measured(target: pathlib.Path, run: Callable[[], Any]) -> dict[str, float]:
    """Returns seconds (until written, until on the disk) and the most anonymous memory, bytes."""
    import orbax.checkpoint.experimental.v1  # noqa: F401  its import is no part of the conversion

    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    before = anonymous()
    with sampled(anonymous) as samples:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    os.sync()
    synced = time.perf_counter() - start
    return {
        "seconds": seconds,
        "synced_seconds": synced,
        "anonymous": max(samples),
        "before": before,
    }


@contextlib.contextmanager
def sampled(read: Callable[[], int]) -> Iterator[list[int]]:
    """Calls `read` every 5 ms in a thread while the block runs."""
    samples, stop = [read()], threading.Event()

    def sample() -> None:
        while not stop.wait(0.005):
            samples.append(read())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def anonymous() -> int:
    """Resident memory of this process that no file stands behind, bytes (Linux)."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def compare(work: pathlib.Path, args: argparse.Namespace) -> int:
    """Compares every tensor of what went in and what came back, bit for bit; returns how many."""
    import ml_dtypes  # noqa: F401  lets numpy know bfloat16
    import numpy as np
    from safetensors import safe_open

    sides = []
    for side in ("theirs", "back"):
        files = [safe_open(f, framework="np") for f in (work / side).glob("*.safetensors")]
        sides.append({name: file for file in files for name in file.keys()})  # noqa: SIM118
    assert sides[0].keys() == sides[1].keys(), sides[0].keys() ^ sides[1].keys()
    for name in sides[0]:
        one, other = (side[name].get_tensor(name) for side in sides)
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        assert np.array_equal(one.view(np.uint16), other.view(np.uint16)), name
    return len(sides[0])


def picture() -> Any:
    """`uint8 [112 112 3]`."""
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def ours(work: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    """Our model's greedy answer, from the checkpoint of ours."""
    from mres_jax.data.types import Rung
    from mres_jax.inference.handle import from_loaded
    from mres_jax.models.registry import load_model

    loaded = load_model(work / "ours", param_dtype="stored")  # arithmetic in float32
    rung = Rung(max_patches=64, max_tokens=64, max_views=1, max_examples=1)
    model = from_loaded("ours", loaded, ladder=[rung], rows=(1,), workers=1, max_context=256)
    answer = model.answer(picture(), QUESTION, max_new_tokens=NEW_TOKENS)
    (work / "reserved.json").write_text(json.dumps(loaded.spec.reserved_token_ids))
    return {"text": answer.text, "ids": list(answer.token_ids), "versions": loaded_versions()}


def theirs(work: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
    """The answer of `transformers`, from the directory that came back, all of it read by them."""
    import torch
    import transformers
    from PIL import Image
    from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl as processing

    back = work / "back"
    text = transformers.AutoTokenizer.from_pretrained(back)
    pixels = processing.Qwen2VLImageProcessorPil.from_pretrained(back)
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(back, dtype=torch.float32)
    seen = pixels(images=[Image.fromarray(picture())], return_tensors="pt")
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    chat = [{"role": "user", "content": content}]
    prompt = text.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    count = int(seen["image_grid_thw"].prod()) // pixels.merge_size**2
    prompt = prompt.replace("<|image_pad|>", "<|image_pad|>" * count)
    tokens = text(prompt, return_tensors="pt").input_ids
    out = model.eval().generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        mm_token_type_ids=(tokens == model.config.image_token_id).int(),
        **seen,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        suppress_tokens=json.loads((work / "reserved.json").read_text()),
        output_scores=True,
        return_dict_in_generate=True,
    )
    new = out.sequences[0, tokens.shape[1] :]
    best = torch.stack(out.scores)[:, 0].topk(2).values
    gap = float((best[:, 0] - best[:, 1]).min())
    return {
        "text": text.decode(new, skip_special_tokens=True),
        "ids": new.tolist(),
        "gap": gap,
        "versions": loaded_versions(),
    }


def report(done: dict[str, list[Any]], args: argparse.Namespace) -> None:
    """Writes the dated result."""
    (made,), (checked,), (ours,), (theirs,) = (
        done[k] for k in ("make", "compare", "ours", "theirs")
    )
    limit = made["largest"] + SLACK_BYTES
    ways = {"safetensors to orbax": "in", "orbax to safetensors": "out"}
    same = all(ours[key] == theirs[key] for key in ("text", "ids"))
    write_result(
        "conversion",
        [row(name, done[step], made["bytes"]) for name, step in ways.items()],
        title="Conversion of a checkpoint of 2 B parameters",
        about=f"Qwen2-VL-2B's shapes in bfloat16, random values: {made['bytes'] / 1e9:.2f} GB in "
        f"{made['tensors']} tensors and {made['shards']} shards. `convert` reads and writes one "
        f"stacked parameter at a time (the largest: {made['largest'] / 1e9:.2f} GB), each time in "
        "a process of its own, files in the page cache; medians of the time, the most of the "
        "memory (`RssAnon` every 5 ms, imports included).",
        dtype="bfloat16",
        notes=[
            f"The aim, the largest stacked parameter and 2 GB, is {limit / 1e9:.2f} GB.",
            f"{checked} of {made['tensors']} tensors came back bit for bit.",
            f"{len(ours['ids'])} greedy tokens behind a picture and a question, float32: our model "
            "from the checkpoint and `transformers` from the directory that came back say "
            f"{'the same' if same else 'DIFFERENT things'} (smallest gap of the two best scores "
            f"{theirs['gap']:.2g}).",
        ],
        details=done,
        versions=ours["versions"] | theirs["versions"],
    )


def row(name: str, runs: list[dict[str, float]], size: int) -> dict[str, Any]:
    """Medians of the times, the worst of the memory."""
    seconds, synced = (statistics.median(r[k] for r in runs) for k in ("seconds", "synced_seconds"))
    peak = max(run["anonymous"] for run in runs)
    return {
        "conversion": name,
        "s": round(seconds, 1),
        "gb_per_s": round(size / seconds / 1e9, 2),
        "gb_per_s_until_on_disk": round(size / synced / 1e9, 2),
        "peak_anonymous_gb": round(peak / 1e9, 2),
        "runs": len(runs),
    }


STEPS: dict[str, Any] = {
    "make": make,
    "in": convert_in,
    "out": convert_out,
    "compare": compare,
    "ours": ours,
    "theirs": theirs,
    "report": report,
}

if __name__ == "__main__":
    main()
