"""Docstrings of public functions: a sentence with a subject; tensors and arrays with their shapes."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for package in ("sparseflows", "analysis") for path in sorted((ROOT / package).rglob("*.py"))]
# A named collection of arrays (a state_dict, a figure's arrays) has its shapes where it is made.
COLLECTION = re.compile(r"(Mapping|dict)\[str, [^\]]*\]")
ARRAY = re.compile(r"\b(Tensor|Array|NDArray|ndarray)\b")
SHAPE = re.compile(r"\([^()]*,[^()]*\)|\(\)|\(…\)|\(\*shape\)|shapes?\b|scalar")


def public(path):
    """(name, the text that documents it, the annotations it has) of every public function and class."""

    def walk(node, owner):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                yield child.name, ast.get_docstring(child) or "", ""
                yield from walk(child, child)
            elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                arguments = [*child.args.args, *child.args.kwonlyargs]
                kinds = [one.annotation for one in arguments if one.annotation] + [child.returns] * bool(child.returns)
                text = ast.get_docstring(child) or ""
                own = text + (ast.get_docstring(owner) or "" if owner else "")
                is_property = any(ast.unparse(one).endswith("property") for one in child.decorator_list)
                yield child.name, own, "" if is_property else " ".join(map(ast.unparse, kinds))

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), None)


def test_docstrings_have_a_subject():
    found = [(str(path), name) for path in FILES for name, text, _ in public(path) if re.match(r"(Of|As) ", text)]
    assert found == []


def test_tensors_and_arrays_have_shapes():
    without = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in FILES
        for name, text, kinds in public(path)
        if ARRAY.search(COLLECTION.sub("", kinds)) and not SHAPE.search(text)
    ]
    assert without == []
