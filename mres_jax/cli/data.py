"""`mres data check` and `mres data prepare`: what is wrong with a data set, and what it costs."""

import argparse
import json
import time
from collections.abc import Mapping
from typing import Any

from mres_jax.cli._report import find_model, progress
from mres_jax.cli._table import print_table
from mres_jax.data.rows import Finding, PolicyReport, RowSet, open_rows, report_policy
from mres_jax.data.rows.report import QUANTILES, quantiles
from mres_jax.data.spec import ProcessorSpec
from mres_jax.models.registry import load_processor
from mres_jax.resolution.policies import check_policy, parse_policy


def run(args: argparse.Namespace) -> int:
    """Reads all rows anew and keeps their index; `check` returns 1 when some are bad."""
    place = find_model(args.model)
    processor = load_processor(place.directory)
    policies = _policies(args.policy, processor.spec)
    progress(f"reading {args.source} for {place.name}")
    start = time.perf_counter()
    rows = open_rows(
        args.source,
        spec=processor.spec,
        tokenizer=processor.tokenizer,
        images=args.images,
        template=args.template,
        index="rebuild",
        fps=args.fps,
        max_frames=args.max_frames,
        follow_links=args.follow_links,
    )
    seconds = time.perf_counter() - start
    count = rows.index.summary.num_rows
    progress(f"{count:,} rows in {seconds:.1f} s, {count / seconds:,.0f} rows/s")
    return (_check if args.action == "check" else _prepare)(rows, policies, as_json=args.json)


def _policies(texts: list[str] | None, spec: ProcessorSpec) -> dict[str, Any]:
    default = spec.default_policy
    policies = {text: parse_policy(text) for text in texts or [default]}
    for policy in policies.values():
        check_policy(policy, spec)
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


def _prepare(rows: RowSet, policies: Mapping[str, Any], *, as_json: bool) -> int:
    reports = {text: report_policy(rows, policy) for text, policy in policies.items()}
    if as_json:
        content = rows.index.summary.to_dict() | {"quantiles": quantiles(rows)}
        content["policies"] = {text: report.to_dict() for text, report in reports.items()}
        print(json.dumps(content, indent=2))
        return 0
    print(rows.index.summary)
    lines = [
        [name, f"{values['mean']:,.1f}", *(f"{values[at]:,.0f}" for at in QUANTILES)]
        for name, values in quantiles(rows).items()
    ]
    print_table(["", "mean", *QUANTILES], lines)
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
    return 0


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
