"""KID, precision, recall and coverage in cases with a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from saadi.errors import BadInput
from saadi.evaluation.fidelity import Fidelity, cosine_kid, kid, precision_recall_coverage


def test_kid_by_hand() -> None:
    # One feature, degree 1, kernel xy + 1. Pairs within {0, 2}: 1; within {1, 3}: 4; between: 1, 1, 3, 7.
    real, fake = np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]])
    assert kid(real, fake, degree=1) == pytest.approx(1 + 4 - 2 * 3)
    assert kid(real, fake, degree=3) == pytest.approx(1 + 64 - 2 * (1 + 1 + 27 + 343) / 4)


def test_kid_divides_by_the_width() -> None:
    real, fake = np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([[0.0, 0.0], [0.0, 0.0]])
    assert kid(real, fake) == pytest.approx(1 + 1 - 2)
    assert kid(2 * real, fake, degree=1) == pytest.approx(0.0)
    assert kid(np.full((2, 4), 1.0), np.zeros((3, 4))) == pytest.approx(8 + 1 - 2)


def test_kid_of_one_distribution_is_unbiased_and_may_be_negative() -> None:
    rng = np.random.default_rng(0)
    values = np.array([kid(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(400)
    assert (values < 0).any()
    assert (values > 0).any()


def test_kid_is_unbiased_at_any_size_and_grows_with_the_distance() -> None:
    # Linear kernel: the squared distance of the means over the width, here 1, whatever the number of samples.
    rng = np.random.default_rng(1)
    for n in (5, 50):
        values = np.array([kid(rng.normal(size=(n, 4)), rng.normal(1, 1, (n, 4)), degree=1) for _ in range(300)])
        assert abs(values.mean() - 1) < 3 * values.std() / np.sqrt(300)
    real = rng.normal(size=(100, 8))
    near, far = (kid(real, rng.normal(shift, 1, (100, 8))) for shift in (0.5, 1.0))
    assert 0 < near < far


def test_cosine_kid_sees_a_spread_where_the_means_agree() -> None:
    # Unit vectors of mean (1/2, 0, ...): real at 60 degrees to both sides, fake half ahead and half to the sides.
    half, side = 60, np.sqrt(0.75)
    real, fake = np.zeros((2 * half, 144)), np.zeros((2 * half, 144))
    real[:, 0], real[:half, 1], real[half:, 1] = 0.5, side, -side
    fake[:half, 0], fake[half : half + half // 2, 1], fake[half + half // 2 :, 1] = 1.0, 1.0, -1.0
    np.testing.assert_allclose(real.mean(0), fake.mean(0), atol=1e-12)
    # Of all pairs: (8 + 1/8) / 2, then 8/4 + 1/2 + (8 + 0)/8, less twice 3.375/2 + (1.866^3 + 0.134^3)/4. Unbiased, the
    # images' pairs with themselves, at 8, leave the first two.
    ones, both = 2 * half, 4.0625 + 3.5
    between = 3.375 / 2 + ((1 + side) ** 3 + (1 - side) ** 3) / 4
    assert cosine_kid(real, fake) == pytest.approx((both * ones - 16) / (ones - 1) - 2 * between)
    assert cosine_kid(real, fake) > 0.8
    assert abs(kid(real, fake)) < 0.001  # unscaled, the same sets look alike


def test_cosine_kid_of_one_distribution_is_unbiased() -> None:
    rng = np.random.default_rng(6)

    def draw(n: int) -> NDArray[np.float64]:
        x: NDArray[np.float64] = rng.normal(size=(n, 8))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    values = np.array([cosine_kid(draw(20), draw(30)) for _ in range(400)])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(400)


def test_equal_sets_are_covered_even_where_images_repeat() -> None:
    features = np.random.default_rng(2).normal(size=(40, 6))
    assert precision_recall_coverage(features, features[::-1]) == (1.0, 1.0, 1.0)
    same = np.ones((10, 3))
    assert precision_recall_coverage(same, same) == (1.0, 1.0, 1.0)


def test_sets_far_apart_share_nothing() -> None:
    rng = np.random.default_rng(3)
    assert precision_recall_coverage(rng.normal(size=(30, 4)), rng.normal(100, 1, (30, 4))) == (0.0, 0.0, 0.0)


def test_precision_recall_coverage_by_hand() -> None:
    # k = 1. Real radii: 1, 1, 6; fake radii: 0.8, 0.8, 50.4. The fake at -50 lies in no real ball; the real image at 7
    # lies in no fake ball (57 and 5.8 away), yet the fake at 1.2 lies in its own.
    real, fake = np.array([[0.0], [1.0], [7.0]]), np.array([[0.4], [1.2], [-50.0]])
    assert precision_recall_coverage(real, fake, k=1) == pytest.approx((2 / 3, 2 / 3, 1.0))


def test_collapse_keeps_precision_and_loses_recall_and_coverage() -> None:
    rng = np.random.default_rng(4)
    real = rng.normal(size=(200, 4))
    result = precision_recall_coverage(real, rng.normal(0, 0.05, (200, 4)))
    assert result.precision == 1.0
    assert result.recall < 0.1
    assert result.coverage < 0.5


@pytest.mark.parametrize(("n", "m"), [(60, 60), (60, 20)])
def test_coverage_of_one_distribution_is_as_documented(n: int, m: int) -> None:
    rng, k = np.random.default_rng(5), 3
    pairs = ((rng.normal(size=(n, 3)), rng.normal(size=(m, 3))) for _ in range(200))
    values = [precision_recall_coverage(real, fake, k=k).coverage for real, fake in pairs]
    expected = 1 - np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)])
    assert np.mean(values) == pytest.approx(expected, abs=0.01)


def test_bad_features_are_named() -> None:
    good = np.ones((10, 2))
    with pytest.raises(BadInput, match="real features: shape"):
        precision_recall_coverage(good[:5], good)
    with pytest.raises(BadInput, match="synthetic features: shape"):
        kid(good, good[:1])
    with pytest.raises(BadInput, match="2 and 3 wide"):
        kid(good, np.ones((10, 3)))
    with pytest.raises(BadInput, match="nan or infinite"):
        kid(good, np.full((10, 2), np.nan))


def test_the_result_names_its_parts() -> None:
    assert Fidelity(0.1, 0.2, 0.3).coverage == 0.3
