"""`mres allocate`: how large an allocator would look at each picture, and what that costs."""

import argparse
import json
from typing import Any

from mres_jax.cli._report import find_model, progress
from mres_jax.cli._table import print_table
from mres_jax.data.images import decode_image
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import ConfigError
from mres_jax.files import check_directory, write_together
from mres_jax.geometry import Size
from mres_jax.inference.allocators import Allocators, Look
from mres_jax.inference.show import png
from mres_jax.inference.strip import draw_strip
from mres_jax.models.registry import load_processor
from mres_jax.resolution.allocator.policy import AllocatorPolicy
from mres_jax.resolution.policies import check_policy
from mres_jax.resolution.uniform import native_size


def run(args: argparse.Namespace) -> int:
    """Looks, prints, saves."""
    if not args.images:
        raise ConfigError("allocate: no pictures. Give files, in the order of the prompt.")
    policy = AllocatorPolicy(weights=args.weights, retention=args.retention, top=args.top)
    if args.save:
        check_directory(args.save)  # before the work
    images = [decode_image(path) for path in args.images]
    spec = load_processor(find_model(args.model, weights=False).directory).spec
    check_policy(policy, spec)
    look = Allocators().open(args.weights).look(policy, images, args.question, spec)
    sizes = [Size(*image.shape[:2]) for image in images]
    if args.save:
        native = [native_size(size, spec) for size in sizes]
        strip = png(draw_strip(images, look.views, native))
        (path,) = write_together(args.save, {"allocation.png": strip})
        progress(f"wrote {path}")
    content = _to_json(look, args, spec)
    if args.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        _print(content, args.question)
    return 0


def _to_json(look: Look, args: argparse.Namespace, spec: ProcessorSpec) -> dict[str, Any]:
    allocation = look.allocation
    columns = zip(
        args.images,
        look.scales,
        allocation.sizes,
        allocation.tokens,
        allocation.native_tokens,
        strict=True,
    )
    return {
        "frames": [
            {
                "image": image,
                "scale": round(float(scale), 4),
                "size_px": list(size) if size else None,
                "tokens": tokens,
                "native_tokens": native,
            }
            for image, scale, size, tokens, native in columns
        ],
        "visual_tokens": sum(allocation.tokens),
        "retention_ratio": round(allocation.retention, 6),
        "wasted_upscaling": round(allocation.wasted, 6),
        "stride_px": spec.stride,
        "flops": look.flops,
        "ms": round(look.ms, 3),
    }


def _print(content: dict[str, Any], question: str) -> None:
    rows = [
        (
            frame["image"],
            f"{frame['scale']:.2f}",
            "left out" if not frame["size_px"] else "{1} x {0}".format(*frame["size_px"]),
            str(frame["tokens"]),
            str(frame["native_tokens"]),
        )
        for frame in content["frames"]
    ]
    print_table(("picture", "scale", "size, px", "tokens", "native"), rows, title=question)
    print(
        f"{content['visual_tokens']} visual tokens, retention {content['retention_ratio']:.3f}; "
        f"looking took {content['flops'] / 1e9:.3g} GFLOPs and {content['ms']:.0f} ms"
    )
