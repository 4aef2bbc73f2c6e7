"""A narrower dense network of a wanted size: what a pruned one of that size has to beat."""

from sparseflows.experiment.plan import dense_params, narrower
from sparseflows.specs import Spec


def narrowed(spec: Spec, dim: int, classes: int | None, target: int) -> Spec:
    """`spec` with every hidden layer narrower by one factor, so that its dense params are nearest to `target`."""
    widths = spec.flow.hidden if spec.network is None else [*spec.network.channels, *spec.network.hidden]
    factors = sorted({factor for width in widths for factor in _steps(width)})
    tried = [narrower(spec, factor) for factor in factors]
    return min(tried, key=lambda one: abs((dense_params(one, dim, classes) or 0) - target))


def _steps(width: int) -> list[float]:
    """Factors at, and on either side of, each at which a layer of `width` loses one more neuron."""
    edges = [(kept + 0.5) / width for kept in range(width)]
    return [edge * (1 + sign * 1e-9) for edge in edges for sign in (-1, 0, 1)]
