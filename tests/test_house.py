"""The layout: small files in rooms of their own. The order of the rooms is import-linter's (pyproject.toml)."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("sparseflows", "analysis")
MOST_FILES, MOST_LINES = 16, 400
FAMILY = 3  # files of one first word in one folder are a folder of their own

LONG: dict[str, str] = {}  # file: why it may be longer
FAMILIES: dict[str, str] = {}  # folder/word: why the files stay side by side


def python_files(*rooms):
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def folders(*rooms):
    found = defaultdict(list)
    for path in python_files(*rooms):
        found[path.parent.relative_to(ROOT).as_posix()].append(path)
    return found


def test_folders_are_small():
    sizes = {name: len(paths) for name, paths in folders(*PRODUCT, "tests", "benchmarks").items()}
    assert {name: size for name, size in sizes.items() if size > MOST_FILES} == {}


def test_files_are_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in python_files(*PRODUCT)
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES and name not in LONG} == {}
    assert not [name for name in LONG if lengths.get(name, 0) <= MOST_LINES], "no exception is needed any more"


def test_no_families_of_names_share_a_folder():
    families = defaultdict(list)
    for folder, paths in folders(*PRODUCT, "benchmarks").items():
        for path in paths:
            word = path.stem.strip("_").partition("_")[0]
            families[f"{folder}/{word}"].append(path.name)
    large = {name: files for name, files in families.items() if len(files) >= FAMILY}
    assert {name: files for name, files in large.items() if name not in FAMILIES} == {}
    assert set(FAMILIES) <= set(large), "no exception is needed any more"


@pytest.mark.parametrize("package", PRODUCT)
def test_init_files_import_their_own_package_only(package):
    foreign = []
    for path in python_files(package):
        if path.name != "__init__.py":
            continue
        own = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = []
            if isinstance(node, ast.ImportFrom):
                named = [node.module or ""]
            elif isinstance(node, ast.Import):
                named = [one.name for one in node.names]
            foreign += [
                f"{own}: {name}"
                for name in named
                if name.split(".")[0] in PRODUCT and not f"{name}.".startswith(f"{own}.")
            ]
    # Both packages let their modules of version 0.1 be imported under their old names.
    assert [one for one in foreign if one != "analysis: sparseflows.moved"] == []


def test_the_page_on_where_things_are_names_what_is_there():
    page = (ROOT / "docs" / "where.md").read_text(encoding="utf-8")
    way = re.findall(r"^\| `(\S+\.py)` \| `(\w+)` \|", page, flags=re.MULTILINE)
    way += [(path, name) for name, path in re.findall(r"`(\w+)` in `(\S+\.py)`", page)]
    assert len(way) > 8
    for path, name in way:
        found = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
        assert name in [getattr(node, "name", None) for node in found], f"{path}: {name}"
