"""Lanczos on any symmetric operator, and its extreme eigenvalues.

Pure: an operator (P x P, float64) and starting vectors in, numbers out. An operator is only ever asked for
`matmat`, with as many columns at once as the algorithm allows, and every column is counted.

One run of k steps gives k Ritz values with weights that sum to 1. Seen as point masses they integrate every
polynomial of degree up to 2k - 1 as the spectrum itself does, seen from the starting vector (Golub & Meurant
2010, ch. 6); over random starting vectors the mean is the spectral density, which is stochastic Lanczos
quadrature.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from sparseflows.errors import InputError, RunError

Array = NDArray[np.float64]

# Of the largest entry so far: a beta below it ends a run. What is left of a vector then is the rounding of the
# earlier steps, magnified; to go on from it would add second copies of Ritz values, of weight 1e-22.
EXHAUSTED = 1e-11
PROBE_STEPS = 40  # first Lanczos run of extreme_eigenvalues, and ARPACK's own number of vectors


class Products:
    """Products with an operator, counted column by column, and refused where they are not finite.

    Raises:
        InputError: the operator is not square.
    """

    def __init__(self, operator: LinearOperator) -> None:
        rows, columns = operator.shape
        if rows != columns or rows < 1:
            raise InputError(f"the operator has shape {rows} x {columns}; a square one is wanted")
        self.operator = operator
        self.size = int(rows)
        self.count = 0

    def __call__(self, block: Array) -> Array:
        """A @ block, (P, K) to (P, K); no call of the operator where K is 0.

        Raises:
            RunError: the product has entries that are not finite.
        """
        if block.shape[1] == 0:
            return np.zeros_like(block)
        product = np.asarray(self.operator.matmat(block), dtype=np.float64)
        self.count += block.shape[1]
        if not np.isfinite(product).all():
            raise RunError(
                f"the Hessian product is not finite (product {self.count} of this estimate);"
                " the weights, the data or the solver's tolerance are at fault"
            )
        return product


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """One Lanczos run of k steps: QᵀAQ, tridiagonal.

    `alpha` (k,) is its diagonal, `beta` (k - 1,) lies beside it, `basis` (P, k) is Q where it was kept. The
    run took k products. k is smaller than asked for where the Krylov space was exhausted.
    """

    alpha: Array
    beta: Array
    basis: Array | None = None

    @property
    def products(self) -> int:
        """Products of the operator with a vector that the run took."""
        return len(self.alpha)

    def ritz(self) -> tuple[Array, Array]:
        """Ritz values, rising, and their weights (k,) each; the weights sum to 1."""
        values, vectors = eigh_tridiagonal(self.alpha, self.beta)
        return values, vectors[0] ** 2

    def ritz_vectors(self) -> tuple[Array, Array]:
        """Ritz values (k,), rising, and the Ritz vectors (P, k), orthonormal.

        Raises:
            ValueError: the run was made without `keep_basis`.
        """
        if self.basis is None:
            raise ValueError("this Lanczos run kept no basis; ask lanczos for keep_basis=True")
        values, vectors = eigh_tridiagonal(self.alpha, self.beta)
        return values, self.basis @ vectors


class _Run:
    """A Lanczos run under way; it asks for the product with `vector` until it is `finished`."""

    def __init__(self, start: Array, steps: int) -> None:
        norm = float(np.linalg.norm(start))
        if norm == 0.0:
            raise InputError("a Lanczos starting vector is zero")
        # Whatever projection the caller applied came before: trap 4 of the design is to do it after this line.
        self.basis = np.empty((steps, len(start)))
        self.basis[0] = start / norm
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self.scale = 0.0
        self.finished = False

    @property
    def vector(self) -> Array:
        return self.basis[len(self.alpha)]

    def advance(self, product: Array) -> None:
        step = len(self.alpha)
        known = self.basis[: step + 1]
        self.alpha.append(float(known[step] @ product))
        rest = product
        for _ in range(2):  # twice is enough (Parlett 1998, § 6.9); once leaves copies of converged values
            rest = rest - known.T @ (known @ rest)
        beta = float(np.linalg.norm(rest))
        self.scale = max(self.scale, abs(self.alpha[-1]), beta)
        exhausted = beta <= max(EXHAUSTED, len(rest) * np.finfo(np.float64).eps) * self.scale
        self.finished = bool(exhausted) or step + 1 == len(self.basis)
        if not self.finished:
            self.beta.append(beta)
            self.basis[step + 1] = rest / beta

    def result(self, keep_basis: bool) -> Tridiagonal:
        basis = self.basis[: len(self.alpha)].T.copy() if keep_basis else None
        return Tridiagonal(np.array(self.alpha), np.array(self.beta), basis)


def lanczos(
    operator: LinearOperator | Products,
    starts: Array,
    steps: int,
    *,
    keep_basis: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> list[Tridiagonal]:
    """Independent Lanczos runs from the columns of `starts` (P, m), with full reorthogonalisation.

    The runs go in lock step: one product with m columns a step. A run whose Krylov space is exhausted ends
    early, the others go on. Memory: m x steps x P numbers. `starts` need no normalisation; they may lie in a
    subspace that the operator does not leave. `on_step` is called with the number of steps done (1, 2, …).

    Raises:
        InputError: a starting vector is zero, the shapes do not fit, or steps is below 1.
        RunError: a product is not finite.

    Example:
        Two distinct eigenvalues end the run after two steps.

        >>> from scipy.sparse.linalg import aslinearoperator
        >>> (run,) = lanczos(aslinearoperator(np.diag([1.0, 1.0, 4.0])), np.ones((3, 1)), steps=10)
        >>> run.products, [round(float(value), 9) for value in run.ritz()[0]]
        (2, [1.0, 4.0])
    """
    products = operator if isinstance(operator, Products) else Products(operator)
    if starts.ndim != 2 or starts.shape[0] != products.size:
        raise InputError(f"starts have shape {starts.shape}; ({products.size}, m) is wanted")
    if steps < 1:
        raise InputError(f"Lanczos needs at least 1 step, not {steps}")
    runs = [_Run(start, min(steps, products.size)) for start in starts.T]
    while active := [run for run in runs if not run.finished]:
        block = products(np.column_stack([run.vector for run in active]))
        for run, product in zip(active, block.T, strict=True):
            run.advance(product)
        if on_step is not None:
            on_step(max(len(run.alpha) for run in runs))
    return [run.result(keep_basis) for run in runs]


@dataclass(frozen=True)
class Extremes:
    """Largest and smallest algebraic eigenvalue.

    Each residual is |Av - λv| of its unit vector v: some eigenvalue lies no farther than that from λ.
    `converged` says that both are within the tolerance. `products` counts everything that was spent.
    """

    lambda_max: float
    lambda_min: float
    residual_max: float
    residual_min: float
    products: int
    converged: bool


def extreme_eigenvalues(
    operator: LinearOperator,
    *,
    rng: np.random.Generator | None = None,
    start: Array | None = None,
    tol: float = 1e-6,
    max_products: int = 2000,
) -> Extremes:
    """Largest and smallest algebraic eigenvalue, residuals within tol x max(|λ_max|, |λ_min|).

    `start` (P,) is a starting vector; without one it is Gaussian, from `rng`. The sum of the outermost Ritz
    vectors of an earlier run makes it converge at once. What lies outside an invariant subspace that holds
    `start` is not seen. Forty steps of Lanczos come first: they often suffice, and they say where the
    spectrum lies, so that ARPACK (`eigsh`) gets the operator shifted and scaled to about [-1, 1]. Its test
    is relative to |λ|, which a smallest eigenvalue of about zero never meets. One run for both ends (`BE`)
    took fewer products than two (`LA`, `SA`) on all but a few matrices. At most 40 parameters: dense.

    Where ARPACK does not converge within about `max_products`, the values are the best there are, and
    `converged` is False.

    Raises:
        InputError: neither rng nor start, or start is zero or of the wrong length.
        RunError: a product is not finite.

    Example:
        >>> from scipy.sparse.linalg import aslinearoperator
        >>> found = extreme_eigenvalues(aslinearoperator(np.diag(np.arange(-3.0, 100.0))), rng=np.random.default_rng(0))
        >>> round(found.lambda_max, 6), round(found.lambda_min, 6), found.converged
        (99.0, -3.0, True)
    """
    products = Products(operator)
    if start is None:
        if rng is None:
            raise InputError("extreme eigenvalues need a random generator or a starting vector")
        start = rng.standard_normal(products.size)
    if products.size <= PROBE_STEPS:
        return _rayleigh_ritz(products, np.eye(products.size), tol)
    vectors = _outer_ritz_vectors(products, start)
    found = _rayleigh_ritz(products, vectors, tol)
    if found.converged:
        return found
    sharper = _arpack(products, found, vectors.sum(axis=1), tol, max_products)
    if sharper.shape[1] < 2:  # ARPACK returns nothing of a pair that has not converged
        sharper = np.column_stack([sharper, _outer_ritz_vectors(products, vectors.sum(axis=1))])
    return _rayleigh_ritz(products, np.column_stack([vectors, sharper]), tol)


def _outer_ritz_vectors(products: Products, start: Array) -> Array:
    # Ritz vectors of the smallest and largest Ritz value after PROBE_STEPS: (P, 2), or (P, 1) of one step.
    (run,) = lanczos(products, start.reshape(-1, 1), PROBE_STEPS, keep_basis=True)
    _, vectors = run.ritz_vectors()
    return vectors[:, sorted({0, vectors.shape[1] - 1})]


def _rayleigh_ritz(products: Products, vectors: Array, tol: float) -> Extremes:
    # The outermost values within the span of `vectors`, with the residuals that they really have.
    basis, sizes, _ = np.linalg.svd(vectors, full_matrices=False)
    basis = basis[:, sizes > 1e-8 * sizes[0]]
    image = products(basis)
    small = basis.T @ image
    values, coefficients = np.linalg.eigh((small + small.T) / 2)
    low, high = (
        float(np.linalg.norm(image @ coefficients[:, i] - values[i] * (basis @ coefficients[:, i]))) for i in (0, -1)
    )
    bound = max(tol, len(vectors) * np.finfo(np.float64).eps) * max(abs(values[0]), abs(values[-1]))
    return Extremes(float(values[-1]), float(values[0]), high, low, products.count, bool(max(low, high) <= bound))


def _arpack(products: Products, found: Extremes, start: Array, tol: float, max_products: int) -> Array:
    # Eigenvectors (P, 0 to 2) of the two ends, those that converged.
    centre = (found.lambda_max + found.lambda_min) / 2
    half = (found.lambda_max - found.lambda_min) / 2 or 1.0
    norm = max(abs(found.lambda_max), abs(found.lambda_min))
    scaled = LinearOperator(
        (products.size, products.size),
        matvec=lambda v: (products(v.reshape(-1, 1))[:, 0] - centre * v.reshape(-1)) / half,
        dtype=np.float64,
    )
    restarts = max(1, 2 * (max_products - products.count) // PROBE_STEPS)  # each renews half of the vectors or more
    goal = min(0.5 * tol * norm / half, 1e-3)
    try:
        _, vectors = eigsh(scaled, k=2, which="BE", v0=start, ncv=PROBE_STEPS, maxiter=restarts, tol=goal)
    except ArpackNoConvergence as error:
        vectors = error.eigenvectors
    except ArpackError:  # no Krylov space of that size from this start
        vectors = np.empty((products.size, 0))
    return np.asarray(vectors, dtype=np.float64).reshape(products.size, -1)
