"""One shape of an analysis: the same results from Python as from the command line."""

import inspect
import json

import pytest
import typer
from support.small_runs import call

import analysis
from analysis.analyses.shape import PLACES, find
from analysis.cli.app import app
from analysis.settings import SETTINGS
from sparseflows.errors import InputError


def test_python_and_the_command_line_give_the_same(tiny_run, capsys):
    said = call(capsys, "modes", tiny_run, "--samples", 100, "--stage", "dense-s0/0", "--json")
    (entry,) = analysis.analyse(tiny_run, "modes", "dense-s0/0", samples=100)
    assert entry.cached
    (stage,) = json.loads(said.out)["stages"]
    assert entry.document() | {"cached": False} == stage


@pytest.mark.parametrize("name", PLACES)
def test_every_analysis_has_settings_with_defaults_and_a_command_with_the_same(name):
    found = find(name)
    assert found.name == name
    defaults = {field: value.default for field, value in SETTINGS[name].__dataclass_fields__.items()}
    command = typer.main.get_command(app).commands[name]
    options = {parameter.name: parameter.default for parameter in command.params}
    assert defaults.items() <= options.items()
    assert set(options) - set(defaults) == {"runs", "stage", "as_json", "out", "help"} & set(options)
    assert inspect.cleandoc(SETTINGS[name].__doc__).splitlines()[0] in command.help


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mode", {}, "did you mean 'modes'"),
        ("modes", {"sample": 5}, "no setting 'sample' .known: samples, seed, protocol"),
        ("modes", {"protocol": "paper", "stages": "dense-s0/9"}, "no stage 'dense-s0/9'"),
        ("hessian", {"loss": "nl"}, "loss is 'nl'; it is one of nll, flow_matching"),
        ("modes", {"protocol": "papr"}, "protocol is 'papr'; it is one of paper"),
        ("modes", {"samples": 5}, "samples is 5; it is at least 100"),
        ("cost", {"rows": "many"}, "rows is 'many'; it is of type int"),
    ],
)
def test_what_is_refused(tiny_run, name, settings, said):
    with pytest.raises(InputError, match=said):
        analysis.analyse(tiny_run, name, **settings)
