from __future__ import annotations

import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from analysis.cli import report as report_command
from analysis.cli.app import app
from analysis.report.claims import FAILS, HOLDS, UNKNOWN, flatter, lower_nll, modes_kept
from analysis.report.pictures import field_pictures, fit, picture
from analysis.report.words import summary, training_caveat
from analysis.runs.records import read_run
from sparseflows.cli.console import run_app
from sparseflows.errors import RunError

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order; keeps tags, headings and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.levels = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def report(*args):
    return run_app(app, "analysis", ["report", *map(str, args)])


def put(run, kind, stages):
    (run / "analysis").mkdir(exist_ok=True)
    (run / "analysis" / f"{kind}.json").write_text(json.dumps({"run": str(run), "stages": stages}))


def pruned_run(make_run, row_of, changes, seeds=(0, 1, 2), **extra):
    """A dense flow and one pruned stage a seed, whose NLL differs from the dense flow's by `changes`."""
    rows = [row_of("dense", seed, 0, 1000, 0.6 + 0.1 * seed, nll_val=0.6, **extra) for seed in seeds]
    rows += [
        row_of("structured", seed, 1, 500, 0.6 + 0.1 * seed + change, nll_val=0.5, **extra)
        for seed, change in zip(seeds, changes, strict=True)
    ]
    return make_run(rows)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ((-0.10, -0.11, -0.09), HOLDS),  # -0.10 ± 4.30 · 0.0058
        ((0.10, 0.11, 0.09), FAILS),
        ((-0.10, 0.11, -0.09), UNKNOWN),
        ((-0.10, -0.04, -0.02), UNKNOWN),  # beyond 2 s.e., not beyond the 4.3 that three seeds ask for
    ],
)
def test_lower_nll_over_seeds(make_run, row_of, changes, verdict):
    run = read_run(pruned_run(make_run, row_of, changes))
    assert lower_nll(run, "structured").verdict == verdict


@pytest.mark.parametrize(("change", "verdict"), [(-0.012, HOLDS), (-0.011, UNKNOWN), (0.011, UNKNOWN), (0.012, FAILS)])
def test_lower_nll_of_one_seed(make_run, row_of, change, verdict):
    # Paired error of the KL gaps: 0.004 √2 each; twice that is 0.0113.
    claim = lower_nll(read_run(pruned_run(make_run, row_of, [change], [0])), "structured")
    assert claim.verdict == verdict
    assert "one seed" in claim.numbers


def test_the_stage_is_chosen_by_validation_not_by_test(make_run, row_of):
    rows = [row_of("dense", 0, 0, 1000, 0.6, nll_val=0.6)]
    rows += [row_of("structured", 0, 1, 500, 0.7, nll_val=0.5), row_of("structured", 0, 2, 250, 0.3, nll_val=0.9)]
    claim = lower_nll(read_run(make_run(rows)), "structured")
    assert claim.verdict == FAILS
    assert "50 % pruned" in claim.numbers


def curvature(ratios, seeds=(0, 1, 2), ratio=0.5, **own):
    stages = {("dense", seed, 0): {"prune_ratio": 0.0, "lambda_max": 10.0, "trace": 10.0, **own} for seed in seeds}
    for seed, value in zip(seeds, ratios, strict=True):
        stages["structured", seed, 1] = {"prune_ratio": ratio, "lambda_max": 10 * value, "trace": 10 * value, **own}
    return stages


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((0.50, 0.52, 0.48), HOLDS),
        ((1.50, 1.52, 1.48), FAILS),
        ((0.90, 0.91, 0.89), UNKNOWN),  # steady over the seeds, but less than the subset moves it
        ((0.50, 1.50, 0.70), UNKNOWN),
    ],
)
def test_flatter_over_seeds(ratios, verdict):
    assert flatter(curvature(ratios), "structured", "lambda_max").verdict == verdict


def test_flatter_is_about_moderate_ratios_and_says_its_interval():
    assert flatter(curvature((0.5, 0.5, 0.5), ratio=0.95), "structured", "lambda_max").verdict == UNKNOWN
    assert flatter(None, "structured", "trace").verdict == UNKNOWN
    claim = flatter(curvature((0.4, 0.5, 0.625)), "structured", "lambda_max")
    # log ratios about log 0.5: ± log 1.25, so s.e. = log 1.25 / √3 and t(2; 0.975) = 4.303
    half = 4.3027 * math.log(1.25) / math.sqrt(3)
    assert (
        f"0.50 × the dense flow's at 50 % pruned ({0.5 * math.exp(-half):.2f} to {0.5 * math.exp(half):.2f}"
        in claim.numbers
    )


def test_flatter_of_one_seed():
    assert flatter(curvature([0.7], [0]), "structured", "lambda_max").verdict == HOLDS
    assert flatter(curvature([0.7], [0], trace_se=0.1), "structured", "trace").verdict == HOLDS
    assert flatter(curvature([0.7], [0], trace_se=2.0), "structured", "trace").verdict == UNKNOWN


def samples(changes, captured=10, dense=10, key="good_within_3"):
    seeds = range(len(changes))
    total = {"modes_total": 10}
    stages = {("dense", s, 0): {"prune_ratio": 0.0, key: 0.8, "modes_captured": dense, **total} for s in seeds}
    for s, change in enumerate(changes):
        stages["structured", s, 1] = {"prune_ratio": 0.5, key: 0.8 + change, "modes_captured": captured, **total}
    return stages


@pytest.mark.parametrize(
    ("stages", "verdict"),
    [
        (samples((0.10, 0.11, 0.09)), HOLDS),
        (samples((-0.10, -0.11, -0.09)), FAILS),
        (samples((0.002, 0.002, 0.0021)), UNKNOWN),  # steady, but less than a percentage point
        (samples((0.0, 0.0, 0.001), captured=9), FAILS),
        (samples((0.0, 0.0, 0.001), dense=9), HOLDS),
        (samples((0.10, 0.11, 0.09), captured=9), UNKNOWN),
        (samples((0.10, 0.11, 0.09), key="coverage"), HOLDS),
        (None, UNKNOWN),
    ],
)
def test_modes_kept(stages, verdict):
    assert modes_kept(stages, "structured").verdict == verdict


def test_summary_says_where_it_is_lower_level_and_higher(make_run, row_of):
    rows = [row_of("dense", 0, 0, 1000, 0.6, train_steps=900)]
    for stage, (params, change) in enumerate([(750, -0.1), (500, 0.005), (100, 0.3)], start=1):
        rows.append(row_of("structured", 0, stage, params, 0.6 + change, train_steps=300))
    run = read_run(make_run(rows))
    lower, level, higher = summary(run, "structured")
    assert "lowers the test NLL at 25 % pruned, most at 25 %: by 0.100 ± 0.006 nats" in lower
    assert level.endswith("50 % pruned.")
    assert "90 % (by 0.300 ± 0.006)" in higher
    assert "up to 1,800 steps, the dense flow 900" in training_caveat(run)
    assert "no control" in training_caveat(run)


def test_only_cached_computes_nothing_and_says_what_is_missing(make_run, rows_of, monkeypatch, capsys):
    monkeypatch.setattr(report_command, "run_analysis", lambda *_: pytest.fail("it computes"))
    run = make_run(rows_of())
    assert report(run, "--only-cached") == 0
    page = (run / "analysis" / "report.html").read_text()
    assert "not analysed yet; run" in page
    assert page.count("<figure>") == 2
    assert capsys.readouterr().out.strip() == str(run / "analysis" / "report.html")


def test_the_page_is_whole_and_asks_nothing_of_the_network(make_run, rows_of):
    run = make_run(rows_of())
    put(run, "hessian", [{"method": "dense", "seed": 0, "stage": 0, "prune_ratio": 0, "lambda_max": 3.0}])
    put(run, "cost", [{"method": "dense", "seed": 0, "stage": 0, "prune_ratio": 0, "bytes": 4000}])
    assert report(run, "--only-cached") == 0
    text = (run / "analysis" / "report.html").read_text()
    page = Page(text)
    assert not re.search(r"https?:", text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "iframe", "object", "base")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    assert page.levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.levels, page.levels[1:], strict=False))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert set(targets) <= set(ids)
    assert 'lang="en"' in text
    assert "default-src 'none'" in next(a["content"] for _, a in page.tags if "http-equiv" in a).replace("&#x27;", "'")
    assert len(text) < 8_000_000
    assert "does not cover" in text  # the other 14 networks have no Hessian


def test_text_is_escaped(make_run, rows_of, failed_of):
    evil = "<script>alert(1)</script>&\"'"
    rows = [row | {"method": evil} if row["method"] == "structured" else row for row in rows_of()]
    rows = [row | {"dataset": "<b>rings</b>"} for row in [*rows, failed_of("unstructured", 0, 9, evil)]]
    run = make_run(rows, name="<i>name</i>")
    put(run, "hessian", [{"method": evil, "seed": 0, "stage": 1, "status": "failed", "reason": evil}])
    assert report(run, "--only-cached") == 0
    text = (run / "analysis" / "report.html").read_text()
    page = Page(text)
    assert not {"script", "b", "i"} & {tag for tag, _ in page.tags}
    assert "&lt;script&gt;alert(1)" in text


def test_a_failing_analysis_is_told_and_the_rest_goes_on(make_run, rows_of, monkeypatch, capsys):
    run = make_run(rows_of())
    done = []

    errors = {"cost": RunError("no clock <here>"), "modes": KeyError("k")}

    def analysis(name, runs, *_):
        print("its own table")
        if name in errors:
            raise errors[name]
        if name == "field":
            done.extend(runs)

    monkeypatch.setattr(report_command, "run_analysis", analysis)
    assert report(run, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["problems"][str(run)]["cost"] == "no clock <here>"
    assert document["problems"][str(run)]["modes"] == "KeyError: 'k'"
    assert (document["run"], len(document["stages"]), done) == (str(run), 15, [run])
    assert document["bytes"] == (run / "analysis" / "report.html").stat().st_size
    assert "no clock &lt;here&gt;" in (run / "analysis" / "report.html").read_text()


def test_what_is_there_is_not_computed_again(make_run, rows_of, monkeypatch):
    run = make_run(rows_of())
    stage = {"method": "dense", "seed": 0, "stage": 0, "prune_ratio": 0}
    put(run, "cost", [stage | {"bytes": 4000}])
    put(run, "hessian", [stage | {"status": "failed", "reason": "no luck"}])  # nothing is there: it is tried again
    called = []
    monkeypatch.setattr(report_command, "run_analysis", lambda name, *_: called.append(name))
    assert report(run) == 0
    assert set(called) == {"modes", "field", "hessian"}


def test_several_runs(make_run, rows_of, tmp_path, capsys):
    runs = [make_run(rows_of(), folder="a"), make_run(rows_of([0]), folder="b")]
    assert report(*runs, "--only-cached") == 2
    assert "--out DIR" in capsys.readouterr().err
    assert report(*runs, "--only-cached", "--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "report.html").read_text()
    Page(text)
    assert text.index("The runs side by side") < text.index("Run a") < text.index("Run b")
    assert (tmp_path / "out" / "nll_vs_pr-b.png").is_file()


def png(width, height=60):
    from PIL import Image

    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, format="PNG")
    return stream.getvalue()


def test_pictures_are_scaled_down_then_left_out_by_importance():
    large, small = png(1800), png(600)
    pictures = [
        picture("late", large, "a", "c", 5),
        picture("first", large, "a", "c", 0),
        picture("mid", small, "a", "c", 3),
    ]
    assert (pictures[0].width, pictures[0].height) == (1800, 60)
    kept, scaled, left_out = fit(pictures, 10**9)
    assert (sorted(kept), scaled, left_out) == ([0, 1, 2], [], [])
    kept, scaled, left_out = fit(pictures, pictures[1].size - 1)  # the first only fits scaled down, to a quarter
    assert (scaled[0], kept[1].width) == ("first", 900)
    assert fit(pictures, 0) == ({}, [], ["first", "mid", "late"])


def test_field_pictures_know_their_stage(tmp_path):
    for name in (
        "dense-s0-0_field.png",
        "structured-s0-1_density.png",
        "structured-s0-11_field.png",
        "panels_structured-s0.png",
    ):
        (tmp_path / name).write_bytes(png(20, 10))
    (tmp_path / "dense-s0-0.gif").write_bytes(b"GIF89a\x0a\x00\x05\x00")
    found, others = field_pictures(tmp_path, [(("dense", 0, 0), "dense flow"), (("structured", 0, 1), "pruned")])
    assert [one.name for one in found] == [
        "panels_structured-s0.png", "structured-s0-1_density.png", "dense-s0-0_field.png", "dense-s0-0.gif"
    ]  # fmt: skip
    assert others == 1
    assert (found[1].caption, found[3].width) == ("Density of the flow beside the true one; pruned.", 10)
