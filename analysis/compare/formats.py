"""A comparison written down: as text and Markdown, rounded, as CSV and JSON with every digit. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from analysis.compare.notes import notes
from analysis.compare.paired import p_value
from analysis.compare.types import AGAINST, Comparison, Difference, StageMean
from analysis.compare.words import amount, headlines, ratio, verdicts
from analysis.tables.markup import escape_markdown, markdown
from analysis.tables.numbers import NOTHING, Mean, count, nats, percent
from analysis.tables.rows import to_csv as rows_csv
from analysis.tables.rows import with_se
from analysis.tables.sheet import Sheet
from analysis.tables.text import text, wrapped

_COLUMNS = (
    *("protocol", "method", "stage", "prune_ratio", "against", "other_protocol", "other_method", "value"),
    *("other_value", "difference", "se", "pairs", "p", "p_holm", "verdict", "survives_holm", "params_gap"),
    *("steps", "other_steps"),
)
_DIFFERENCE = 3  # which of the cells of a row is marked


def to_text(comparisons: Sequence[Comparison]) -> str:
    """Two tables, footnotes, a sentence a criterion and question, what they add up to; about 100 columns wide."""
    return "\n".join(_text(one) for one in comparisons)


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """The same as GitHub-flavoured Markdown, the sentences first."""
    return "\n".join(_markdown(one) for one in comparisons)


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """A row a difference, unrounded. `difference` is above 0 where the stage is the better of the two."""
    rows = [
        _head(comparison) | _difference(one) | {"survives_holm": int(one.survives)}
        for comparison in comparisons
        for one in comparison.differences
    ]
    return rows_csv(rows, ("run", "name", "dataset", "objective", "quantity", "unit", *_COLUMNS))


def to_json(comparisons: Sequence[Comparison], runs: Sequence[str], remedies: Sequence[str] = ()) -> str:
    """One document: `run` (a list where there are several), stages, differences, verdicts, headlines, notes.

    `remedies` are the commands that make more of it testable.
    """
    found: dict[str, Any] = {"run": runs[0] if len(runs) == 1 else list(runs)}
    found |= {name: [] for name in ("stages", "differences", "verdicts", "headlines", "notes")}
    for comparison in comparisons:
        head = _head(comparison)
        found["stages"] += [head | _stage(one) for one in comparison.stages]
        found["differences"] += [head | _difference(one) | {"seeds": list(one.seeds)} for one in comparison.differences]
        found["verdicts"] += [head | asdict(one) for one in verdicts(comparison)]
        found["headlines"] += [head | {"sentence": line} for line in headlines(comparison)]
        found["notes"] += [head | {"note": line} for line in notes(comparison)]
    return json.dumps(found | {"remedies": list(remedies)}, indent=2, allow_nan=False)


def _head(comparison: Comparison) -> dict[str, Any]:
    head = {name: getattr(comparison, name) for name in ("run", "name", "dataset", "objective")}
    return head | {"quantity": comparison.quantity.column, "unit": comparison.quantity.unit}


def _stage(one: StageMean) -> dict[str, Any]:
    means = with_se("prune_ratio", one.prune_ratio) | with_se("value", one.value)
    return asdict(one) | {"seeds": list(one.seeds)} | means


def _difference(one: Difference) -> dict[str, Any]:
    known = {name: getattr(one, name, None) for name in _COLUMNS}
    steps, other_steps = one.steps or (None, None)
    known |= {"difference": one.difference.value, "se": one.difference.se, "survives_holm": one.survives}
    return known | {"steps": steps, "other_steps": other_steps}


def _text(comparison: Comparison) -> str:
    # In a terminal the end is what is seen, so what it all adds up to comes last.
    said = [_title(comparison), wrapped(_legend(comparison)), ""]
    said.append(text(stage_sheet(comparison), difference_sheet(comparison)))
    return "\n".join([*said, *(wrapped(line) if line else "" for line in _sentences(comparison))]).rstrip() + "\n"


def _markdown(comparison: Comparison) -> str:
    said = [f"# {escape_markdown(_title(comparison))}", "", f"{escape_markdown(_legend(comparison))}.", ""]
    said += [f"- {escape_markdown(line)}" if line else "" for line in _sentences(comparison)]
    return "\n".join([*said, "", markdown(stage_sheet(comparison), difference_sheet(comparison))])


def _sentences(comparison: Comparison) -> list[str]:
    """A sentence a criterion, protocol and question, an empty line after each question, then what they add up to."""
    found, said = verdicts(comparison), []
    for against in AGAINST:
        group = [one.sentence for one in found if one.against == against]
        said += [*group, ""] if group else []
    return said + headlines(comparison)


def _title(comparison: Comparison) -> str:
    return f"{comparison.dataset} ({comparison.objective}), run {comparison.name}: criteria and protocols compared"


def _legend(comparison: Comparison) -> str:
    quantity, seeds = comparison.quantity, len(comparison.seeds)
    better = "higher" if quantity.higher_is_better else "lower"
    return (
        f"{quantity.label}, {better} is better; differences are paired by seed ({seeds} in the run), ± s.e. over the "
        f"seeds; a verdict needs 3 pairs and p of at most 0.05 after Holm's correction over the tests of its question"
    )


def stage_sheet(comparison: Comparison) -> Sheet:
    """The means of every stage, pruned or not, as cells of text."""
    quantity = comparison.quantity
    unit = "%" if quantity.higher_is_better else quantity.unit
    return Sheet(
        title="Every stage",
        legend="means over the seeds ± s.e.",
        heading=("protocol, method", "stage", "prune ratio", "params", f"{quantity.label} ({unit})", "seeds"),
        body=tuple(
            (
                f"{one.protocol}, {one.method}",
                str(one.stage),
                _ratio_reached(one.prune_ratio),
                count(one.params),
                nats(one.value),
                f"{len(one.seeds)} of {len(comparison.seeds)}",
            )
            for one in comparison.stages
        ),
        label=f"compare-stages-{comparison.name}",
    )


def difference_sheet(comparison: Comparison) -> Sheet:
    """The paired differences as cells of text, with the footnotes of the comparison."""
    found, unit = comparison.differences, comparison.quantity.unit
    return Sheet(
        title="Paired differences",
        legend="above 0: the stage is better than what it is held against; p is a t-test's after Holm's correction",
        heading=("protocol, method", "PR", "against", f"difference ({unit})", "pairs", "p", "verdict"),
        body=tuple(
            (
                f"{one.protocol}, {one.method}",
                ratio(one.prune_ratio),
                one.against,
                amount(one.difference),
                str(one.pairs),
                NOTHING if one.p_holm is None else p_value(one.p_holm),
                one.verdict,
            )
            for one in found
        ),
        label=f"compare-differences-{comparison.name}",
        notes=tuple(notes(comparison)),
        marks=frozenset((place, _DIFFERENCE) for place, one in enumerate(found) if one.survives),
        marked_is="stands after Holm's correction at 5 %",
    )


def _ratio_reached(reached: Mean | None) -> str:
    if reached is None or reached.se is None or reached.se < 0.0005:
        return percent(reached.value if reached else None)
    return f"{100 * reached.value:.1f} ± {100 * reached.se:.1f} %"
