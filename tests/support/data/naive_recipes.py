"""The five recipes a second time: whole arrays in memory, one step after the other, nothing shared with the package.

Each takes raw columns and gives (train, validation, test).
"""

from __future__ import annotations

from collections import Counter

import numpy as np


def tenths(data):
    n_test = int(0.1 * len(data))
    test, rest = data[-n_test:], data[:-n_test]
    n_validate = int(0.1 * len(rest))
    return rest[:-n_validate], rest[-n_validate:], test


def by_train_and_validation(parts):
    both = np.vstack(parts[:2])
    mean, std = both.mean(axis=0), both.std(axis=0)
    return tuple((part - mean) / std for part in parts)


def power(data):
    """From the archive's rows (N, 8)."""
    rng = np.random.RandomState(42)
    data = np.array(data, dtype=np.float64)
    rng.shuffle(data)
    n = len(data)
    data = np.delete(data, 3, axis=1)
    data = np.delete(data, 1, axis=1)
    voltage = 0.01 * rng.rand(n, 1)
    active = 0.001 * rng.rand(n, 1)
    meters = rng.rand(n, 3)
    data = data + np.hstack((active, voltage, meters, np.zeros((n, 1))))
    return by_train_and_validation(tenths(data))


def gas(frame):
    """From the sampled rows (N, 16)."""
    data = np.array(frame, dtype=np.float64)
    while True:
        close = np.corrcoef(data.T) > 0.98
        crowded = np.where(close.sum(axis=1) > 1)[0]  # each is close to itself
        if not len(crowded):
            break
        data = np.delete(data, crowded[0], axis=1)
    return tenths((data - data.mean(axis=0)) / data.std(axis=0, ddof=1))


def gas_raw(data, seed=0):
    """From the raw text's rows (N, 19)."""
    order = np.arange(len(data))
    np.random.RandomState(seed).shuffle(order)
    return gas(data[order[: len(data) // 4], 3:])


def frequent(data):
    """Columns without a spike at the smallest value."""
    kept = []
    for k, column in enumerate(data.T):
        counts = Counter(column.tolist())
        if counts[min(counts)] <= 5:
            kept.append(k)
    return kept


def hepmass(train, test):
    """From the rows of both files, the label first."""
    train, test = train[train[:, 0] == 1][:, 1:28], test[test[:, 0] == 1][:, 1:28]
    mean, std = train.mean(axis=0), train.std(axis=0, ddof=1)
    kept = frequent(train)
    train, test = ((train - mean) / std)[:, kept], ((test - mean) / std)[:, kept]
    n_validate = int(0.1 * len(train))
    return train[:-n_validate], train[-n_validate:], test


def miniboone(clean):
    """From the archive's rows (N, 43)."""
    return by_train_and_validation(tenths(np.array(clean)))


def miniboone_raw(data, signal):
    """From the raw text's rows (N, 50)."""
    data = data[:signal]
    data = data[~(data[:, 0] < -100)]
    return miniboone(data[:, frequent(data)])
