"""The page's own tables, as cells of text: mode quality, cost, and the runs side by side. Pure."""

from collections.abc import Mapping, Sequence

from analysis.runs.analyses import Key, Values, number
from analysis.runs.groups import by_stage
from analysis.runs.records import DENSE, FAILED
from analysis.tables.means import Table, average, mean_of
from analysis.tables.numbers import NOTHING, Mean, count, mean_in, measure, nats, percent, share
from analysis.tables.sheet import Sheet

Groups = list[tuple[tuple[str, str], list[Values]]]

_CLOSENESS = {"density": "density", "coverage": "coverage", "sliced_wasserstein": "sliced Wasserstein"}
_COSTS = (
    ("bytes", "bytes", 1.0),
    ("macs", "multiply-adds", 1.0),
    ("nfe", "NFE of log p", 1.0),
    ("sample_nfe", "NFE of a sample", 1.0),
    ("log_prob_seconds", "log p (ms)", 1e3),
    ("log_prob_speedup", "speed-up", 1.0),
    ("sample_seconds", "sampling (ms)", 1e3),
    ("sample_speedup", "speed-up", 1.0),
)


def modes_sheet(name: str, stages: Mapping[Key, Values]) -> Sheet:
    """Shares of good samples and modes captured; for data without modes density, coverage and distance."""
    has_modes = any(number(values, "good_within_3") is not None for values in stages.values())
    heading, body = _good(stages) if has_modes else _close(stages)
    legend = (
        "shares of samples within 2, 3 and 5 standard deviations of the nearest mode, and modes captured"
        if has_modes
        else "closeness of samples to true rows: density and coverage (Naeem et al. 2020), distance in standard "
        "deviations"
    )
    seeds = max((len(group) for _, group in _groups(stages)), default=0)
    over = f"means over {seeds} seeds, ± s.e. over them" if seeds > 1 else "1 seed, ± s.e. of the samples"
    return Sheet(
        title=f"Mode quality, run {name}",
        legend=f"{legend}; {over}",
        heading=("method", "prune ratio", *heading),
        body=tuple(body),
        label=f"modes-{name}",
        notes=_partly(stages),
    )


def cost_sheet(name: str, stages: Mapping[Key, Values]) -> Sheet:
    """Bytes, work and seconds of every stage, the seconds beside the dense flow's."""
    columns = [one for one in _COSTS if any(number(values, one[0]) is not None for values in stages.values())]
    body = []
    for head, group in (groups := _groups(stages)):
        cells = [measure(_mean(groups, group, key, scale)) for key, _, scale in columns]
        body.append((*head, count(mean_of(number(values, "params") for values in group)), *cells))
    return Sheet(
        title=f"Cost, run {name}",
        legend="what a flow weighs and how long a batch takes on the machine of this report, one thread; speed-up: "
        "the dense flow's seconds over its own, which is what to compare",
        heading=("method", "prune ratio", "params", *(title for _, title, _ in columns)),
        body=tuple(body),
        label=f"cost-{name}",
        notes=_partly(stages),
    )


def runs_sheet(tables: Sequence[Table]) -> Sheet:
    """One row a run: the dense flow's test NLL, and the lowest of its pruned flows."""
    body = []
    for table in tables:
        known = [row for row in table.rows if row.nll_test]
        dense = next((row.nll_test for row in known if row.method == DENSE), None)
        pruned = [row for row in known if row.method != DENSE]
        best = min(pruned, key=lambda row: row.nll_test.value if row.nll_test else 0.0, default=None)
        lowest = (nats(best.nll_test), f"{best.label}, {percent(best.prune_ratio)}") if best else ("-", "-")
        body.append((table.name, table.dataset, table.objective, str(table.seeds), nats(dense), *lowest))
    return Sheet(
        title="The runs side by side",
        legend="test NLL in nats, lower is better; ± standard error over the seeds, or over the test set of one seed; "
        "the lowest of several means is low by luck too",
        heading=("run", "data set", "objective", "seeds", "dense NLL", "lowest pruned NLL", "at"),
        body=tuple(body),
        label="runs",
    )


def _good(stages: Mapping[Key, Values]) -> tuple[list[str], list[tuple[str, ...]]]:
    one = next(values for values in stages.values() if number(values, "good_within_3") is not None)
    names = [f"within_{k}" for k in (2, 3, 5)]
    total = number(one, "modes_total")
    body = []
    for source, label in (("perfect", "perfect sampler"), ("data", "the data's own")):
        captured = number(one, "data_modes_captured") if source == "data" else total
        of_total = f"{captured:.0f} of {total:.0f}" if captured and total else "-"
        body.append((label, "-", *(_share(mean_in(one, f"{source}_{name}")) for name in names), of_total))
    for head, group in (groups := _groups(stages)):
        shares = [_share(_mean(groups, group, f"good_{name}")) for name in names]
        captured_by = sorted(found for values in group if (found := number(values, "modes_captured")) is not None)
        ends = dict.fromkeys([*captured_by[:1], *captured_by[-1:]])
        shown = "–".join(f"{end:.0f}" for end in ends) or NOTHING
        body.append((*head, *shares, f"{shown} of {total:.0f}" if total else shown))
    return ["within 2 s.d.", "within 3 s.d.", "within 5 s.d.", "modes captured"], body


def _close(stages: Mapping[Key, Values]) -> tuple[list[str], list[tuple[str, ...]]]:
    one = next((values for values in stages.values() if number(values, "coverage_data") is not None), None)
    body = []
    if one is not None:
        own = (
            (number(one, f"{name}_data"), number(one, f"{name}_data_se") or number(one, f"{name}_se_data"))
            for name in _CLOSENESS
        )
        body.append(("two sets of true rows", "-", *("-" if a is None else measure(Mean(a, se)) for a, se in own)))
    for head, group in (groups := _groups(stages)):
        body.append((*head, *(measure(_mean(groups, group, name)) for name in _CLOSENESS)))
    return list(_CLOSENESS.values()), body


def _groups(stages: Mapping[Key, Values]) -> Groups:
    """The seeds of each stage that are done, with the first cells of its row: method and prune ratio."""
    found = []
    for keys in by_stage(key for key, values in stages.items() if values.get("status") != FAILED):
        group = [stages[key] for key in keys]
        found.append(((keys[0][0], percent(mean_of(number(values, "prune_ratio") for values in group))), group))
    return found


def _mean(groups: Groups, group: Sequence[Values], key: str, scale: float = 1.0) -> Mean | None:
    several = any(len(one) > 1 for _, one in groups)
    found = average((mean.times(scale) for values in group if (mean := mean_in(values, key))), several)
    # An error of 0 is that of a count that all seeds share: nothing to show.
    return Mean(found.value, None) if found and not found.se else found


def _share(mean: Mean | None) -> str:
    return NOTHING if mean is None else f"{share(mean, 1)} %"


def _partly(stages: Mapping[Key, Values]) -> tuple[str, ...]:
    failed = sum(values.get("status") == FAILED for values in stages.values())
    return (f"{failed} of {len(stages)} networks have no result; see What failed.",) if failed else ()
