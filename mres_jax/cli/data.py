"""`mres data`: what is wrong with a data set, what it costs, its shards, and other forms of it."""

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from mres_jax.cli._report import find_model, progress
from mres_jax.cli._table import print_table
from mres_jax.data.rows import (
    Finding,
    PolicyReport,
    RowSet,
    open_rows,
    prepare_rows,
    report_policy,
    size_histogram,
)
from mres_jax.data.rows.prepare import check_unprepared
from mres_jax.data.rows.report import AREAS, QUANTILES, RATIOS, quantiles
from mres_jax.data.spec import ProcessorSpec
from mres_jax.errors import ConfigError, PolicyError
from mres_jax.models.registry import load_processor
from mres_jax.resolution.policies import check_policy, parse_policy

POLICIES = ("native", "budget:256", "fixed:336", "tiles")  # those of a report, where a model can


def run(args: argparse.Namespace) -> int:
    """Reads all rows anew and keeps their index; `check` returns 1 when some are bad."""
    if args.action == "convert":
        from mres_jax.cli._convert_rows import convert

        return convert(args)
    if args.action == "prepare" and args.target:
        _check_target(args)
    place = find_model(args.model, weights=False)
    processor = load_processor(place.directory)
    policies = _policies(args, processor.spec)
    progress(f"reading {args.source} for {place.name}")
    start = time.perf_counter()
    rows = open_rows(
        args.source,
        spec=processor.spec,
        tokenizer=processor.tokenizer,
        images=args.images,
        template=args.template,
        index="rebuild",
        on_bad=getattr(args, "on_bad", "skip"),
        fps=args.fps,
        max_frames=args.max_frames,
        follow_links=args.follow_links,
        fields=_fields(args.field),
        scan_only=True,
        log=_of_buckets,
    )
    seconds = time.perf_counter() - start
    count = rows.index.summary.num_rows
    progress(f"{count:,} rows in {seconds:.1f} s, {count / seconds:,.0f} rows/s")
    if args.action == "check":
        return _check(rows, policies, as_json=args.json)
    _report(rows, policies, as_json=args.json)
    if args.target:
        _write(rows, args)
    return 0


def _of_buckets(line: str) -> None:
    """Says what is fetched; other lines stand in the report."""
    if "://" in line:
        progress(line)


def _check_target(args: argparse.Namespace) -> None:
    """What can be known before all is read."""
    check_unprepared(args.target)
    if args.shard_mb < 1:
        raise ConfigError(f"data prepare: --shard-mb {args.shard_mb} must be at least 1.")


def _write(rows: RowSet, args: argparse.Namespace) -> None:
    start = time.perf_counter()
    made = prepare_rows(rows, args.target, shard_bytes=args.shard_mb << 20, log=progress)
    seconds, size = time.perf_counter() - start, sum(shard.bytes for shard in made.shards)
    shards = f"{len(made.shards)} shard{'' if len(made.shards) == 1 else 's'}"
    progress(
        f"{args.target}: {len(made):,} rows in {shards}, {size / 1e6:,.1f} MB, "
        f"{len(made) / seconds:,.0f} rows/s, {size / 1e6 / seconds:,.1f} MB/s"
    )


def _fields(texts: list[str]) -> dict[str, str]:
    fields = {}
    for text in texts:
        ours, mark, theirs = text.partition("=")
        if not (ours and mark and theirs):
            raise ConfigError(f"data: --field {text}: write OURS=THEIRS, such as question=query.")
        fields[ours] = theirs
    return fields


def _policies(args: argparse.Namespace, spec: ProcessorSpec) -> dict[str, Any]:
    if args.policy or args.action == "check":
        policies = {text: parse_policy(text) for text in args.policy or [spec.default_policy]}
        for policy in policies.values():
            check_policy(policy, spec)
        return policies
    policies = {}
    for text in dict.fromkeys((spec.default_policy, *POLICIES)):
        policy = parse_policy(text)
        try:
            check_policy(policy, spec)
        except PolicyError as error:
            progress(f"not reported: {error}")
        else:
            policies[text] = policy
    return policies


def _check(rows: RowSet, policies: Mapping[str, Any], *, as_json: bool) -> int:
    summary = rows.index.summary
    refused = {text: rows.measure(policy).refused for text, policy in policies.items()}
    refused = {text: finding for text, finding in refused.items() if finding is not None}
    if as_json:
        findings = {text: finding.to_dict() for text, finding in refused.items()}
        print(json.dumps(summary.to_dict() | {"refused": findings}, indent=2))
    else:
        lines = [_line("bad", finding) for finding in summary.bad]
        lines += [_line(f"bad under {text}", finding) for text, finding in refused.items()]
        lines += [_line("noted", finding) for finding in summary.notes]
        if lines:
            print_table(["", "kind", "rows", "first", "why"], lines)
        print(_head(rows))
    return 1 if summary.bad or refused else 0


def _line(what: str, finding: Finding) -> list[str]:
    return [what, finding.kind, f"{finding.count:,}", finding.names, finding.first[0][1] or "-"]


def _head(rows: RowSet) -> str:
    summary = rows.index.summary
    return (
        f"{summary.name}: {summary.num_rows:,} rows, {len(rows):,} usable, "
        f"{summary.num_text_only:,} of them text only, {summary.num_bad:,} bad"
    )


def _report(rows: RowSet, policies: Mapping[str, Any], *, as_json: bool) -> None:
    reports = {text: report_policy(rows, policy) for text, policy in policies.items()}
    histogram = size_histogram(rows)
    if as_json:
        content = rows.index.summary.to_dict() | {"quantiles": quantiles(rows)}
        content["sizes"] = {
            "megapixels": list(AREAS),
            "width_over_height": list(RATIOS),
            "counts": histogram.tolist(),
        }
        content["policies"] = {text: report.to_dict() for text, report in reports.items()}
        print(json.dumps(content, indent=2))
        return
    print(rows.index.summary)
    lines = [
        [name, f"{values['mean']:,.1f}", *(f"{values[at]:,.0f}" for at in QUANTILES)]
        for name, values in quantiles(rows).items()
    ]
    print_table(["", "mean", *QUANTILES], lines)
    if histogram.sum():
        _print_histogram(histogram)
    print_table(
        [
            "policy",
            "rows",
            "patches",
            "visual tokens",
            "tokens",
            "packs",
            "patches full",
            "tokens full",
        ],
        [_policy_line(text, report) for text, report in reports.items()],
    )


def _print_histogram(histogram: Any) -> None:
    areas = [*(f"to {edge:g}" for edge in AREAS), f"above {AREAS[-1]:g}"]
    ratios = [*(f"to {edge:g}" for edge in RATIOS), f"above {RATIOS[-1]:g}"]
    lines = [
        [area, *(f"{count:,}" if count else "-" for count in counts), f"{counts.sum():,}"]
        for area, counts in zip(areas, histogram, strict=True)
        if counts.sum()
    ]
    print_table(["megapixels", *ratios, "all"], lines, title="sizes, by width over height")


def _policy_line(text: str, report: PolicyReport) -> list[str]:
    means = [report.mean[0], report.visual_tokens, report.mean[1]]
    packing = report.packing
    return [
        text,
        f"{report.rows:,}",
        *(f"{mean:,.1f}" for mean in means),
        *(
            ["-"] * 3
            if packing is None
            else [
                f"{packing.num_packs:,}",
                f"{packing.patch_efficiency:.3f}",
                f"{packing.token_efficiency:.3f}",
            ]
        ),
    ]
