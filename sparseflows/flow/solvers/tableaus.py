"""Butcher tableaus of explicit Runge-Kutta methods with an embedded error estimate."""

from dataclasses import dataclass
from math import isclose


@dataclass(frozen=True)
class Tableau:
    """An explicit method of s stages: k_i = f(t + c_i h, z + h Σ_{j<i} a_ij k_j), z₊ = z + h Σ b_i k_i.

    Attributes:
        a: rows of s − 1 … the strictly lower triangle, row i of length i.
        b: weights of the step.
        c: times.
        error: b − b̂ of the embedded method, one entry more than b: the last belongs to f at the step's end.
        order: of the step.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    error: tuple[float, ...]
    order: int

    def __post_init__(self) -> None:
        lengths = [len(row) for row in self.a]
        consistent = (
            lengths == list(range(len(self.b)))
            and len(self.c) == len(self.b)
            and len(self.error) == len(self.b) + 1
            and isclose(sum(self.b), 1, abs_tol=1e-14)
            and isclose(sum(self.error), 0, abs_tol=1e-14)
            and all(isclose(sum(row), c, abs_tol=1e-14) for row, c in zip(self.a, self.c, strict=True))
        )
        if not consistent:
            raise ValueError("not a Runge-Kutta tableau: the sums of its rows do not agree")


TABLEAUS = {
    # Bogacki and Shampine 1989: order 3, embedded order 2.
    "bosh3": Tableau(
        a=((), (1 / 2,), (0.0, 3 / 4)),
        b=(2 / 9, 1 / 3, 4 / 9),
        c=(0.0, 1 / 2, 3 / 4),
        error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
        order=3,
    ),
    # Dormand and Prince 1980: order 5, embedded order 4.
    "dopri5": Tableau(
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        error=(
            35 / 384 - 5179 / 57600,
            0.0,
            500 / 1113 - 7571 / 16695,
            125 / 192 - 393 / 640,
            -2187 / 6784 + 92097 / 339200,
            11 / 84 - 187 / 2100,
            -1 / 40,
        ),
        order=5,
    ),
}
