"""YAML param files → `Spec`; whatever is wrong is one line that names the file, the key and the choices."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sparseflows.errors import InputError, suggest
from sparseflows.specs.spec import FORMAT, Spec

MAX_BYTES, MAX_DEPTH = 100_000, 20


class _Refused(yaml.constructor.ConstructorError):
    """YAML that is valid, but has no place in a param file."""


class _Loader(yaml.SafeLoader):
    """Safe YAML with the numbers of YAML 1.2, which refuses a key given twice.

    Aliases and deep nesting are refused where they stand: what follows could take minutes to read.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node and all below it."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise _Refused(None, None, "YAML aliases (*name) are not used in param files; write the value out", mark)
        if self.depth == MAX_DEPTH:
            raise _Refused(None, None, f"nested more than {MAX_DEPTH} levels deep; no setting is", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # in C where that was built
    """Puts quotes around text that `_Loader` would read as a number: a run may be called 1e5."""


# Numbers as YAML 1.2 has them. 1.1, PyYAML's, reads 1e-5 as text, 010 as 8 and 1:30 as 90.
_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"^[-+]?(0|[1-9][0-9_]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"^([-+]?(\d[\d_]*\.\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
}
for _class in (_Loader, _Dumper):
    _class.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for _tag, _pattern in _NUMBERS.items():
        _class.add_implicit_resolver(_tag, _pattern, list("-+0123456789."))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    seen: set[str] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str) or not key.isprintable():
            raise _Refused(None, None, f"a key must be a plain word, not {_short(key)}", key_node.start_mark)
        if key in seen:
            raise _Refused(None, None, f"the key '{_plain(key)}' is given twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def parse_yaml(text: str, source: str) -> Any:
    """The YAML document in `text`; errors name `source` and the line.

    Raises:
        InputError: not YAML, nested too deeply, or built of aliases that would explode.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem or str(error)
        if problem.startswith("but ") and error.context:
            problem = f"{error.context}, {problem}"
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = "" if isinstance(error, _Refused) else "not valid YAML: "
        raise InputError(f"{source}{where}: {what}{' '.join(problem.split())}") from None
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:
        # PyYAML lets the errors of int(), float() and date() through, and those of its own tables.
        raise InputError(f"{source}: not valid YAML: {_short(error)}") from None


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> Spec:
    """Read a param file and resolve it.

    Args:
        path: the YAML file.
        overrides: `a.b=value` pairs (from `--set`), the value in YAML, applied in order.

    Raises:
        InputError: the file cannot be read, or a key or value in it is wrong.
    """
    document, changed = load_document(path, overrides)
    if "sweep" in document:
        raise InputError(f"{path}: a sweep, that is many experiments; sparseflows.load_sweep gives them all")
    return validate(document, str(path), changed)


def load_document(path: str | Path, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """A param file as YAML has it, with `overrides` applied, and the keys that they changed; raises as `load_spec`."""
    path = Path(path)
    document = parse_yaml(_read(path), str(path))
    if document is None:
        raise InputError(f"{path}: the file is empty; a param file needs at least name, data and train")
    if not isinstance(document, dict):
        raise InputError(f"{path}: a param file is a mapping of keys (name, data, train, …), not {_kind(document)}")
    return document, [_override(document, item) for item in overrides]


def validate(document: dict[str, Any], source: str, changed: Sequence[tuple[str, ...]] = ()) -> Spec:
    """`document` as a `Spec`; the first error as one line, with a count of the others.

    Raises:
        InputError: a key or value is wrong, or the document was written for another format.
    """
    version = document.get("format", FORMAT)
    if version != FORMAT or type(version) is not int:  # True and 1.0 equal 1
        raise InputError(
            f"{source}: format {_short(version)} was written by another version of Sparse Flows; "
            f"this one reads format {FORMAT}"
        )
    try:
        return Spec.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # An unknown key explains a missing one ('nme' for 'name'): say it first.
        problems.sort(key=lambda problem: problem["type"] != "extra_forbidden")
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        location = tuple(str(part) for part in problems[0]["loc"])
        given = any(location[: len(key)] == key or key[: len(location)] == location for key in changed)
        where = f"{source} with --set" if given and location else source
        raise InputError(f"{where}: {_explain(problems[0])}{more}") from None
    except RecursionError:
        raise InputError(f"{source}: nested too deeply for a param file") from None


def dump_spec(spec: Spec) -> str:
    """The resolved settings as YAML; `load_spec` of the text gives an equal `Spec`."""
    settings = spec.model_dump()
    text: str = yaml.dump(
        settings, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )
    return text


def _read(path: Path) -> str:
    try:
        if not path.exists():
            raise InputError(f"{path}: no such param file")
        if not path.is_file():
            raise InputError(f"{path}: not a file; give the YAML file itself")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: larger than {MAX_BYTES // 1000} kB; that is no param file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text in UTF-8; a param file is YAML") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _override(document: dict[str, Any], item: str) -> tuple[str, ...]:
    key, equals, text = item.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        raise InputError(f"--set {_plain(item)}: give it as key=value, for example --set train.lr=0.01")
    put(document, parts, parse_yaml(text, f"--set {_plain(key)}"), f"--set {_plain(item)}")
    return parts


def put(document: dict[str, Any], parts: Sequence[str], value: Any, source: str) -> None:
    """Give a dotted key, in parts, a value; sections that are missing are made.

    Raises:
        InputError: there are no keys below a part of it; `source` begins the message.
    """
    node: Any = document
    for depth, part in enumerate(parts[:-1], 1):
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise InputError(f"{source}: '{'.'.join(parts[:depth])}' is {_kind(node)} and has no keys below it")
    node[parts[-1]] = value


def _explain(problem: Any) -> str:
    key = _plain(".".join(str(part) for part in problem["loc"]))
    given = problem.get("input")
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _known_keys(problem["loc"][:-1])
        return f"unknown key '{key}'{suggest(problem['loc'][-1], known)} (known here: {', '.join(known)})"
    if kind in ("model_type", "dict_type"):
        choices = ", ".join(_known_keys(problem["loc"])) or "those of train"
        return f"{key}: give a mapping of keys ({choices}), not {_short(given)}"
    if kind in ("too_short", "too_long"):
        bounds = problem["ctx"]
        wanted = f"at least {bounds['min_length']}" if kind == "too_short" else f"at most {bounds['max_length']}"
        return f"{key}: give {wanted}, not {bounds['actual_length']}"
    if kind == "missing":
        return f"the key '{key}' is missing"
    if kind == "literal_error":
        return f"{key}: {_short(given)} is not one of {problem['ctx']['expected'].replace(' or ', ', ')}"
    if kind == "value_error":
        message, last = str(problem["ctx"]["error"]), str(problem["loc"][-1]) if key else ""
        return f"{key}{message.removeprefix(last)}" if message.startswith(last) else f"{key}: {message}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}: {message}, not {_short(given)}" if key else message


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    section: Any = Spec
    for part in location:
        field = getattr(section, "model_fields", {}).get(str(part))
        section = field and field.annotation
    return sorted(getattr(section, "model_fields", {}))


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"a single value ({_short(value)})"


def _short(value: object) -> str:
    """`value` as YAML would have it or Python, at most 60 characters; an error's own words, at most 160."""
    longest = 160 if isinstance(value, BaseException) else 60
    try:
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
        text = str(value) if isinstance(value, BaseException) else text
    except (RecursionError, ValueError):
        text = f"a {type(value).__name__}"
    return _plain(text, longest)


def _plain(text: str, longest: int = 60) -> str:
    """`text` on one line, cut where it is too long for a message."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
