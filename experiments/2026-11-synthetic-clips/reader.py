"""How well a reader answers about one frame among many when it sees all of them at native size.

python experiments/2026-11-synthetic-clips/reader.py [--model DIR] [--frames 8 16 32]
"""

import argparse
import pathlib

import mres_jax
from mres_jax.data.documents import draw_clip, item_seed
from mres_jax.evaluation.csv_text import records_to_csv
from mres_jax.protocols import Request, Sampling
from mres_jax.scoring import exact_match, wilson_interval


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="directory; the shipped model when absent")
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 8, 16, 32])
    parser.add_argument("--questions", type=int, default=200, help="of each length")
    parser.add_argument("--seed", type=int, default=7_000)
    parser.add_argument("--policy", default="native")
    parser.add_argument("--csv", type=pathlib.Path)
    args = parser.parse_args()
    model, lines = mres_jax.load(args.model), []
    for frames in args.frames:
        clips = [draw_clip(item_seed(args.seed, i), frames) for i in range(args.questions)]
        asked = [clip.questions[i % len(clip.questions)] for i, clip in enumerate(clips)]
        requests = [
            Request(
                id=f"clip-{i}",
                images=[frame.image for frame in clip.frames],
                question=question.text,
                policy=args.policy,
            )
            for i, (clip, question) in enumerate(zip(clips, asked, strict=True))
        ]
        answers = model.answer_batch(requests, sampling=Sampling(max_new_tokens=16))
        pairs = zip(answers, asked, strict=True)
        right = sum(exact_match(some[0].text, [question.answer]) for some, question in pairs)
        share = wilson_interval(right, len(clips))
        line = {"frames": frames, "policy": args.policy, "questions": len(clips)}
        line |= {"accuracy": f"{share.mean:.3f}", "low": f"{share.low:.3f}"}
        lines.append(line | {"high": f"{share.high:.3f}"})
        print(lines[-1], flush=True)
    if args.csv:
        args.csv.write_bytes(records_to_csv(lines))


if __name__ == "__main__":
    main()
