"""What is known of runs → one HTML page. Nothing is computed here but words: analyses are read, figures are given.

What the page says of a claim is decided in `claims`, what else it says in `words` and `findings`; how it looks, in
report.html.j2 and report.css.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from analysis.report.claims import FAILS, HOLDS
from analysis.report.findings import ANALYSES, Findings
from analysis.report.pictures import Picture, fit
from analysis.report.tables import cost_sheet, modes_sheet, runs_sheet
from analysis.report.words import listed
from analysis.tables import hessian, nll
from analysis.tables.curvature import hessian_table
from analysis.tables.markup import html
from analysis.tables.means import tabulate
from analysis.tables.text import held

LIMIT = 8_000_000  # bytes of the whole page


def render(found: Sequence[Findings], comparison: Sequence[Picture], date: str, limit: int = LIMIT) -> str:
    """The page: a section a run of `found`, and the figures that compare them; `date` says when it was made.

    To keep to `limit` bytes, pictures are scaled down, then left out.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # Pictures are told apart by identity, for two runs have files of the same name.
    pictures = [*comparison, *(one for run in found for one in (*run.pictures.values(), *run.fields))]
    names = [one.run.name for one in found]
    datasets = dict.fromkeys(stage.dataset for one in found for stage in one.run.stages)
    room = files("analysis.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"words": held, "listed": listed}
    template = environment.from_string(room.joinpath("report.html.j2").read_text(encoding="utf-8"))
    context = {
        **{"runs": found, "table": html, "comparison": comparison, "date": date, "datasets": ", ".join(datasets)},
        "title": f"What pruning did: {', '.join(names) if len(names) <= 3 else f'{len(names)} runs'}",
        "style": Markup(room.joinpath("report.css").read_text(encoding="utf-8")),
        "side_by_side": runs_sheet([table for one in found for table in tabulate(one.run)]),
        **{"analyses": ANALYSES, "verdicts": {HOLDS: "holds", FAILS: "fails"}},
        **{"tabulate": tabulate, "nll_sheet": nll.sheet, "modes_sheet": modes_sheet, "cost_sheet": cost_sheet},
        **{"hessian_table": hessian_table, "hessian_sheets": hessian.sheets},
    }

    def write(shown: Mapping[int, Picture], scaled: Sequence[str] = (), left_out: Sequence[str] = ()) -> str:
        return template.render(context, shown=lambda one: shown.get(id(one)), scaled=scaled, left_out=left_out)

    text_size = len(write({}).encode())
    kept, scaled, left_out = fit(pictures, limit - text_size - 4_000)  # what the page says of those that do not fit
    return write({id(pictures[place]): one for place, one in kept.items()}, scaled, left_out)
