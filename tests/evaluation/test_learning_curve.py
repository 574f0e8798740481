"""Forecasts for more labels, compared with results worked out by hand."""

import math

import numpy as np
import pytest

from handful.evaluation import learning_curve as module
from handful.evaluation.accuracy_estimate import estimate
from handful.evaluation.cross_validation import OutOfFold, Scheme
from handful.evaluation.learning_curve import forecast, learning_slope


def predicted(right, halves_right, n=200):
    """OutOfFold of two classes: `right` of n predicted rightly, and `halves_right` by halves."""

    def rows(good):
        sure = np.where(np.arange(n) < good, 0.9, 0.1)
        labels = np.arange(n) % 2
        table = np.stack([1 - sure, sure], axis=1)
        return np.where(labels[:, None] == 1, table, 1 - table)

    labels = np.arange(n) % 2
    halves = rows(halves_right)[None] if halves_right is not None else np.empty((0, n, 2))
    return OutOfFold(
        labels=labels,
        probabilities=rows(right)[None],
        halves=halves,
        share=0.9,
        half_share=0.5,
        scheme=Scheme(repeats=1, halves=0 if halves_right is None else 1),
        stratified=False,
    )


def test_wrong_answers_fall_as_a_power_of_the_labels(monkeypatch):
    monkeypatch.setattr(module, "ERROR", 0.0)  # the slope of this draw counts as exact
    out = predicted(150, 120)
    found = estimate(out)
    slope, error = learning_slope(found, out)
    assert slope == pytest.approx(math.log(0.4 / 0.25) / math.log(0.9 / 0.5))
    assert error == 0
    twice, four = forecast(found, out)
    assert (twice.labels, four.labels) == (400, 800)
    assert 1 - twice.accuracy == pytest.approx((1 - found.accuracy) * 2**-slope)
    assert 1 - four.accuracy == pytest.approx((1 - found.accuracy) * 4**-slope)
    # With the slope known, only the present accuracy is uncertain.
    assert 1 - four.low == pytest.approx((1 - found.low) * 4**-slope)
    assert 1 - four.high == pytest.approx((1 - found.high) * 4**-slope)


def test_a_doubtful_slope_is_drawn_to_the_usual_one_and_widens_the_interval(monkeypatch):
    out = predicted(150, 120)
    found = estimate(out)
    own = math.log(0.4 / 0.25) / math.log(0.9 / 0.5)
    slope, error = learning_slope(found, out)
    assert min(own, module.SLOPE) < slope < max(own, module.SLOPE)
    assert 0 < error < module.SPREAD
    wide = forecast(found, out)[1]
    monkeypatch.setattr(module, "SPREAD", 1e-9)
    narrow = forecast(found, out)[1]
    assert wide.high - wide.low > narrow.high - narrow.low


def test_forecasts_lie_inside_their_intervals_even_at_the_ends():
    for right, half in ((200, 200), (200, 190), (100, 100), (0, 0)):
        out = predicted(right, half)
        for row in forecast(estimate(out), out):
            assert 0 <= row.low <= row.accuracy <= row.high <= 1


def test_there_is_no_forecast_without_fits_on_half_the_labels():
    out = predicted(150, None)
    assert forecast(estimate(out), out) == []


def test_there_is_no_forecast_for_a_model_that_is_no_better_than_guessing():
    out = predicted(102, 90)
    assert estimate(out).guessing and forecast(estimate(out), out) == []


def test_a_measured_loss_is_no_reason_to_expect_less_of_more_labels():
    out = predicted(150, 190)
    assert learning_slope(estimate(out), out)[0] == 0


def test_there_is_no_forecast_without_an_estimate():
    out = predicted(150, 120)
    assert forecast(estimate(out, origins=["chosen"] * 200), out) == []
    few = estimate(out, origins=["random"] * 19 + ["chosen"] * 181)
    assert few.n == 19 and forecast(few, out) == []
