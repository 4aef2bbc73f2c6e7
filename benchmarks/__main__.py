"""The command line of the benchmark. Exit status: 0 done, 1 a work failed, 2 the input was wrong, 130 interrupted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.works.table import WORKS
from sparseflows.errors import InputError, SparseFlowsError, lookup

EXAMPLES = """\
Every work measures ours and its peer in turns, in one process, on the same rows, seeds and threads, and gives the
ratio's median and range. Ours is better where 'peer / ours' is above 1; limits are 'ours / peer'. Likelihoods that
decide anything are exact: float64, dopri5 at 1e-7, on all test rows, while the clock stands still.

examples:
  pip install -c constraints.txt -e '.[bench]'
  python -m benchmarks --list                               what there is, and what it takes
  python -m benchmarks --quick --json quick.json            all of it, under ten minutes on one core
  python -m benchmarks --only step-zuko,sample --repeats 9  some of it
  python -m benchmarks --json full.json                     the plain FFJORD trained for real: about an hour
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; gives the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        print(_listing())
        return 0
    try:
        return _run(options)
    except SparseFlowsError as error:
        print(f"benchmarks: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("benchmarks: interrupted; what was measured is in the --json file", file=sys.stderr)
        return 130


def chosen_works(only: str | None) -> list[str]:
    """The works of `--only`, in the order of the list; all without it.

    Raises:
        InputError: an unknown name.
    """
    if only is None:
        return list(WORKS)
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if not wanted:
        raise InputError(f"--only names no work (known: {', '.join(WORKS)})")
    for name in sorted(wanted):
        lookup("work", name, WORKS)
    return [name for name in WORKS if name in wanted]


def _run(options: argparse.Namespace) -> int:
    names = chosen_works(options.only)
    json_file: Path | None = options.json
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise InputError(f"--json {json_file}: no file can be written there; name one in a folder that exists")
    from benchmarks.running import run_works  # late: PyTorch
    from benchmarks.zuko_peer import require_zuko

    if any(WORKS[name].needs_zuko for name in names):
        require_zuko()
    from benchmarks.context import Settings

    settings = Settings(options.quick, options.seeds, options.repeats, options.threads)
    return run_works({name: WORKS[name] for name in names}, settings, json_file)


def _listing() -> str:
    lines = [f"{'work':12}  {'quick':>7}  {'full':>7}  what"]
    for name, work in WORKS.items():
        zuko = " (needs zuko)" if work.needs_zuko else ""
        lines.append(f"{name:12}  {work.quick:5.0f} s  {work.full:5.0f} s  {work.summary}{zuko}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed and memory of Sparse Flows beside its peers, measured in one run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="under ten minutes; the plain FFJORD is extrapolated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write it all here too, every raw repeat included")
    parser.add_argument("--only", metavar="NAME,…", help="these works only; see --list")
    parser.add_argument("--list", action="store_true", help="list the works and leave")
    parser.add_argument("--seeds", type=_positive, default=5, metavar="N", help="of every training [5]")
    parser.add_argument("--repeats", type=_positive, default=5, metavar="N", help="of everything else [5]")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="of PyTorch, ours and peers' [1]")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{value} is not between 1 and 1000")
    return value


if __name__ == "__main__":
    sys.exit(main())
