"""`sparseflows data`: what there is, and how the benchmark sets are made. Heavy imports come late."""

import sys
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sparseflows.cli.console import print_result
from sparseflows.errors import InputError
from sparseflows.experiment.monitoring.meter import Meter

data_app = typer.Typer(no_args_is_help=True, help="Data sets: what is known, and how to use your own.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else on standard output.")]


@data_app.command(name="prepare")
def prepare_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="POWER, GAS, HEPMASS, MINIBOONE or BSDS300.")],
    source: Annotated[
        Path,
        typer.Option(
            "--from", metavar="PATH", help="The archive, the raw file (plain, .gz, .zip), or a folder that holds them."
        ),
    ],
    folder: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder to make.")],
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="GAS: read the archive's pickle, which may run code.")
    ] = False,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="Refuse a source file of another SHA-256.")
    ] = None,
    dtype: Annotated[Literal["float64", "float32"], typer.Option(help="Of the arrays.")] = "float64",
    seed: Annotated[int | None, typer.Option(help="GAS from raw text: of the sample. [default: 0]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the prepared set in DIR.")] = False,
    as_json: Json = False,
) -> None:
    """Make train, validation and test rows of a benchmark set from its published files.

    \b
    Where to get them: sparseflows data list
    Example: sparseflows data prepare POWER --from household_power_consumption.zip --to data/power
    """
    from sparseflows.data.prepare.prepare import Request, prepare

    started, progress = time.monotonic(), ByteProgress()
    try:
        found = prepare(Request(name, source, folder, allow_pickle, sha256, dtype, seed, force), progress)
    finally:
        progress.close()
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    seconds = time.monotonic() - started
    if as_json:
        print_result({"folder": str(folder), "seconds": round(seconds, 3), **vars(found)})
        return
    rows = ", ".join(f"{count:,} {part}" for part, count in found.rows.items())
    print_result(f"{found.name}: {rows} rows of {len(found.columns)} columns in {folder} ({seconds:.1f} s)")


@data_app.command(name="list")
def list_data(
    folder: Annotated[
        Path, typer.Option("--in", metavar="DIR", help="Where prepared sets are, each in DIR/<name>.")
    ] = Path("data"),
    verify: Annotated[bool, typer.Option("--verify", help="Compare prepared files with their SHA-256.")] = False,
    as_json: Json = False,
) -> None:
    """List the data sets that data.name takes, what is prepared, and how to prepare the rest.

    \b
    Your own table: sparseflows run param/tabular/table.yaml --set data.path=FILE
    """
    from sparseflows.data.benchmarks.facts import BENCHMARKS
    from sparseflows.data.splits import known_sets

    # Prepared ones are described below, with what is here of them.
    sets: list[dict[str, Any]] = [vars(one) for one in known_sets() if str(one.kind) != "prepared"]
    benchmarks = [_benchmark(name, folder, verify) for name in BENCHMARKS]
    if as_json:
        print_result([*sets, *benchmarks])
    else:
        print_result("\n".join([*_lines([*sets, *benchmarks]), *_to_get(benchmarks)]))
        checked = [one["name"] for one in benchmarks if one.get("verified")]
        if checked:
            print_result(f"\nEvery file is as it was prepared: {', '.join(checked)}")
    broken = next((one["problem"] for one in benchmarks if one["problem"]), None)
    if broken:
        raise InputError(broken)


def _benchmark(name: str, folder: Path, verify: bool) -> dict[str, Any]:
    """What is known of a set, and what is here of it."""
    from sparseflows.data.benchmarks.facts import ARCHIVE_URL, BENCHMARKS, PARTS
    from sparseflows.data.benchmarks.prepared import MANIFEST, open_prepared
    from sparseflows.data.benchmarks.prepared import verify as check

    facts, place = BENCHMARKS[name], folder / name
    found: dict[str, Any] = {
        "name": name,
        "kind": "prepared",
        "dimension": facts.columns,
        "rows": sum(facts.rows),
        "description": facts.description,
        "folder": str(place),
        "prepared": False,
        "parts": dict(zip(PARTS, facts.rows, strict=True)),
        "problem": None,
        "command": f"sparseflows data prepare {facts.title} --from PATH --to {place}",
        "archive": {"url": ARCHIVE_URL, "files": list(facts.archived)},
        "raw": {"url": facts.url, "files": list(facts.raw)},
        "licence": facts.licence,
    }
    if not (place / MANIFEST).exists():
        if place.is_dir() and any(place.iterdir()):  # the archive, unpacked perhaps: its folders have these names
            found["command"] = found["command"].replace(f"--to {place}", f"--to {folder}-prepared/{name}")
        return found
    try:
        manifest = open_prepared(place, name).manifest
        if verify:
            check(place)
    except InputError as error:
        return found | {"problem": str(error)}
    return found | {
        "prepared": True,
        "dimension": len(manifest.columns),
        "rows": sum(manifest.rows.values()),
        "parts": manifest.rows,
        "sample": manifest.sample,
        "verified": verify,
    }


def _lines(sets: list[dict[str, Any]]) -> list[str]:
    lines = [f"{'name':<16} {'kind':<8} {'columns':>7} {'rows':>9}  description"]
    for one in sets:
        kind = _state(one) if one["kind"] == "prepared" else one["kind"]
        dimension, rows = one["dimension"] or "-", one["rows"] or "-"
        lines.append(f"{one['name']:<16} {kind:<8} {dimension:>7} {rows:>9}  {one['description']}")
    return lines


def _state(one: dict[str, Any]) -> str:
    if one["problem"]:
        return "damaged"
    if not one["prepared"]:
        return "to get"
    return "sample" if one["sample"] else "here"


def _to_get(benchmarks: list[dict[str, Any]]) -> list[str]:
    """Where those are that are missing, and the command that prepares them."""
    missing = [one for one in benchmarks if not one["prepared"]]
    if not missing:
        return []
    lines = ["", f"To get; the archive, with all five in it: {missing[0]['archive']['url']}"]
    for one in missing:
        archive = "the archive" + (", with --allow-pickle" if one["archive"]["files"][0].endswith(".pickle") else "")
        raw = " and ".join(one["raw"]["files"])
        lines += [
            f"  {one['command']}",
            f"    PATH: {archive}{f'; or {raw}, plain or packed' if raw else ''} ({one['licence']})",
            f"    {'raw' if raw else 'about'}: {one['raw']['url']}",
        ]
    return lines


class ByteProgress(Meter):
    """Bytes gone through, on standard error: a bar with the time left on a terminal, else a line now and then."""

    label, total, done = "", 0, 0

    def begin(self, label: str, total: int) -> None:
        """A part of the work begins: `total` bytes."""
        self.label, self.total, self.done = label, total, 0
        self.begin_part()

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self.done += count
        self.show(self.done, self.total, self.label, self._line, unit="B", unit_scale=True)

    def _line(self, left: str) -> str:
        return f"{self.label}: {self.done / self.total:.0%}, about {left} left"
