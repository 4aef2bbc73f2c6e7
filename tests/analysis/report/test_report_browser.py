"""The page in a real browser: no console error, no sideways scrolling. Skipped where there is no Chromium."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess

import pytest

from analysis.cli.app import app
from sparseflows.cli.console import run_app

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

# The page in a frame of the wanted width (a headless window is never narrower than 500 pixels), and its measure.
# The frame's script is the test's: the page itself has none.
WRAPPER = """<!DOCTYPE html><title>wrapper</title><link rel="icon" href="data:,"><body style="margin:0">
<iframe src="report.html" style="border:0;width:{width}px;height:900px"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const broken = [...page.images].filter(image => !image.complete || !image.naturalWidth).length;
  document.body.dataset.found =
    `${{page.documentElement.scrollWidth}} ${{page.images.length}} ${{broken}} ${{page.compatMode}}`;
}}</script>"""


def chromium(*args):
    rooted = ["--no-sandbox"] if os.geteuid() == 0 else []
    flags = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--no-first-run"]
    try:
        done = subprocess.run(
            [CHROMIUM, *flags, *rooted, *args], capture_output=True, text=True, timeout=90, check=True
        )
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Chromium does not start here: {error.stderr[-200:]}")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return done.stdout


@pytest.fixture
def page(make_run, rows_of, tmp_path):
    run = make_run([row | {"dataset": "gaussian_spiral", "method": row["method"]} for row in rows_of()], name="n" * 80)
    assert run_app(app, "analysis", ["report", str(run), "--only-cached", "--out", str(tmp_path / "out")]) == 0
    return tmp_path / "out" / "report.html"


def test_fits_a_desk_and_a_phone(page, tmp_path):
    for width in (1280, 360):
        wrapper = page.with_name(f"wrapper{width}.html")
        wrapper.write_text(WRAPPER.format(width=width))
        dom = chromium(
            f"--user-data-dir={tmp_path / 'profile'}", "--allow-file-access-from-files",
            f"--window-size={max(width, 500)},900", "--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri(),
        )  # fmt: skip
        scroll, images, broken, mode = re.search(r'data-found="(\d+) (\d+) (\d+) (\w+)"', dom).groups()
        assert int(scroll) <= width
        assert (int(images), int(broken), mode) == (2, 0, "CSS1Compat")


def test_screenshot(page, tmp_path):
    shot = tmp_path / "shot.png"
    chromium(
        f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1600", f"--screenshot={shot}", page.as_uri()
    )
    data = shot.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (1280, 1600)
    assert len(data) > 40_000  # a blank page of this size takes some 5 kB
