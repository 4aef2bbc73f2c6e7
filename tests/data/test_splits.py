"""From a name to standardised rows."""

import pickle

import numpy as np
import pytest

from sparseflows.data.benchmarks.facts import BENCHMARKS
from sparseflows.data.known import known_sets
from sparseflows.data.splits import make_splits
from sparseflows.data.tables.bundled import BUNDLED
from sparseflows.data.toy.toy import TOYS
from sparseflows.errors import InputError
from sparseflows.rng import numpy_generator


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mine.npy"
    np.save(path, np.random.default_rng(0).normal(size=(200, 3)) * [1, 10, 100] + 7)
    return path


def own(splits):
    """All rows in own coordinates, sorted by the first column."""
    rows = np.concatenate([splits.train, splits.validation, splits.test])
    rows = splits.standardiser.invert(rows)
    return rows[np.argsort(rows[:, 0])]


@pytest.mark.parametrize("name", ["gaussians", "spirals", "pinwheel"])
def test_toy_sizes_and_training_statistics(name):
    splits = make_splits(name, n_train=501, seed=3)
    assert splits.name == name
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [501, 250, 250]
    assert splits.train.mean() == pytest.approx(0, abs=1e-13)  # one scalar for both coordinates …
    assert splits.train.std() == pytest.approx(1)
    assert abs(splits.test.mean()) > 1e-6  # … from the training points alone
    assert abs(splits.test.std() - 1) > 1e-6
    assert splits.labels_test.shape == (250,)
    assert splits.warnings == ()


def test_default_sizes_are_the_published_ones():
    splits = make_splits("gaussian_spiral")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [16380, 8190, 8190]


def test_parts_of_a_toy_set_are_drawn_apart():
    splits = make_splits("gaussians", n_train=40)
    assert not np.isin(splits.validation, splits.test).any()
    assert not np.isin(splits.train, splits.test).any()
    more = make_splits("gaussians", n_train=41)  # the test draw does not depend on the training draw
    np.testing.assert_allclose(own_test(more), own_test(splits), rtol=1e-12)


def own_test(splits):
    return splits.standardiser.invert(splits.test)


@pytest.mark.parametrize("name", ["moons", "digits", "wine"])
def test_the_seed_decides(name):
    one, again, other = (make_splits(name, seed=s) for s in (1, 1, 2))
    for part in ("train", "validation", "test"):
        assert np.array_equal(getattr(one, part), getattr(again, part))
        assert not np.array_equal(getattr(one, part), getattr(other, part))


def test_entropy_of_the_gaussian_spiral_on_a_test_draw():
    splits = make_splits("gaussian_spiral", n_train=40_000)
    log_p = splits.log_prob_true(splits.test)
    error = log_p.std() / np.sqrt(len(log_p))
    assert -log_p.mean() == pytest.approx(0.522, abs=4 * error)
    assert error < 0.01


def test_true_density_is_in_standardised_coordinates():
    splits = make_splits("moons", n_train=300)
    log_scale = 2 * np.log(splits.standardiser.scale[0])
    raw = TOYS["moons"].log_prob(own_test(splits))
    np.testing.assert_allclose(splits.log_prob_true(splits.test), raw + log_scale, atol=1e-10)
    axis = np.linspace(-4, 4, 161)  # 0.05 apart, a third of the narrowest standard deviation
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert np.exp(splits.log_prob_true(grid)).sum() * 0.05**2 == pytest.approx(1, abs=1e-6)


def test_true_density_takes_float32_points_and_pickles():
    splits = pickle.loads(pickle.dumps(make_splits("gaussians", n_train=50)))
    log_p = splits.log_prob_true(splits.test.astype(np.float32))
    assert log_p.dtype == np.float64
    np.testing.assert_allclose(log_p, splits.log_prob_true(splits.test), atol=1e-3)


def test_modes_are_in_standardised_coordinates():
    splits = make_splits("gaussians", n_train=6000)
    modes, scale = splits.modes, splits.standardiser.scale[0]
    raw = TOYS["gaussians"].modes.means
    np.testing.assert_allclose(splits.standardiser.invert(modes.means), raw, atol=1e-12)
    np.testing.assert_allclose(modes.covariances, np.broadcast_to((0.5 / scale) ** 2 * np.eye(2), (6, 2, 2)))
    offsets = splits.test - modes.means[splits.labels_test]  # labels and modes number alike
    assert offsets.std() == pytest.approx(0.5 / scale, rel=0.03)


def test_what_is_unknown_is_none():
    assert make_splits("pinwheel", n_train=20).log_prob_true is None
    assert make_splits("spirals", n_train=20).modes is None
    wine = make_splits("wine")
    assert wine.log_prob_true is wine.modes is wine.labels_test is None


@pytest.mark.parametrize("name", [name for name, known in BUNDLED.items() if known.classes is None])
def test_bundled_rows_are_partitioned_and_standardised(name):
    splits = make_splits(name, val_fraction=0.2, test_fraction=0.15, seed=5)
    raw = BUNDLED[name].load(numpy_generator(5, f"data/{name}/dequantise"))
    assert [len(splits.validation), len(splits.test)] == [round(0.2 * len(raw)), round(0.15 * len(raw))]
    np.testing.assert_allclose(own(splits).sum(axis=0), raw.sum(axis=0))
    np.testing.assert_allclose(own(splits)[:, 0], np.sort(raw[:, 0]))
    np.testing.assert_allclose(splits.train.mean(axis=0), 0, atol=1e-11)
    np.testing.assert_allclose(splits.train.std(axis=0), 1)
    assert (abs(splits.test.mean(axis=0)) > 1e-6).all()


def test_a_table_of_ones_own(table):
    splits = make_splits("table", path=str(table), seed=1)
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [160, 20, 20]
    raw = np.load(table)
    np.testing.assert_allclose(own(splits), raw[np.argsort(raw[:, 0])])
    assert splits.warnings == ()


def test_fewer_training_rows_leave_the_other_parts_alone(table):
    whole = make_splits("table", path=str(table))
    few = make_splits("table", path=str(table), n_train=50)
    np.testing.assert_allclose(own_test(few), own_test(whole))
    np.testing.assert_allclose(
        few.standardiser.invert(few.train), whole.standardiser.invert(whole.train)[:50], rtol=1e-12
    )
    np.testing.assert_allclose(few.train.std(axis=0), 1)


def test_recurring_values_become_warnings(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "counts.csv"
    np.savetxt(path, np.stack([rng.normal(size=300), rng.integers(0, 9, 300)], axis=1), delimiter=",")
    (warning,) = make_splits("table", path=str(path)).warnings
    assert warning.startswith("column 2: 9 distinct values")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"name": "table"}, ["needs a file", "--set data.path=FILE"]),
        ({"name": "moons", "path": "x.npy"}, ["'moons' takes no file", "remove data.path"]),
        ({"name": "table", "path": "no/such.npy"}, ["no/such.npy: no such file"]),
        ({"name": "gausians"}, ["unknown data set 'gausians'", "did you mean 'gaussians'", "known: "]),
        ({"name": "wine", "n_train": 143}, ["n_train is 143", "142 training rows"]),
        ({"name": "moons", "n_train": 0}, ["n_train is 0"]),
        ({"name": "moons", "n_train": 1}, ["moons, 1 training points", "constant"]),
        ({"name": "wine", "n_train": 1}, ["wine, 1 training rows", "constant"]),
        ({"name": "wine", "val_fraction": 0.001}, ["0 to validate"]),
    ],
)
def test_refusals(settings, parts):
    with pytest.raises(InputError) as caught:
        make_splits(**settings)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    assert "\n" not in str(caught.value)


def test_known_sets_lists_every_name_once():
    sets = known_sets()
    assert [s.name for s in sets] == [*TOYS, *BUNDLED, *BENCHMARKS, "idx", "table"]
    assert all(s.dimension == 2 and s.rows == TOYS[s.name].default_n for s in sets if s.kind == "toy")
    assert all(s.description and "\n" not in s.description for s in sets)
    assert (sets[-1].dimension, sets[-1].rows) == (None, None)
