"""Every command and every piece of Python on the pages is executed, in the order in which it stands there."""

from __future__ import annotations

import contextlib
import re
import shutil
import tomllib

import pytest
from support.clusters import dask_cluster, ray_cluster
from support.docs.pages import ROOT, Block, blocks_of, name_of, pages
from support.docs.shorter_programs import shorter

pytestmark = pytest.mark.docs

LANGUAGES = {"sh", "python", ""}  # "": what is shown and not to be typed
ALL = [block for page in pages() for block in blocks_of(page)]
PAGES = [page for page in pages() if any(block.language in ("sh", "python") for block in blocks_of(page))]
USES_QUICK = re.compile(r"runs/quick\b")
CLUSTERS = {
    "dask": ("distributed", "tcp://127.0.0.1:8786", dask_cluster),
    "ray": ("ray", "127.0.0.1:6379", ray_cluster),
}
MAKES_QUICK = re.compile(r"sparseflows run param/quick\.yaml(?!.*--set name=)")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_of_a_page_run_in_order(page, beside_param, execute, quick, monkeypatch):
    blocks = [block for block in blocks_of(page) if block.language in ("sh", "python")]
    text = "".join(block.text for block in blocks)
    if USES_QUICK.search(text) and not MAKES_QUICK.search(text):  # made by the page that it follows
        shutil.copytree(quick, beside_param / "runs" / "quick")
    monkeypatch.chdir(beside_param)
    names: dict[str, object] = {"__name__": name_of(page)}
    for block in blocks:
        if block.mark.startswith("not executed"):
            continue
        if block.language == "python":
            exec(compile(block.text, f"{page}, line {block.line}", "exec"), names)
            continue
        commands = "\n".join(line for line in block.text.splitlines() if not is_install(line))
        if not commands.strip():
            continue
        with cluster_for(block, beside_param) as (written, address):
            execute(commands.replace(written, address), beside_param)


@pytest.mark.parametrize("page", sorted({block.page for block in ALL}), ids=name_of)
def test_blocks_say_what_they_are(page):
    marks = ("", "long", *(f"cluster: {name}" for name in CLUSTERS))
    typed = ("pip", "python", "sparseflows", "for", "torchrun")
    for block in blocks_of(page):
        at = f"line {block.line}"
        assert block.language in LANGUAGES | {"yaml"}, f"{at}: the tests execute ```sh and ```python; name another one"
        assert block.mark in marks or re.match(r"not executed: \w+", block.mark), at
        if block.language == "":
            first = block.text.lstrip().split(maxsplit=1)[0]
            assert first not in typed or block.mark, f"{at}: a command to type belongs in ```sh"
        for line in block.text.splitlines():
            if is_install(line):
                installable(line)


@contextlib.contextmanager
def cluster_for(block: Block, folder):
    """The address on the page, and that of a cluster that is there for the block; the same where it needs none."""
    name = block.mark.removeprefix("cluster: ")
    if name not in CLUSTERS:
        yield block.text, block.text
        return
    module, written, start = CLUSTERS[name]
    pytest.importorskip(module)
    with start(folder) as (address, _):
        assert written in block.text
        yield written, address


def is_install(line: str) -> bool:
    return line.startswith("pip install")


def installable(line: str) -> None:
    """The files and extras that an install line names exist."""
    constraints = re.search(r"-c (\S+)", line)
    assert constraints is None or (ROOT / constraints[1]).is_file()
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extras in re.findall(r"\.\[([^\]]+)\]", line):
        assert set(extras.split(",")) <= set(known), f"{line}: the extras are {sorted(known)}"


def test_a_shorter_run_is_the_same_command_with_less_behind_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    args = ["run", "param/toy/gaussian_spiral/ffjord.yaml", "--set", "seeds=[3]", "--jobs", "2"]
    found = shorter("sparseflows", args)
    assert found[: len(args)] == args
    assert "seeds=[3]" in found[len(args) :]
    assert any(re.fullmatch(r"prune.keep_ratios=\[0.8, 0\.7\d+\]", word) for word in found)
    dense = shorter("sparseflows", [*args, "--set", "prune.keep_ratios=[]", "--set", "prune.methods=[]"])
    assert "prune.keep_ratios=[]" in dense[len(args) + 4 :]
    assert shorter("sparseflows", ["check", "x.yaml"]) == ["check", "x.yaml"]


def test_a_shorter_analysis_is_the_same_command_with_less_behind_it():
    for program, before in (("python", ["-m", "analysis"]), ("sparseflows", [])):
        args = [*before, "field", "RUN"]
        found = shorter(program, args)
        assert found[: len(args)] == args
        assert "--frames" in found[len(args) :]
        assert shorter(program, [*before, "table", "RUN"]) == [*before, "table", "RUN"]


def test_blocks_are_told_from_directives(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```{image} a.png\n```\n\n<!-- long -->\n```sh\nls\n```\n\n```python\n1\n```\n\n```\nshown\n```\n")
    found = [(block.line, block.language, block.text, block.mark) for block in blocks_of(page)]
    assert found == [(5, "sh", "ls\n", "long"), (9, "python", "1\n", ""), (13, "", "shown\n", "")]


def test_the_pages_are_found():
    assert {"start", "tour", "paper", "howto/own_data"} <= {name_of(page) for page in PAGES}
