"""The criteria done again the slow way: loops over examples, positions, neurons and weights, plain floats."""

import math

import torch

from sparseflows.pruning.observing.statistics import Observed


def make_layer(seed, n_out=4, n_in=3, per_neuron=1, examples=5, evaluations=4, values=2, zeros=0.2):
    """A random weight matrix and what was observed there, float64, with zeros among weights and activations."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    columns = n_in * per_neuron
    weight = normal(n_out, columns)
    weight[torch.rand(weight.shape, generator=generator) < zeros] = 0
    weight[n_out // 2] = 0  # a neuron without weights
    inputs = normal(examples, evaluations, columns)
    inputs[torch.rand(inputs.shape, generator=generator) < zeros] = 0
    inputs[0, 0] = 0  # an input without activations
    return weight, Observed(inputs, normal(examples, evaluations, n_out), values)


def points_of(observed):
    """The activations that are values, as a list of lists."""
    return [observed.inputs[n, s].tolist() for n in range(observed.inputs.shape[0]) for s in range(observed.values)]


def gradients_of_weights(observed, n_out):
    """For each example, the gradient of its loss by every weight: lists [n][i][c]."""
    inputs, deltas = observed.inputs.tolist(), observed.gradients.tolist()
    found = []
    for a, delta in zip(inputs, deltas, strict=True):
        columns = len(a[0])
        own = [[0.0] * columns for _ in range(n_out)]
        for s in range(len(a)):
            for i in range(n_out):
                for c in range(columns):
                    own[i][c] += delta[s][i] * a[s][c]
        found.append(own)
    return found


def snip(weight, observed):
    n_out, columns = weight.shape
    own = gradients_of_weights(observed, n_out)
    return [
        [abs(float(weight[i, c]) * sum(g[i][c] for g in own) / len(own)) for c in range(columns)] for i in range(n_out)
    ]


def fisher_weights(weight, observed):
    n_out, columns = weight.shape
    own = gradients_of_weights(observed, n_out)
    return [
        [float(weight[i, c]) ** 2 * sum(g[i][c] ** 2 for g in own) / (2 * len(own)) for c in range(columns)]
        for i in range(n_out)
    ]


def contributions(weight, observed, per_neuron):
    """Σ a · (Wᵀδ) over positions and a neuron's columns: lists [n][neuron]."""
    w, (n_out, columns) = weight.tolist(), weight.shape
    found = []
    for a, delta in zip(observed.inputs.tolist(), observed.gradients.tolist(), strict=True):
        neurons = [0.0] * (columns // per_neuron)
        for s in range(len(a)):
            for c in range(columns):
                back = sum(w[i][c] * delta[s][i] for i in range(n_out))
                neurons[c // per_neuron] += a[s][c] * back
        found.append(neurons)
    return found


def fisher_neurons(weight, observed, per_neuron):
    c = contributions(weight, observed, per_neuron)
    return [sum(row[j] ** 2 for row in c) / (2 * len(c)) for j in range(len(c[0]))]


def taylor(weight, observed, per_neuron):
    c = contributions(weight, observed, per_neuron)
    return [sum(abs(row[j]) for row in c) / len(c) for j in range(len(c[0]))]


def shares(weight, points, per_neuron=1):
    """Largest share of every neuron in its sign groups: lists [i][neuron]."""
    n_out, columns = weight.shape
    w = weight.tolist()
    found = [[0.0] * (columns // per_neuron) for _ in range(n_out)]
    for i in range(n_out):
        for a in points:
            groups = {}
            for c in range(columns):
                if w[i][c] != 0 and a[c] != 0:
                    groups.setdefault((w[i][c] > 0, a[c] > 0), []).append(c)
            for members in groups.values():
                whole = sum(abs(w[i][c] * a[c]) for c in members)
                for neuron in range(columns // per_neuron):
                    own = sum(abs(w[i][c] * a[c]) for c in members if c // per_neuron == neuron)
                    found[i][neuron] = max(found[i][neuron], own / whole)
    return found


def norms(weight, power):
    rows = weight.flatten(1).tolist()
    return [sum(abs(w) ** power for w in row) ** (1 / power) for row in rows]


def relative_errors(weight, pruned, points):
    """|ẑ − z| / Σ |w a| of every point and neuron: lists [x][i]."""
    found = []
    for a in points:
        errors = []
        for row, other in zip(weight.tolist(), pruned.tolist(), strict=True):
            z = sum(w * x for w, x in zip(row, a, strict=True))
            z_hat = sum(w * x for w, x in zip(other, a, strict=True))
            scale = sum(abs(w * x) for w, x in zip(row, a, strict=True))
            errors.append(abs(z_hat - z) / scale if scale else 0.0)
        found.append(errors)
    return found


def promise_kept(weight, largest, kept):
    """min(1, the discarded shares), of the worse sign of weights: a list."""
    found = []
    for i in range(weight.shape[0]):
        sums = {True: 0.0, False: 0.0}
        for j in range(weight.shape[1]):
            if float(weight[i, j]) != 0 and not bool(kept[i, j]):
                sums[float(weight[i, j]) > 0] += float(largest[i, j])
        found.append(min(1.0, max(sums.values())))
    return found


def promise_sampled(weight, largest, p, delta):
    """The root t of t²/2 = L (V + M t/3), found by bisection, of the worse sign of weights: a list."""
    n_out, columns = weight.shape
    log_term = math.log(2 * 4 * n_out / delta)
    found = []
    for i in range(n_out):
        worst = 0.0
        for positive in (True, False):
            strays, varies = [0.0], [0.0]
            for j in range(columns):
                s, q = float(largest[i, j]), float(p[i, j])
                if float(weight[i, j]) == 0 or (float(weight[i, j]) > 0) != positive or s == 0 or q == 1:
                    continue
                strays.append(max(s, s * (1 - q) / q))
                varies.append(s * (1 - q) / q)
            worst = max(worst, root(max(strays), max(varies), log_term))
        found.append(worst)
    return found


def root(largest, variance, log_term):
    """The t ≥ 0 where t²/2 = L (V + M t/3), by bisection."""
    low, high = 0.0, 1.0
    while high * high / 2 < log_term * (variance + largest * high / 3):
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle * middle / 2 < log_term * (variance + largest * middle / 3):
            low = middle
        else:
            high = middle
    return high


def promise_neurons_drawn(neuron_shares, q, draws, delta):
    log_term = math.log(2 * 4 * len(neuron_shares) / delta)
    found = []
    for row in neuron_shares.tolist():
        ratio = max((s / chance for s, chance in zip(row, q.tolist(), strict=True) if chance > 0), default=0.0)
        whole = min(1.0, sum(s for s, chance in zip(row, q.tolist(), strict=True) if chance > 0))
        found.append(root(ratio / draws, ratio * whole / draws, log_term))
    return found


def first_left_out(times, kept):
    """τ of a choice: the first arrival that it leaves out, over all layers; infinite where it leaves out none."""
    left_out = [time[~keep] for time, keep in zip(times, kept, strict=True)]
    return min((float(time.min()) for time in left_out if time.numel()), default=math.inf)
