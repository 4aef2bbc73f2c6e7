"""Exported fields against the fields they were made from."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest
import torch
from support.sparse_flows import points, zeroed_field

from sparseflows.errors import InputError, RunError
from sparseflows.flow import export
from sparseflows.flow.export import export_onnx, export_program, load_program
from sparseflows.flow.fields import LinearField
from sparseflows.flow.model import Flow

CASES = [("softplus", "concat_squash", "none"), ("silu", "concat", "gaussian"), ("relu", "none", "none")]
# The same operations in the same order, maybe by other kernels.
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5}
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")), reason="the extra 'export'"
)


def flow_of(activation="tanh", time="concat", base="none", dtype=torch.float64):
    fields = [zeroed_field((6, 5), 0.3, seed, activation, time, base) for seed in (0, 1)]
    return Flow(fields).to(dtype)


def fields_agree(found, field, dtype):
    for rows in (1, 5, 64):
        z, t = points(rows, dtype=dtype), torch.tensor(0.35, dtype=dtype)
        with torch.no_grad():
            torch.testing.assert_close(found(t, z), field(t, z), rtol=CLOSE[dtype], atol=CLOSE[dtype])


@pytest.mark.parametrize(("activation", "time", "base"), CASES)
def test_a_program_is_the_field(activation, time, base, tmp_path):
    flow = flow_of(activation, time, base)
    path = export_program(flow, tmp_path / "field.pt2", block=1)
    fields_agree(load_program(path), list(flow.fields())[1], torch.float64)
    assert flow.training  # as it was


@pytest.mark.slow  # a process of its own
def test_a_program_loads_without_this_package(tmp_path):
    flow = flow_of(dtype=torch.float32)
    path = export_program(flow, tmp_path / "field.pt2")
    z = points(4, dtype=torch.float32)
    torch.save(z, tmp_path / "z.pt")
    code = f"""
        import sys, torch
        f = torch.export.load({str(path)!r}).module()
        print(f(torch.tensor(0.5), torch.load({str(tmp_path / "z.pt")!r})).sum().item(), "sparseflows" in sys.modules)
    """
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path)
    total, loaded = said.stdout.split()
    with torch.no_grad():
        assert float(total) == pytest.approx(next(flow.fields())(torch.tensor(0.5), z).sum().item(), abs=1e-5)
    assert loaded == "False"


@needs_onnx
@pytest.mark.parametrize(("activation", "time", "base"), CASES[:2])
def test_onnx_is_the_field_by_the_reference_evaluator(activation, time, base, tmp_path):
    from onnx.reference import ReferenceEvaluator

    flow = flow_of(activation, time, base, torch.float32)
    path = export_onnx(flow, tmp_path / "field.onnx", block=1)
    assert [one.name for one in tmp_path.iterdir()] == ["field.onnx"]  # nothing beside it
    evaluator = ReferenceEvaluator(str(path))
    assert (evaluator.input_names, evaluator.output_names) == (["t", "z"], ["velocity"])
    fields_agree(
        lambda t, z: torch.as_tensor(evaluator.run(None, {"t": t.numpy(), "z": z.numpy()})[0]),
        list(flow.fields())[1],
        torch.float32,
    )


@needs_onnx
def test_what_differs_is_refused(tmp_path, monkeypatch):
    wrong = export._onnx
    monkeypatch.setattr(export, "_onnx", lambda path: lambda t, z: wrong(path)(t, z) * 1.001)
    with pytest.raises(RunError, match=r"differs by .* from the original"):
        export_onnx(flow_of(dtype=torch.float32), tmp_path / "field.onnx")


@needs_onnx
def test_without_onnxruntime_the_reference_evaluator_checks(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnxruntime" else find(name))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export_onnx(flow_of(dtype=torch.float32), tmp_path / "field.onnx").is_file()


def test_a_program_that_differs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "load_program", lambda path: lambda t, z: torch.full_like(z, torch.nan))
    with pytest.raises(RunError, match="differs by nan from the original"):
        export_program(flow_of(), tmp_path / "field.pt2")


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"ONNX needs onnx and onnxscript: pip install 'sparseflows\[export\]'"):
        export_onnx(flow_of(), tmp_path / "field.onnx")


def test_what_cannot_be_exported(tmp_path):
    path = tmp_path / "field.pt2"
    with pytest.raises(InputError, match="block is 2; this flow has 2, counted from 0"):
        export_program(flow_of(), path, block=2)
    with pytest.raises(InputError, match="block is -1"):
        export_program(flow_of(), path, block=-1)
    with pytest.raises(InputError, match="block 0 is a LinearField; an MLPField can be exported"):
        export_program(Flow(LinearField(torch.eye(2))), path)
    with pytest.raises(InputError, match=r"export the flow that it was made from, or its compact\(\)"):
        export_program(flow_of().to_sparse(0.0), path)
    with pytest.raises(InputError, match="cannot be written; give a file in a folder that exists"):
        export_program(flow_of(), tmp_path / "no" / "field.pt2")
    with pytest.raises(InputError, match="no such file"):
        load_program(path)
    path.write_bytes(b"no program")
    with pytest.raises(InputError, match="not readable as an exported program"):
        load_program(path)
