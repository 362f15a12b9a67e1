"""`mres serve`: a chat endpoint before a model here, or before another server."""

import argparse
import os
import pathlib

from mres_jax.cli._report import (
    find_model,
    of_models_here,
    open_model,
    progress,
    refuse_options,
)
from mres_jax.errors import ConfigError
from mres_jax.models.registry import load_processor
from mres_jax.serving import Limits, LocalBackend, PolicyRule, UpstreamBackend, serve
from mres_jax.serving.run import LOOPBACK


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; the address goes to stdout, what happens to stderr."""
    limits = Limits(
        max_body_bytes=args.max_body_mb * 2**20,
        max_pixels=args.max_pixels,
        max_waiting=args.max_waiting,
        max_waiting_pixels=max(Limits.max_waiting_pixels, args.max_pixels),
        new_tokens=args.max_new_tokens,
    )
    if args.grace < 0 or args.timeout <= 0:
        raise ConfigError("serve: --grace must be at least 0, --timeout above 0.")
    name, backend = (_upstream if args.upstream else _local)(args, limits)
    if args.host not in LOOPBACK:
        progress(f"warning: whoever reaches {args.host} may ask; there are no passwords here")
    serve(
        backend,
        host=args.host,
        port=args.port,
        limits=limits,
        grace=args.grace,
        say=lambda url: print(f"serving {name} at {url}", flush=True),
        log=(lambda line: None) if args.quiet else progress,
    )
    return 0


def _local(args: argparse.Namespace, limits: Limits) -> tuple[str, LocalBackend]:
    vlm = open_model(find_model(args.model), **of_models_here(args))
    name = served_name(vlm.name)
    rule = PolicyRule(args.policy or vlm.answerer.policy, args.allow_policy)
    return name, LocalBackend(vlm, name=name, rule=rule, limits=limits, hosts=args.allow_host)


def _upstream(args: argparse.Namespace, limits: Limits) -> tuple[str, UpstreamBackend]:
    if not args.model:
        raise ConfigError(
            "serve: --upstream needs --model too: a directory or hub id of the model behind it, "
            "whose processor says how large a visual token is. Its weights are not read."
        )
    refuse_options("serve", args.upstream, **of_models_here(args))
    backend = UpstreamBackend(
        args.upstream,
        spec=load_processor(find_model(args.model, weights=False).directory).spec,
        rule=PolicyRule(args.policy or "native", args.allow_policy),
        limits=limits,
        hosts=args.allow_host,
        timeout=args.timeout,
    )
    return args.upstream, backend


def served_name(name: str) -> str:
    """Returns what clients call a model: a hub id as it is, of a directory its last part."""
    return pathlib.Path(name).resolve().name if os.path.isdir(name) else name
