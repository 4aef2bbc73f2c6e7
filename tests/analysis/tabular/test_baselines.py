"""The Gaussian against SciPy's, the mixture against a naive loop of scikit-learn's fits."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from analysis.tabular.baselines import GAUSSIAN, MIXTURE, REGULARISER, fit_baselines, fit_gaussian, fit_mixture
from sparseflows.rng import derived_seed


def correlated(rows, columns=3, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((rows, columns)) @ generator.standard_normal((columns, columns)) + 2.0


def clusters(rows, seed=0):
    """Three round clusters of deviation 0.3, far apart."""
    generator = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    return centres[generator.integers(3, size=rows)] + 0.3 * generator.standard_normal((rows, 2))


@pytest.mark.parametrize("columns", [1, 3])
def test_the_gaussian_is_the_one_of_maximum_likelihood(columns):
    train, test = correlated(200, columns), correlated(50, columns, seed=1)
    gaussian = fit_gaussian(train)
    truth = multivariate_normal(train.mean(axis=0), np.cov(train, rowvar=False, bias=True))
    assert gaussian.log_prob(test) == pytest.approx(truth.logpdf(test))
    assert gaussian.ridge == 0
    assert gaussian.params == columns + columns * (columns + 1) // 2
    better = fit_gaussian(train).log_prob(train).mean()
    for scale in (0.95, 1.05):  # no other width of the same shape is likelier
        other = multivariate_normal(train.mean(axis=0), scale * np.cov(train, rowvar=False, bias=True))
        assert better > other.logpdf(train).mean()


def test_a_singular_covariance_gets_a_ridge_and_says_so():
    train = correlated(100, 2)
    train = np.column_stack([train, train.sum(axis=1)])
    gaussian = fit_gaussian(train)
    assert gaussian.ridge == pytest.approx(1e-6 * np.trace(np.cov(train, rowvar=False, bias=True)) / 3)
    assert np.isfinite(gaussian.log_prob(train)).all()
    fitted, _ = fit_baselines(train, train[:20], train[:20], 0)
    assert "singular" in fitted.notes[0]


@pytest.mark.parametrize("seed", [0, 3])
def test_the_mixture_is_the_one_of_lowest_bic(seed):
    train = clusters(300)
    chosen = fit_mixture(train, seed, components=(1, 2, 3, 4))
    naive = {}
    for k in (1, 2, 3, 4):
        for covariance in ("full", "diag"):
            model = GaussianMixture(
                k,
                covariance_type=covariance,
                reg_covar=REGULARISER,
                random_state=derived_seed(seed, "mixture") % 2**32,
            ).fit(train)
            naive[k, covariance] = (model.bic(train), model.score_samples(train))
    best = min(naive, key=lambda key: naive[key][0])
    assert (chosen.components, chosen.covariance) == best == (3, "diag")
    assert chosen.log_prob(train) == pytest.approx(naive[best][1])


def test_params_are_counted_as_bic_counts_them():
    train = correlated(400)
    for k in (1, 2):
        chosen = fit_mixture(train, 0, components=(k,))
        rows = len(train)
        bic = -2 * chosen.log_prob(train).sum() + chosen.params * math.log(rows)
        assert bic == pytest.approx(chosen.model.bic(train))
    assert fit_mixture(train, 0, components=(1,)).params == fit_gaussian(train).params == 9


def test_one_full_component_is_the_gaussian():
    train, test = correlated(500), correlated(100, seed=1)
    mixture = fit_mixture(train, 0, components=(1,)).log_prob(test)
    assert mixture == pytest.approx(fit_gaussian(train).log_prob(test), abs=5e-3)  # up to the regulariser


def test_equal_seeds_give_equal_numbers_and_rows_are_a_seeded_choice():
    train = clusters(400)
    first, again, other = (fit_mixture(train, seed, (1, 3), at_most=150) for seed in (1, 1, 2))
    assert first.n_fit == 150
    assert (first.log_prob(train) == again.log_prob(train)).all()
    assert (first.log_prob(train) != other.log_prob(train)).any()
    assert fit_mixture(train, 1, components=(3,)).n_fit == 400


def test_what_cannot_be_fitted_is_skipped_and_named():
    chosen = fit_mixture(clusters(6), 0)
    assert chosen.components <= 4
    assert chosen.notes[0].startswith("mixtures that could not be fitted: full 8, diag 8, full 16")
    with pytest.raises(ArithmeticError, match="no Gaussian mixture could be fitted to 6 rows of 2 columns"):
        fit_mixture(clusters(6), 0, components=(8, 16))


def test_fits_that_do_not_settle_are_told_without_a_warning(monkeypatch):
    import sklearn.mixture

    class Impatient(GaussianMixture):
        def __init__(self, n_components=1, *, covariance_type="full", reg_covar=1e-6, random_state=None):
            super().__init__(
                n_components,
                covariance_type=covariance_type,
                reg_covar=reg_covar,
                random_state=random_state,
                max_iter=1,
            )

    monkeypatch.setattr(sklearn.mixture, "GaussianMixture", Impatient)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = fit_mixture(correlated(300), 0, components=(1, 4))
    assert any("before they settled: " in note and "full 4" in note for note in chosen.notes)


def test_scores_are_of_the_rows_that_are_given():
    train, validation, test = correlated(300), correlated(40, seed=1), correlated(60, seed=2)
    told = []
    gaussian, mixture = fit_baselines(train, validation, test, 0, lambda step, total: told.append((step, total)))
    log_prob = multivariate_normal(train.mean(axis=0), np.cov(train, rowvar=False, bias=True)).logpdf
    assert (gaussian.name, mixture.name) == (GAUSSIAN, MIXTURE)
    assert gaussian.nll_val == pytest.approx(-log_prob(validation).mean())
    assert gaussian.nll_test == pytest.approx(-log_prob(test).mean())
    assert gaussian.nll_test_se == pytest.approx(log_prob(test).std(ddof=1) / math.sqrt(60))
    assert "covariance" in mixture.choice
    assert told[-1][0] == told[-1][1]
    assert fit_baselines(train, validation, test[:1], 0)[0].nll_test_se is None


def test_chunks_change_nothing(monkeypatch):
    monkeypatch.setattr("analysis.tabular.baselines.fit_mixture", lambda *args, **_: fit_mixture(args[0], 0, (2,)))
    parts = correlated(300), correlated(40, seed=1), correlated(60, seed=2)
    whole = fit_baselines(*parts, 0)
    monkeypatch.setattr("analysis.tabular.baselines._CHUNK", 7)
    for one, other in zip(whole, fit_baselines(*parts, 0), strict=True):
        assert one.nll_test == pytest.approx(other.nll_test)
