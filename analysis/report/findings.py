"""All that is known of one run, and what the report says of it in lists of sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from analysis.report.claims import FAILS, HOLDS, MODERATE, UNKNOWN, Claim, claims
from analysis.report.pictures import Picture
from analysis.report.words import listed, pruned_methods, summary, training_caveat
from analysis.runs.analyses import Key, Values, called
from analysis.runs.groups import grouped
from analysis.runs.records import FAILED, NO_REASON, Run

ANALYSES = {
    "hessian": "the curvature of the loss",
    "modes": "the mode quality",
    "field": "the pictures of the flows",
    "cost": "the cost",
}
_VERDICTS = {
    HOLDS: "Claims of the paper that hold here",
    FAILS: "Claims of the paper that do not hold here",
    UNKNOWN: "Claims of the paper of which it cannot be told",
}


@dataclass(frozen=True)
class Findings:
    """All that is known of one run.

    `documents` are the stages of each analysis that is there, by its name; `problems` says of the others why not.
    `pictures` by name: `nll_vs_params`, `nll_vs_pr`, `hessian_vs_pr`, `spectral_density`, `mode_quality` (those that
    exist); `fields` are the pictures of the flows, `other_fields` how many more lie in the run folder. `settings` is
    spec.yaml, `commands` how to do it again.
    """

    run: Run
    documents: Mapping[str, Mapping[Key, Values]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    fields: Sequence[Picture] = ()
    other_fields: int = 0
    settings: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commands: str = ""

    @cached_property
    def claims(self) -> list[Claim]:
        """The paper's claims, judged."""
        return claims(self.run, self.documents.get("hessian"), self.documents.get("modes"))

    @property
    def in_short(self) -> list[str]:
        """What the reader should know first."""
        run = self.run
        done = [stage for stage in run.stages if stage.done]
        dense = next((stage for stage in done if stage.stage == 0), None)
        methods = pruned_methods(run)
        seeds = f"{len(run.seeds)} seed{'s' * (len(run.seeds) > 1)}"
        size = f" of {dense.params:,} params" if dense and dense.params else ""
        pruned = " and ".join(methods) or "no method"
        lines = [f"{len(done)} trained flows, {seeds}: dense flows{size}, pruned by {pruned}."]
        lines += [" ".join(summary(run, method)) for method in methods]
        for verdict, words in _VERDICTS.items():
            judged = grouped((one for one in self.claims if one.verdict == verdict), lambda claim: claim.subject)
            told = [
                f"{what} ({' and '.join(claim.method for claim in several)})" if len(methods) > 1 else what
                for what, several in judged.items()
            ]
            lines += [f"{words}: {', '.join(told)}."] if told else []
        if methods and (caveat := training_caveat(run)):
            lines.append(caveat)
        if len(run.seeds) == 1:
            lines.append("One seed: each verdict is about these networks; what another seed would give is not known.")
        return lines

    @property
    def claim_notes(self) -> list[str]:
        """How the verdicts on the claims come about."""
        low, high = (f"{100 * end:.0f}" for end in MODERATE)
        seeds = len(self.run.seeds)
        how = (
            f"A verdict needs a 95 % interval that excludes no change: Student's t over {seeds} seeds, each stage "
            "against the dense flow of its own seed."
            if seeds > 1
            else "A verdict needs a change beyond 2 standard errors of the measurement (test set, estimator, samples)."
        )
        notes = [
            f"{how} Anything else cannot be told.",
            f"Moderate ratios are {low} to {high} % pruned, where the published gains lie; (b) and (c) take the mean "
            "over the stages there, (a) the one stage that the validation NLL chooses.",
            "The largest eigenvalue of one network moves by 10–15 % with the subset of rows alone: a change of the "
            "curvature below 15 % is never called one. Repeat with other subsets (--seed) before you believe less.",
        ]
        caveat = training_caveat(self.run)
        return [*notes, caveat] if caveat else notes

    def absent(self, kind: str) -> str:
        """The stages that an analysis does not cover, in words; empty where it covers all."""
        known = self.documents[kind]
        return listed([called(stage.key) for stage in self.run.stages if stage.done and stage.key not in known])

    @property
    def failed(self) -> list[str]:
        """What has failed, in the run and in the analyses, and why."""
        in_run = {stage.key: stage.reason for stage in self.run.stages if not stage.done}
        lines = [f"{called(key)}, in the run: {reason or NO_REASON}" for key, reason in in_run.items()]
        for kind, about in ANALYSES.items():
            for key, values in self.documents.get(kind, {}).items():
                if values.get("status") == FAILED and key not in in_run:
                    lines.append(f"{called(key)}, {about}: {values.get('reason') or NO_REASON}")
        return lines + [f"{ANALYSES[kind]}: {reason}" for kind, reason in self.problems.items()]
