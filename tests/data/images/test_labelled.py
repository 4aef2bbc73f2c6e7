"""Labels beside rows: of the toy sets, of the digits; and what training is given of them."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sparseflows.data.known import known_sets
from sparseflows.data.splits import make_splits, with_labels
from sparseflows.data.toy.toy import TOYS
from sparseflows.errors import InputError
from sparseflows.experiment.plan import plan
from sparseflows.rng import numpy_generator
from sparseflows.specs import Spec

CLASSIFIER = {"objective": "cross_entropy", "steps": 10}


def spec_of(data, train=None, **sections):
    return Spec.model_validate({"name": "x", "data": data, "train": train or CLASSIFIER} | sections)


@pytest.mark.parametrize("name", TOYS)
def test_toy_labels_are_the_components_of_the_same_draws(name):
    splits = make_splits(name, n_train=200, seed=3)
    for part in ("train", "validation", "test"):
        rows, labels = getattr(splits, part), getattr(splits, f"labels_{part}")
        raw, drawn = TOYS[name].sample(len(rows), numpy_generator(3, f"data/{name}/{part}"))
        np.testing.assert_allclose(splits.standardiser.invert(rows), raw, rtol=1e-12, atol=1e-12)
        assert np.array_equal(labels, drawn)
        assert np.array_equal(np.unique(labels), np.arange(splits.classes))
    assert splits.classes == TOYS[name].components


@pytest.mark.parametrize("name", ["moons", "concentric", "spirals_class"])
def test_the_sets_to_classify_have_two_classes(name):
    assert make_splits(name, n_train=20).classes == 2


def test_moons_are_labelled_by_their_half_circle():
    splits = make_splits("moons", n_train=2000)
    raw = splits.standardiser.invert(splits.train)
    upper, lower = np.hypot(*raw.T), np.hypot(*(raw - [1.0, 0.5]).T)
    nearer = (abs(lower - 1) < abs(upper - 1)).astype(int)
    # Circles cross, so the nearer one is the point's own only mostly; by chance it would be so for half of them.
    assert (nearer == splits.labels_train).mean() > 0.7
    assert raw[splits.labels_train == 0, 1].mean() > raw[splits.labels_train == 1, 1].mean()


def test_digits_keep_their_labels_and_their_pixels():
    splits = make_splits("digits_labelled", val_fraction=0.2, test_fraction=0.15, seed=5)
    digits = load_digits()
    assert [len(splits.validation), len(splits.test)] == [round(0.2 * 1797), round(0.15 * 1797)]
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 1797
    key = {tuple(image): label for image, label in zip(digits.data.astype(int), digits.target, strict=True)}
    assert len(key) == 1797  # no image is there twice, so that a pixel row tells its label
    seen = set()
    for part in ("train", "validation", "test"):
        own = np.rint(16 * splits.standardiser.invert(getattr(splits, part))).astype(int)
        assert [key[tuple(image)] for image in own] == getattr(splits, f"labels_{part}").tolist()
        seen |= {tuple(image) for image in own}
    assert len(seen) == 1797
    assert splits.train.mean() == pytest.approx(0, abs=1e-13)  # one scalar, of the training pixels
    assert splits.train.std() == pytest.approx(1)
    assert len(set(splits.standardiser.scale)) == 1
    assert (splits.classes, splits.labels_train.dtype) == (10, np.int64)
    assert splits.log_prob_true is splits.modes is None


def test_fewer_digits_leave_the_other_parts_alone():
    whole, few = make_splits("digits_labelled"), make_splits("digits_labelled", n_train=100)
    assert np.array_equal(few.labels_train, whole.labels_train[:100])
    assert np.array_equal(few.labels_test, whole.labels_test)
    np.testing.assert_allclose(
        few.standardiser.invert(few.test), whole.standardiser.invert(whole.test), rtol=0, atol=1e-14
    )


def test_what_has_no_labels_says_none():
    wine = make_splits("wine")
    assert wine.labels_train is wine.labels_validation is wine.labels_test is wine.classes is None


@pytest.mark.parametrize("name", ["moons", "digits_labelled"])
def test_rows_with_labels(name):
    splits = make_splits(name, n_train=50)
    rows = with_labels(splits)
    assert rows.shape == (50, splits.train.shape[1] + 1)
    assert np.array_equal(rows[:, :-1], splits.train)
    assert np.array_equal(rows[:, -1].astype(np.float32), splits.labels_train)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"name": "wine"}, ["'wine' has no labels", "use ", "moons", "digits_labelled", "idx"]),
        ({"name": "swiss_roll", "n_train": 20}, ["'swiss_roll' has one class only"]),
    ],
)
def test_sets_that_cannot_be_classified(settings, parts):
    with pytest.raises(InputError) as caught:
        with_labels(make_splits(**settings))
    assert all(part in str(caught.value) for part in parts), str(caught.value)
    with pytest.raises(InputError, match=parts[0]):
        plan(spec_of(settings))


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"name": "digits_labelled", "path": "x"}, "'digits_labelled' takes no file"),
        ({"name": "digits_labelled", "n_train": 1438}, "n_train is 1438, but 'digits_labelled' has 1437 training rows"),
        ({"name": "digits_labelled", "val_fraction": 0.0001}, "0 to validate"),
    ],
)
def test_refusals(settings, part):
    with pytest.raises(InputError, match=part):
        make_splits(**settings)


def test_plans_of_classifiers():
    network = {"kind": "dense", "hidden": [20, 12], "batch_norm": True}
    found = plan(spec_of({"name": "digits_labelled"}, network=network))
    assert (found["dim"], found["train_rows"]) == (64, 1797 - 180 - 180)
    assert found["params_dense"] == 20 * (64 + 3) + 12 * (20 + 3) + 10 * 13
    node = plan(spec_of({"name": "moons"}, flow={"hidden": [64], "activation": "tanh"}))
    assert node["params_dense"] == 2 * 64 + 64 + 64 * 2 + 2


@pytest.mark.parametrize(
    ("name", "sections", "part"),
    [
        ("moons", {"network": {"kind": "conv", "channels": [4]}}, "square images, and 2 columns make none"),
        ("digits_labelled", {"network": {"kind": "conv", "channels": [4] * 4}}, "8 × 8 pixels to nothing; .* 3"),
        ("gaussians", {}, "from a flow's 2 columns, too few for 6 classes"),
    ],
)
def test_networks_that_do_not_fit_the_data(name, sections, part):
    with pytest.raises(InputError, match=part):
        plan(spec_of({"name": name}, **sections))


def test_known_sets_say_their_classes():
    classes = {one.name: one.classes for one in known_sets()}
    assert {"moons": 2, "gaussians": 6, "digits_labelled": 10, "idx": None, "wine": None}.items() <= classes.items()
