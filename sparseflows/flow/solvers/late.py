"""torchdiffeq's two solves, imported at the first of them: SciPy comes with it, and few runs on a CPU need either.

Arguments and results are torchdiffeq's own.
"""

from typing import Any


def odeint(*arguments: Any, **named: Any) -> Any:
    """`torchdiffeq.odeint`."""
    import torchdiffeq

    return torchdiffeq.odeint(*arguments, **named)


def odeint_adjoint(*arguments: Any, **named: Any) -> Any:
    """`torchdiffeq.odeint_adjoint`."""
    import torchdiffeq

    return torchdiffeq.odeint_adjoint(*arguments, **named)
