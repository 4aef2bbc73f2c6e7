from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from analysis.cli import report as report_command
from analysis.cli.app import app
from analysis.report.pictures import field_pictures, fit, picture
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
