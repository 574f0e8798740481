import math

import pytest

from handful.methods.schedule import Schedule


def test_cosine_starts_at_the_peak_and_ends_at_zero():
    schedule = Schedule(steps=100, lr=0.2, decay="cosine")
    assert schedule.rate(0) == 0.2
    assert schedule.rate(50) == pytest.approx(0.1)
    assert schedule.rate(100) == pytest.approx(0, abs=1e-12)


def test_fixmatchs_cosine_ends_at_a_fifth_of_the_peak():
    schedule = Schedule(steps=100, lr=0.03, decay="cosine7/16")
    assert schedule.rate(100) == pytest.approx(0.03 * math.cos(7 * math.pi / 16))


def test_steps_drop_the_rate_at_every_multiple():
    schedule = Schedule(steps=100, lr=0.1, decay="step", decay_every=30)
    assert [schedule.rate(s) for s in (0, 29, 30, 60)] == pytest.approx([0.1, 0.1, 0.01, 0.001])


def test_linear_decays_linearly_and_constant_stays():
    assert Schedule(steps=10, lr=1.0, decay="linear").rate(5) == pytest.approx(0.5)
    assert Schedule(steps=10, lr=1.0, decay="constant").rate(9) == 1.0


def test_warmup_rises_from_above_zero_to_the_peak():
    schedule = Schedule(steps=100, lr=1.0, warmup=0.1)
    assert [schedule.rate(s) for s in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert schedule.rate(10) == pytest.approx(1.0)
    assert schedule.rate(55) == pytest.approx(0.5)


def test_evaluations_include_the_first_and_the_last_step():
    assert Schedule(steps=100, looks=4).evaluation_steps() == [0, 25, 50, 75, 100]
    assert Schedule(steps=2, looks=10).evaluation_steps() == [0, 1, 2]
    assert Schedule(steps=0).evaluation_steps() == [0]


def test_all_wrong_fields_are_reported_at_once():
    with pytest.raises(ValueError) as caught:
        Schedule(steps=-1, lr=0, decay="cosin")
    assert str(caught.value) == (
        "steps must be 0 to 100,000,000, got -1; lr must be above 0, got 0; "
        "no decay 'cosin'; choose one of cosine, cosine7/16, linear, step, constant"
    )


def test_step_decay_needs_its_interval():
    with pytest.raises(ValueError, match="decay='step' needs decay_every=STEPS"):
        Schedule(decay="step")


def test_patience_needs_validation_images():
    with pytest.raises(ValueError, match="patience=3 needs validation=SHARE"):
        Schedule(patience=3)


@pytest.mark.parametrize("scaling, expected", [("none", 0.3), ("linear", 0.15), ("sqrt", 0.2121)])
def test_the_rate_scales_with_the_batch(scaling, expected):
    schedule = Schedule(lr=0.3, batch=128, scaling=scaling, decay="constant")
    assert schedule.rate(0) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("decay", [0, 1.1, -0.5])
def test_the_decay_of_layers_lies_between_0_and_1(decay):
    with pytest.raises(ValueError, match=r"layer_decay lies in \(0, 1\], got"):
        Schedule(layer_decay=decay)
