"""The number format of a training is chosen once on a machine, and then remembered."""

from dataclasses import replace

import pytest

from handful.data.cache import cache_folder
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.training import precision
from handful.training.plan import measure_plan
from tiny import SCHEDULE, task

FASTER_BF16, FASTER_FP32 = [0.4, 0.1, 0.4, 0.1], [0.1, 0.4, 0.1, 0.4]


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("handful.devices.has_bf16", lambda: True)


@pytest.fixture
def plan(monkeypatch):
    """A function that measures a plan with given timings of fp32, bf16, fp32, ..."""

    def measured(timings, of=None, schedule=SCHEDULE, method=None):
        left = list(timings)
        monkeypatch.setattr("handful.training.plan.time_step", lambda *_: left.pop(0))
        return measure_plan(method or Supervised(), of or task(), schedule, 0)

    return measured


@pytest.mark.parametrize(
    ("first", "later", "chosen"), [(FASTER_BF16, 0.9, "bf16"), (FASTER_FP32, 0.05, "fp32")]
)
def test_a_second_plan_takes_the_format_of_the_first_whatever_the_machine_does(
    plan, first, later, chosen
):
    assert plan(first).precision == chosen
    again = plan([later, later])  # only the format that was chosen is timed
    assert (again.precision, again.seconds_per_step) == (chosen, later)


def test_another_network_size_batch_or_method_is_another_choice(plan, monkeypatch):
    assert plan(FASTER_BF16).precision == "bf16"
    other = replace(task(), backbone=BackboneSpec("small", {"base": 4}))
    assert plan(FASTER_FP32, of=other).precision == "fp32"
    assert plan(FASTER_FP32, of=replace(task(), size=12)).precision == "fp32"
    assert plan(FASTER_FP32, schedule=replace(SCHEDULE, batch=4)).precision == "fp32"
    monkeypatch.setattr("handful.devices.processor", lambda: "another")
    assert plan(FASTER_FP32).precision == "fp32"


def test_a_format_that_was_asked_for_is_neither_timed_against_others_nor_remembered(monkeypatch):
    monkeypatch.setattr("handful.training.plan.time_step", lambda *_: 0.5)
    assert measure_plan(Supervised(), task(), SCHEDULE, 0, "fp32").precision == "fp32"
    assert not (cache_folder() / "precisions").exists()


@pytest.mark.parametrize(
    "damage", [b"", b"[]", b'{"precision": "fp8"}', b'{"precision": 3}', b"\xff"]
)
def test_a_damaged_memory_is_measured_and_written_again(plan, damage):
    plan(FASTER_BF16)
    (path,) = (cache_folder() / "precisions").glob("*.json")
    path.write_bytes(damage)
    assert plan(FASTER_FP32).precision == "fp32"
    assert plan([9.0, 9.0]).precision == "fp32"


def test_the_choice_of_a_process_that_was_first_holds(plan, monkeypatch):
    plan(FASTER_BF16)
    kind = precision.kind_of(Supervised(), task(), SCHEDULE)
    assert precision.remember(kind, "fp32") == "bf16"
    # It comes in while this process measures: what this one found does not count.
    found = iter([None, "bf16"])
    monkeypatch.setattr(precision, "remembered", lambda kind: next(found))
    monkeypatch.setattr("handful.training.plan.remembered", precision.remembered)
    assert plan(FASTER_FP32).precision == "bf16"


def test_a_cache_that_cannot_be_written_is_no_error(plan, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "file" / "cache"))
    assert plan(FASTER_BF16).precision == "bf16"
    assert plan(FASTER_FP32).precision == "fp32"


def test_clearing_the_cache_keeps_the_choice(plan, handful):
    plan(FASTER_BF16)
    assert handful("cache", "clear", "--all")[0] == 0
    assert plan([9.0, 9.0]).precision == "bf16"
