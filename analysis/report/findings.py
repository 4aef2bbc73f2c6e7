"""All that is known of one run, and what the report says of it in lists of sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from analysis.compare.stats import LEVEL
from analysis.report.claims import FAILS, HOLDS, MIXED, NO_DIFFERENCE, UNTESTABLE, Claim, claims
from analysis.report.evidence import MODERATE
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
    HOLDS: "Claims of the paper that hold here, against a control that trained as long",
    FAILS: "Claims of the paper that do not hold here, against a control that trained as long",
    MIXED: "More good samples than a control that trained as long, but a mode lost",
    NO_DIFFERENCE: "Claims of the paper for which no difference to a control that trained as long is shown",
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
            lines += self._of_claims(words, [one for one in self.claims if one.verdict == verdict])
        untestable = [one for one in self.claims if one.verdict == UNTESTABLE]
        for reason, several in grouped(untestable, lambda claim: claim.reason).items():
            lines += self._of_claims(f"Claims of the paper that are {UNTESTABLE} ({reason})", several)
        if methods and (caveat := training_caveat(run)):
            lines.append(caveat)
        if len(run.seeds) == 1:
            lines.append("One seed: what another seed would give is not known.")
        return lines

    def _of_claims(self, words: str, several: Sequence[Claim]) -> list[str]:
        by_subject = grouped(several, lambda claim: claim.subject)
        many = len(pruned_methods(self.run)) > 1
        told = [
            f"{what} ({' and '.join(claim.method for claim in same)})" if many else what
            for what, same in by_subject.items()
        ]
        return [f"{words}: {', '.join(told)}."] if told else []

    @property
    def remedies(self) -> list[str]:
        """The commands that would make testable what is not, each once."""
        return list(dict.fromkeys(claim.remedy for claim in self.claims if claim.remedy is not None))

    @property
    def claim_notes(self) -> list[str]:
        """How the verdicts on the claims come about."""
        low, high = (f"{100 * end:.0f}" for end in MODERATE)
        notes = [
            "A verdict is against a control that trained as long, paired by seed. It needs three seeds or more, and "
            f"p of at most {LEVEL} (two-sided t-test) after Holm's correction over all methods, and for (b) all three "
            "curvatures, at once. Anything else is no difference shown: that is not the same as equal.",
            f"Moderate ratios are {low} to {high} % pruned, where the published gains lie; (b) and (c) take the mean "
            "over the stages there, (a) the one stage that the validation NLL chooses.",
            "The largest eigenvalue of one network moves by 10–15 % with the subset of rows alone: a change of the "
            "curvature below 15 % is never called one. Repeat with other subsets (--seed) before you believe less.",
            "The Hessian is over the params that are left, a principal submatrix of the whole one: deleting some can "
            "lower its largest eigenvalue and its trace even where the loss stays as it is. A lower one is therefore "
            "no proof of a flatter loss.",
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
