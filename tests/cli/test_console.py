"""One line for an error, and the exit status, whatever a command does."""

import os
import signal
import subprocess
import sys
import time
import warnings
import weakref

import numpy as np
import pytest
import typer

from sparseflows.cli.console import run_app
from sparseflows.errors import InputError, Interrupted, RunError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)

FEWER = "give it fewer rows, or a smaller network"
FAILURES = {
    "input": InputError("data.csv: line 3: 'x' is not a number"),
    "run": RunError("the disk is full"),
    "lines": InputError("one\n  two\t three\r\n"),
    "interrupted": Interrupted("interrupted; the same command goes on"),
    "keyboard": KeyboardInterrupt(),
    "pipe": BrokenPipeError(),
    "bug": ZeroDivisionError("a bug"),
    "memory": MemoryError("Unable to allocate 1.49 GiB"),
    "tensor": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    "disk": OSError(5, "Input/output error", "runs/x"),
    "exit": typer.Exit(3),
}


@app.command()
def fail(how: str) -> None:
    print("half a result")
    raise FAILURES[how]


class Thing:
    pass


@app.command()
def arithmetic() -> None:
    """NumPy would warn of each of these, above whatever is said."""
    # A signalling NaN, the largest number, 0.
    numbers = np.array([0x7F800001, 0x7F7FFFFF, 0], dtype=np.uint32).view(np.float32)
    numbers.astype(np.float64)
    numbers[1:2] * numbers[1:2]
    numbers[2:] / numbers[2:]
    1 / numbers[2:]
    raise InputError("that is no number")


@app.command()
def callback() -> None:
    """Ctrl-C comes while Python is in a callback, which drops its exceptions."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    thing = Thing()
    watched = weakref.ref(thing, interrupt)
    del thing
    assert watched() is None
    time.sleep(30)


@app.command()
def work(n: int = typer.Option(1, min=1)) -> None:
    print(n)


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("input", 2, "prog: data.csv: line 3: 'x' is not a number\n"),
        ("run", 1, "prog: the disk is full\n"),
        ("lines", 2, "prog: one two three\n"),
        ("interrupted", 130, "prog: interrupted; the same command goes on\n"),
        ("keyboard", 130, "prog: interrupted\n"),
        ("exit", 3, ""),
        ("disk", 1, "prog: runs/x: Input/output error\n"),
        ("memory", 1, f"prog: out of memory (Unable to allocate 1.49 GiB); {FEWER}\n"),
        (
            "tensor",
            1,
            "prog: out of memory (DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.); "
            f"{FEWER}\n",
        ),
    ],
)
def test_an_error_is_one_line_and_a_status(how, status, line, capsys):
    assert run_app(app, "prog", ["fail", how]) == status
    out, err = capsys.readouterr()
    assert out == "half a result\n"
    assert err == line


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_app(app, "prog", ["fail", "bug"])


def test_success(capsys):
    assert run_app(app, "prog", ["work", "--n", "7"]) == 0
    assert capsys.readouterr() == ("7\n", "")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fail"], "Missing argument"),
        (["work", "--m", "3"], "No such option: --m"),
        (["work", "extra"], "unexpected extra argument"),
        (["work", "--n", "x"], "Invalid value for '--n'"),
        (["work", "--n", "0"], "Invalid value for '--n'"),
        (["work", "--n"], "Option '--n' requires an argument"),
        (["wrok"], "No such command 'wrok'"),
    ],
)
def test_wrong_usage_is_one_line_that_points_to_the_help(args, words, capsys):
    assert run_app(app, "prog", args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("prog: ")
    assert err.endswith("(see 'prog --help')\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize("args", [[], ["--help"], ["fail", "--help"]])
def test_help_goes_to_standard_output(args, capsys):
    assert run_app(app, "prog", args) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: prog")
    assert err == ""


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from sparseflows.__main__ import main; sys.argv[1:] = ['data', 'list']; main()"
    with subprocess.Popen(
        [sys.executable, "-c", f"import time; time.sleep(0.2); {code}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a file that is always full")
def test_a_full_disk_under_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sparseflows", "data", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "sparseflows: standard output: No space left on device\n"


def test_ctrl_c_during_the_imports_is_one_line():
    code = (
        "import sys; from sparseflows.__main__ import main\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Slow()); sys.argv[1:] = ['data', 'list']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "sparseflows: interrupted\n")


@pytest.fixture
def heeded():
    """Ctrl-C is heeded, which jobs of a shell's background do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_callback_is_not_lost(capsys, heeded):
    started = time.monotonic()
    assert run_app(app, "prog", ["callback"]) == 130
    assert capsys.readouterr().err == "prog: interrupted\n"
    assert time.monotonic() - started < 20


def test_numpy_says_nothing_of_its_own(capsys):
    with warnings.catch_warnings(action="always"):
        assert run_app(app, "prog", ["arithmetic"]) == 2
    assert capsys.readouterr().err == "prog: that is no number\n"
