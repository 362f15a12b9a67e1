"""`index.html` of a report: one file without links; what models say is text in it, never markup."""

import base64
import html
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

from mres_jax.evaluation.arms.figures import draw_points
from mres_jax.evaluation.arms.points import ArmKey, Point
from mres_jax.evaluation.arms.published import PUBLISHED
from mres_jax.evaluation.arms.results import ArmResult
from mres_jax.evaluation.html_parts import data_url, html_figure, html_table
from mres_jax.evaluation.report.compare import Comparison
from mres_jax.evaluation.report.group_figure import draw_groups
from mres_jax.evaluation.report.groups import Bin
from mres_jax.evaluation.report.seen import Flip, Seen

LONGEST = 300  # characters of a text on the page
Shown = tuple[Comparison, list[Flip], str]


def make_page(
    results: Sequence[ArmResult],
    points: Sequence[Point],
    comparisons: Sequence[Comparison],
    bins: Sequence[Bin],
    shown: Sequence[Shown],
    tables: Mapping[str, str],
) -> str:
    """Returns the page.

    Args:
      results: all arms.
      points: of the figure.
      comparisons: of the table of differences.
      bins: scores by size, ratio and height.
      shown: comparisons with the questions that flipped, and a note about their pictures.
      tables: CSV by file name, to be saved from the page.
    """
    runs = ", ".join(dict.fromkeys(result.run for result in results))
    template = (
        importlib.resources.files("mres_jax.evaluation.report")
        .joinpath("report.html")
        .read_text("utf-8")
    )
    by_group = html_figure("Faint: fewer than 5 questions", draw_groups(bins)) if bins else ""
    parts = {
        "title": html.escape(runs),
        "figure": html_figure(
            "Mean score against visual tokens and against time, with 95 % intervals",
            draw_points(points, note=runs),
        ),
        "published": _published(points),
        "points": html_table(*_point_rows(points)),
        "differences": _differences(comparisons),
        "groups": by_group or "<p>No item carries a picture or a height of text.</p>",
        "flips": "\n".join(map(_flips, shown)) or "<p>There is one arm: nothing to compare.</p>",
        "made": html_table(*_made_rows(results)),
        "tables": " ".join(_download(name, text) for name, text in tables.items()),
    }
    pieces = template.split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled.append(parts[name] + rest)
    return "".join(filled)


def _name(arm: ArmKey) -> str:
    return f"{arm.run}: {arm.model}, {arm.policy}"


def _point_rows(points: Sequence[Point]) -> tuple[list[str], list[list[str]]]:
    headers = ["arm", "task", "questions", "score", "visual tokens", "retention ratio", "GFLOPs"]
    rows = [
        [
            _name(point.arm),
            f"{point.task} {point.type}".strip(),
            f"{point.num_questions:,}",
            "{:.3f} [{:.3f}, {:.3f}]".format(*point.score),
            f"{point.visual_tokens:,.1f}",
            f"{point.retention_ratio:.2f}",
            f"{point.flops / 1e9:.3g}" if point.flops else "-",
            "-" if point.ms is None else f"{point.ms:,.1f}",
        ]
        for point in points
    ]
    return [*headers, "ms"], rows


def _published(points: Sequence[Point]) -> str:
    tasks = dict.fromkeys(point.benchmark for point in points)
    lines = [
        f"{html.escape(each.who)}: {each.score:.3f} ({html.escape(each.source)})"
        for task in tasks
        for each in PUBLISHED.get(task, ())
    ]
    if not lines:
        return ""
    return (
        "<p class='faint'>Grey: published scores, of other prompts, harnesses and resolutions; "
        f"landmarks, not measured here. {'; '.join(lines)}.</p>"
    )


def _differences(comparisons: Sequence[Comparison]) -> str:
    if not comparisons:
        return "<p>No second arm was asked the same questions.</p>"
    headers = ["arm", "less", "task", "questions", "difference", "ahead in", "won", "lost"]
    rows = []
    for each in comparisons:
        won, lost = each.flips
        rows.append(
            [
                _name(each.second.arm),
                _name(each.first.arm),
                f"{each.task} {each.type}".strip(),
                f"{len(each.pairs):,}",
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*each.difference),
                f"{each.ahead:.1%}",
                f"{len(won):,}",
                f"{len(lost):,}",
            ]
        )
    return f'<div class="scroll"><table>{html_table(headers, rows)}</table></div>'


def _flips(shown: Shown) -> str:
    comparison, flips, missing = shown
    won, lost = comparison.flips
    first, second = comparison.first.arm, comparison.second.arm
    head = (
        f"<h3>{html.escape(_name(second))} <span class='faint'>against</span> "
        f"{html.escape(_name(first))} <span class='faint'>on {html.escape(comparison.task)}: "
        f"{len(won):,} won, {len(lost):,} lost, {len(flips)} shown</span></h3>"
    )
    note = f"<p class='faint'>{html.escape(missing)}</p>" if missing else ""
    return head + note + "\n".join(map(_flip, flips))


def _flip(flip: Flip) -> str:
    pair = flip.pair
    answers = " or ".join(pair.first.answers) or "inside the box"
    said = "won" if pair.gain > 0 else "lost"
    return (
        f'<article class="flip"><p><b class="{said}">{said}</b> {_text(pair.first.question)} '
        f'<span class="faint">right: <b>{_text(answers)}</b>; {html.escape(pair.first.id)}, '
        f"metric {html.escape(pair.first.metric)}</span></p>"
        f'<div class="two">{_seen(flip.first)}{_seen(flip.second)}</div></article>'
    )


def _seen(seen: Seen) -> str:
    sample = seen.sample
    pictures = "".join(
        f'<img src="{data_url(pixels)}" alt="what the model saw" style="width:'
        f'{pixels.shape[1]}px">' + (f"<small>drawn at 1/{factor}</small>" if factor > 1 else "")
        for pixels, factor in seen.pictures
    )
    if seen.detail is not None:
        zoom = min(6, max(1, round(260 / seen.detail.shape[1])))
        pictures += (
            f'<img class="detail" src="{data_url(seen.detail)}" alt="where the answer stands, '
            f'enlarged" style="width:{seen.detail.shape[1] * zoom}px">'
        )
    more = f"<small>and {seen.hidden} further views</small>" if seen.hidden else ""
    sizes = ", ".join(f"{v.encoded_size.width} x {v.encoded_size.height}" for v in sample.views[:4])
    height = "" if not sample.seen_height else f", capitals of {sample.seen_height:.1f} px"
    colour = "right" if sample.score >= 0.5 else "wrong"
    return (
        f'<div><p><b>{html.escape(seen.policy)}</b> <span class="{colour}">'
        f"{_text(sample.prediction) or '(nothing)'}</span> <span class='faint'>score "
        f"{sample.score:.2f}, {sample.visual_tokens} visual tokens, {sizes or 'no picture'} px"
        f"{height}</span></p>{pictures}{more}</div>"
    )


def _text(text: str) -> str:
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return html.escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text))


def _made_rows(results: Sequence[ArmResult]) -> tuple[list[str], list[list[str]]]:
    headers = ["run, model", "weights", "template", "device", "versions", "decoding", "batch"]
    rows: dict[str, list[str]] = {}
    for result in results:
        identity: Mapping[str, Any] = result.identity
        model, versions = identity["model"], dict(identity["versions"])
        sampling = identity["sampling"]
        heat = sampling["temperature"]
        rows[f"{result.run}, {result.model}"] = [
            f"{result.run}: {result.model}",
            model.get("fingerprint") or model.get("address", "-"),
            model["processor"]["template_sha256"] or "the server's",
            f"{versions.pop('device', '-')}, {model.get('dtype', '-')}",
            ", ".join(f"{name} {version}" for name, version in versions.items()),
            f"{'greedy' if not heat else f'temperature {heat}'}, {sampling['max_new_tokens']} "
            f"tokens; suffix {identity['suffix']!r}",
            str(identity["batch"]),
        ]
    return headers, list(rows.values())


def _download(name: str, text: str) -> str:
    source = f"data:text/csv;base64,{base64.b64encode(text.encode()).decode()}"
    return f'<a download="{html.escape(name)}" href="{source}">{html.escape(name)}</a>'
