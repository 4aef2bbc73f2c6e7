"""`sparseflows data prepare` as the tests call it: made, or refused in one line with nothing left behind."""

from __future__ import annotations

import contextlib
import io
import re

from sparseflows.cli.app import app
from sparseflows.cli.console import run_app


def call(*args):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_app(app, "sparseflows", [str(arg) for arg in args])
    return status, out.getvalue(), err.getvalue()


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(tmp_path, source, *words, name="POWER", options=(), target="new/made"):
    """The command is refused with all of `words` in its one line, and the folder is as it was."""
    before = listing(tmp_path)
    status, out, err = call("data", "prepare", name, "--from", source, "--to", tmp_path / target, *options)
    assert (status, out) == (2, ""), (status, out, err)
    assert re.fullmatch(r"sparseflows: \S[^\n]*\n", err), err
    assert "Traceback" not in err
    for word in words:
        assert word in err, (word, err)
    assert listing(tmp_path) == before
    return err


def made(tmp_path, source, *options, name="POWER", target="made"):
    status, out, err = call("data", "prepare", name, "--from", source, "--to", tmp_path / target, *options)
    assert status == 0, err
    return out, err
