"""`--log NAME` → loggers: the ones that come with the package, installed ones, and the user's own."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from sparseflows.errors import InputError, suggest
from sparseflows.experiment.monitoring.loggers import METHODS, Logger, Loggers, told

GROUP = "sparseflows.loggers"  # entry points of installed packages
OWN = (
    "your own: --log MODULE:ATTRIBUTE, which, called with the folder of a run, gives an object with the methods "
    f"{', '.join(METHODS[:-1])} and {METHODS[-1]}"
)

Maker = Callable[[Path], Logger]


# Name, also of the package that it needs and of the extra that installs that → target, by name: sparseflows does not
# import analysis.
OURS = {"tensorboard": "analysis.tensorboard.logger:TensorBoard"}


def check_loggers(names: Iterable[str]) -> tuple[str, ...]:
    """The names, each once, when every one of them leads to a logger.

    Raises:
        InputError: an unknown name, a module that cannot be imported, or a package that is not installed.
    """
    wanted = tuple(dict.fromkeys(names))
    for name in wanted:
        find_logger(name)
    return wanted


def open_loggers(names: Iterable[str], run: Path, say: Callable[[str], None]) -> Loggers:
    """The loggers of this process, by their names in `--log`. One that cannot be made is told and left out."""
    made = {}
    for name in dict.fromkeys(names):
        try:
            with contextlib.redirect_stdout(sys.stderr):
                logger = find_logger(name)(run)
            _check_methods(name, logger)
            made[name] = logger
        except InputError as error:
            say(f"{error}; the run goes on without it")
        except (Exception, SystemExit) as error:
            say(f"logger {name}: making it raised {told(error)}; the run goes on without it")
    return Loggers(run, made, say)


def find_logger(name: str) -> Maker:
    """What makes the logger of that name from a run folder.

    Raises:
        InputError: see `check_loggers`.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if ":" in name:
        maker = _of_module(name, name)
    elif name in OURS:
        if not _is_installed(name):
            raise InputError(
                f"--log {name}: {name} is not installed; install it with pip install 'sparseflows[{name}]'"
            )
        maker = _of_module(name, OURS[name])
    elif name in installed:
        maker = _of_package(name, installed[name])
    else:
        known = sorted({*OURS, *installed})
        raise InputError(f"--log {name}: unknown logger{suggest(name, known)} (known: {', '.join(known)}; {OWN})")
    _check_maker(name, maker)
    return maker


def _is_installed(package: str) -> bool:
    found = importlib.util.find_spec(package)
    return found is not None and found.origin is not None  # a mere folder of that name has none


def _of_module(name: str, target: str) -> Any:
    module, _, attribute = target.partition(":")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # at the end: a file named like a package must not stand in for it
    if not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        raise InputError(f"--log {name}: not of the form MODULE:ATTRIBUTE ({OWN})")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            raise InputError(
                f"--log {name}: there is no module '{module}', neither installed nor in {here} ({OWN})"
            ) from None
        raise InputError(f"--log {name}: importing {module} raised {told(error)}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"--log {name}: importing {module} raised {told(error)}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            own = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise InputError(f"--log {name}: '{module}' has no '{part}'{suggest(part, own)} ({OWN})")
        found = getattr(found, part)
    return found


def _of_package(name: str, point: EntryPoint) -> Any:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return point.load()
    except (Exception, SystemExit) as error:
        raise InputError(f"--log {name}: importing {point.value} raised {told(error)}") from error


def _check_maker(name: str, maker: Any) -> None:
    if not callable(maker):
        raise InputError(f"--log {name}: is {_a(maker)}, and cannot be called with the folder of a run ({OWN})")
    try:
        inspect.signature(maker).bind(Path())
    except TypeError as error:
        raise InputError(f"--log {name}: cannot be called with one argument, the folder of a run: {error}") from None
    except ValueError:
        pass  # something built in, which does not tell
    if inspect.isclass(maker):
        _check_methods(name, maker)


def _check_methods(name: str, logger: Any) -> None:
    missing = [method for method in METHODS if not callable(getattr(logger, method, None))]
    if missing:
        what = logger.__name__ if inspect.isclass(logger) else _a(logger)
        raise InputError(f"--log {name}: {what} has no method {' and no '.join(missing)} ({OWN})")


def _a(thing: object) -> str:
    return f"an object of type {type(thing).__name__}"
