"""The closing sentence of the demo: every number and every word of judgement is computed.

What speaks against native resolution is said as what speaks for it. A difference counts as shown
when its 95 % interval leaves out zero.
"""

import math

from mres_jax.evaluation.summary import Summary
from mres_jax.scoring import Interval

SAME = 0.03  # difference of seeing between policies that is called none


def closing_sentence(summary: Summary) -> str:
    """Returns one sentence on what the answers show and what they do not."""
    parts = (
        _reading(summary),
        _split(summary),
        _seeing(summary),
        _cheapest(summary),
        _nothing(summary),
        _missing(summary),
    )
    return "; ".join(part for part in parts if part) + "."


def compare_line(summary: Summary) -> str:
    """Returns native against fixed on the questions of a record, in one line."""
    made = summary.made
    return (
        f"Recorded over {summary.num_questions} questions ({made['command']}, {made['date']}): "
        f"{_reading(summary)}; {_split(summary)}."
    )


def say_share(interval: Interval, sign: str = "") -> str:
    """Returns a share or a difference with its interval, two digits.

    Example:
      >>> say_share(Interval(0.5, 0.4, 0.6)), say_share(Interval(0.1, -0.1, 0.3), "+")
      ('0.50 [0.40, 0.60]', '+0.10 [-0.10, +0.30]')
    """
    mean, low, high = (f"{x:{sign}.2f}" for x in interval)
    return f"{mean} [{low}, {high}]"


def _reading(summary: Summary) -> str:
    found, native = summary.overall, summary.of(summary.plan.native)
    ahead, fixed = found.difference, summary.of(summary.plan.fixed)
    if ahead.low > 0:
        verdict = "so native is AHEAD by"
    elif ahead.high < 0:
        verdict = "so native is BEHIND by"
    else:
        verdict = "a difference that so few questions do not show:"
    return (
        f"At {native.visual_tokens:.0f} visual tokens a picture native reads {found.first:.2f} of "
        f"{found.num_questions} values and {summary.plan.fixed} (one cost for all, ratio kept) "
        f"{found.second:.2f}, {verdict} {say_share(ahead, '+')}, at "
        f"{native.flops / fixed.flops:.1f} times its FLOPs"
    )


def _split(summary: Summary) -> str:
    if not math.isfinite(summary.limit):
        return "at no height of text does this model read half of the values"
    parts = [
        f"{found.difference.mean:+.2f} on the {found.num_questions} {words}"
        for found, words in (
            (summary.below, "that fixed shows lower"),
            (summary.legible, "that it shows no larger than native, yet high enough"),
            (summary.enlarged, "that it enlarges"),
        )
        if found.num_questions
    ]
    limit = f"half of the values are read from capitals of {summary.limit:.1f} px on"
    return f"{limit}, and native is {', '.join(parts)}"


def _seeing(summary: Summary) -> str:
    seen = {
        row.policy: row.accuracy["sc"]
        for row in summary.tallies
        if row.policy != summary.plan.nothing and "sc" in row.accuracy
    }
    if not seen:
        return ""
    least, most = min(seen, key=lambda p: seen[p].mean), max(seen, key=lambda p: seen[p].mean)
    spread = seen[most].mean - seen[least].mean
    ends = f"{seen[least].mean:.2f} ({least}) to {seen[most].mean:.2f} ({most})"
    if spread <= SAME:
        return f"what is only to be seen needs no pixels: {seen[least].mean:.2f} at the least"
    if seen[least].high < seen[most].low:
        return f"what is only to be seen is NOT the same under every policy: {ends}"
    asked = summary.num_of("sc")
    return f"seeing goes from {ends}, which {asked} questions cannot tell from being the same"


def _cheapest(summary: Summary) -> str:
    """The cheapest budget whose interval reaches what native reads."""
    native = summary.of(summary.plan.native)
    enough = [
        row
        for row in (summary.of(policy) for policy in summary.plan.curve)
        if row.accuracy["rc"].high >= native.accuracy["rc"].mean
        and row.visual_tokens < native.visual_tokens
    ]
    if not enough:
        return "no smaller budget reads what native does"
    row = min(enough, key=lambda row: row.visual_tokens)
    return (
        f"native is NOT needed everywhere: {row.policy} reads {row.accuracy['rc'].mean:.2f} at "
        f"{row.visual_tokens / native.visual_tokens:.2f} of its tokens"
    )


def _nothing(summary: Summary) -> str:
    row = summary.of(summary.plan.nothing)
    kinds = [kind for kind in ("rc", "sc") if kind in row.accuracy]
    found = " and ".join(f"{row.accuracy[kind].mean:.2f}" for kind in kinds)
    chances = " and ".join(f"{summary.chance[kind]:.2f}" for kind in kinds)
    above = any(row.accuracy[kind].low > summary.chance[kind] for kind in kinds)
    return (
        f"without a picture {found} are right, {'MORE' if above else 'not more'} than by the best "
        f"constant guess ({chances})"
    )


def _missing(summary: Summary) -> str:
    wrong = 1 - summary.of(summary.plan.native).accuracy["rc"].mean
    return f"native itself misses {wrong:.2f} of the values" if wrong > 0 else ""
