"""Clips in which one or two frames carry the text that is asked for, on disk as rows.

python experiments/2026-11-synthetic-clips/clips.py OUT [--clips 256] [--frames 8] [--seed 0]
"""

import argparse
import json
import pathlib

from PIL import Image

from mres_jax.data.documents import draw_clip, item_seed


def write_clips(folder: pathlib.Path, *, clips: int, num_frames: int, seed: int) -> pathlib.Path:
    """Writes the frames as PNG and the questions as `rows.jsonl`, whose path it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(clips):
        clip = draw_clip(item_seed(seed, i), num_frames)
        names = [f"{i:05d}_{k:02d}.png" for k in range(num_frames)]
        for name, frame in zip(names, clip.frames, strict=True):
            Image.fromarray(frame.image).save(folder / name)
        question = clip.questions[i % len(clip.questions)]
        row = {"id": f"{seed}-{i:05d}", "frames": names, "question": question.text}
        row |= {"answer": question.answer, "type": "text", "telling": list(clip.telling)}
        lines.append(json.dumps(row) + "\n")
    path = folder / "rows.jsonl"
    path.write_text("".join(lines))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(write_clips(args.out, clips=args.clips, num_frames=args.frames, seed=args.seed))


if __name__ == "__main__":
    main()
