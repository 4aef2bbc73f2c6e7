"""train-nll, train-fm, best-preset: the time to a given exact KL gap, and the gap of the best preset."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from benchmarks.context import Context
from benchmarks.measure import Goal, Measurement, Spread
from benchmarks.plain_ffjord import PlainFFJORD
from benchmarks.reaching import TARGET, Reached, train_ours, train_plain, trained
from sparseflows.specs import Spec

# The plain recipe's 100 epochs: its steps, and the evaluations of its field in their forward (114,728) and backward
# (94,478) solves. One full run, seed 0, 2026-11-21, torch 2.13.0, torchdiffeq 0.2.5: it ended at a KL gap of about
# 0.65, so what follows from these is a lower bound of its time to 0.30. (The README's run of ffjord.yaml, with the same
# weights, batches and probes, ended at 0.265: at a constant rate of 0.05 rounding decides.) `--only train-nll` without
# --quick measures them anew, and puts them into its JSON.
PEER_STEPS, PEER_EVALUATIONS = 1600, 209_206
SAMPLE_STEPS = 10  # of the peer, after each of our trainings, where it is extrapolated
FM_STEPS = 400  # all of five seeds end between 0.19 and 0.26; with 300 one of them ended at 0.32


def train_nll(context: Context) -> list[Measurement]:
    """The recipe of ours by likelihood against the plain one."""
    return [_race(context, "train-nll", context.nll_spec(), Goal("at least", 40))]


def train_fm(context: Context) -> list[Measurement]:
    """Flow matching, on a schedule as short as the target allows, against the plain likelihood recipe."""
    spec = context.spec("toy/gaussian_spiral/fm.yaml", f"train.steps={FM_STEPS}")
    return [_race(context, "train-fm", spec, Goal("at least", 60))]


def best_preset(context: Context) -> list[Measurement]:
    """Seconds and exact KL gap of the preset file, trained to its end."""
    spec = context.spec("toy/gaussian_spiral/best.yaml")
    seeds = range(1 if context.settings.quick else context.settings.seeds)
    took, gaps = [], []
    for seed in seeds:
        flow, one = trained(spec, context.rows, seed)
        took.append(one)
        gaps.append(context.gap.exact(flow))
        context.tell((seed + 1) / len(seeds))
    params = sum(p.numel() for p in flow.parameters())
    note = f"{params:,} params, {len(seeds)} seed(s), trained to the end; exact KL gap on all test rows at 1e-7"
    return [
        Measurement("best-preset", "training", took, note=note, goal=Goal("at most", 60)),
        Measurement("best-preset", "KL gap", gaps, unit="nats", goal=Goal("at most", 0.012)),
    ]


def _race(context: Context, name: str, spec: Spec, goal: Goal) -> Measurement:
    first = spec.model_copy(update={"train": spec.train.model_copy(update={"steps": 2, "epochs": None})})
    trained(first, context.rows, seed=0)  # what is compiled at first use is no part of a training
    race = (_extrapolated if context.settings.quick else _whole)(context, spec)
    arrived = [one for one in race.ours if one.reached]
    steps, gaps = [one.steps for one in arrived], ", ".join(f"{one.gap:.3f}" for one in race.ours)
    when = f" after {min(steps)}–{max(steps)} steps" if steps else ""
    took = Spread.of([one.seconds for one in race.ours])
    note = (
        f"{len(arrived)} of {len(race.ours)} seeds reached {TARGET:g}{when} of {spec.train.steps}, batch "
        f"{spec.train.batch}, in {took.low:.3g}–{took.high:.3g} s (gaps {gaps}); peer: {race.how}"
    )
    # The extrapolated ones pair with the trainings they were measured beside.
    paired = len(race.peer) == len(race.ours)
    return Measurement(
        name,
        f"to KL gap {TARGET:g}",
        [one.seconds for one in arrived],
        [took for took, one in zip(race.peer, race.ours, strict=True) if one.reached] if paired else race.peer,
        note,
        goal=goal,
        failures=len(race.ours) - len(arrived),
        extra=race.extra | {"trainings": [asdict(one) for one in race.ours]},
    )


@dataclass
class _Race:
    """Our trainings, the peer's seconds (one, or one beside each of ours), how they were had, and more for JSON."""

    ours: list[Reached]
    peer: list[float]
    how: str
    extra: dict[str, object]


def _extrapolated(context: Context, spec: Spec) -> _Race:
    """Our trainings; after each, some steps of the peer's own training, from where it was left."""
    seeds = context.settings.seeds
    peer = PlainFFJORD(seed=0)
    ours: list[Reached] = []
    samples: list[Reached] = []
    train_plain(peer, context.rows, 0, None, most_steps=2)  # warms up
    for seed in range(seeds):
        tell = context.part(seed / seeds, (seed + 0.8) / seeds)
        ours.append(train_ours(spec, context.rows, context.gap, seed, on_step=tell))
        samples.append(train_plain(peer, context.rows, seed, None, most_steps=SAMPLE_STEPS))
        context.tell((seed + 1) / seeds)
    each = [one.seconds / (one.forward + one.backward) for one in samples]
    how = (
        f"extrapolated from {len(each)} × {SAMPLE_STEPS} of its first steps, timed in this run, to the "
        f"{PEER_EVALUATIONS:,} evaluations ({PEER_STEPS} steps) of a full run, which was not there yet: a lower bound"
    )
    extra = {
        "peer_extrapolated": True,
        "peer_seconds_an_evaluation": each,
        "peer_seconds_a_step": [one.seconds / one.steps for one in samples],
        "peer_evaluations": PEER_EVALUATIONS,
        "peer_steps": PEER_STEPS,
    }
    return _Race(ours, [one * PEER_EVALUATIONS for one in each], how, extra)


def _whole(context: Context, spec: Spec) -> _Race:
    """The peer trained for real, once (it takes more than two minutes); ours take their turns between its epochs."""
    seeds = context.settings.seeds
    ours: list[Reached] = []

    def take_turn(share: float) -> None:
        if len(ours) < seeds and share >= (len(ours) + 0.5) / seeds:
            ours.append(train_ours(spec, context.rows, context.gap, seed=len(ours)))
        context.tell(share)

    found = train_plain(PlainFFJORD(seed=0), context.rows, 0, context.gap, on_step=take_turn)
    while len(ours) < seeds:  # it arrived before they all had their turn
        ours.append(train_ours(spec, context.rows, context.gap, seed=len(ours)))
    how = f"trained in this run, one seed, {found.steps} steps, {found.forward + found.backward:,} evaluations; "
    if found.reached:
        how += f"gap {found.gap:.3f}"
    else:
        how += f"it did NOT reach {TARGET:g} in its 100 epochs, so the ratio is a lower bound"
    return _Race(ours, [found.seconds], how, {"peer_extrapolated": False, "peer_training": asdict(found)})
