"""Self-supervised pre-training: folder, resuming, use in a fit, figures and messages."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import handful
import handful.training.trainer
from handful import methods
from handful.data.cache import cache_folder
from handful.evaluation.representation import (
    Health,
    alignment,
    collapse,
    effective_rank,
    representation,
    spread,
    uniformity,
)
from handful.files import read_json
from handful.methods.cmc import CMC
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.self_training import SelfTraining
from handful.methods.simclr import SimCLR
from handful.methods.supervised import Supervised
from handful.pipeline.earlier_run import earlier_settings
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrain import (
    cached_pretraining,
    deadline_with_reserve,
    pretrain,
    pretraining_fingerprint,
)
from handful.pipeline.pretrained import open_pretrained
from handful.pipeline.run import open_run
from handful.pipeline.setup import prepare
from handful.pipeline.thumbnails import load_pictures
from handful.progress import Reporter
from handful.report import render, write_report
from handful.training.failure import recorded_failures
from handful.training.time_budget import Cost, Deadline
from tiny import stripes, task

PRETRAINED = "<summary>Self-supervised pre-training</summary>"  # a section of the report
QUICK = {"steps": "4", "batch": "8", "looks": "2", "backbone.base": "8"}
COLOR = {key: QUICK[key] for key in ("steps", "batch", "looks")} | {"negatives": "8"}


def run_pretraining(images, out, method="simclr", settings=QUICK, pictures=False, **options):
    settings = settings | ({"decoder_width": "16"} if method == "autoencoder" else {})
    options |= {"precision": "fp32", "pictures": pictures}
    return pretrain(images, method, out=out, settings=settings, **options)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.thorough
def test_a_pretraining_leaves_weights_a_record_a_history_and_pictures(tmp_path):
    pretrained = run_pretraining(stripes(), tmp_path / "pre", pictures=True)
    names = {path.name for path in pretrained.folder.iterdir()}
    assert names == {"pretrained.json", "backbone.safetensors", "history.jsonl", "pictures"}
    pictures = {path.name for path in (pretrained.folder / "pictures").iterdir()}
    assert pictures == {"views.png", "curves.png", "map.png"}
    lines = [
        json.loads(line) for line in (pretrained.folder / "history.jsonl").read_text().splitlines()
    ]
    assert [line["step"] for line in lines] == [0, 2, 4]
    figures = {"spread", "alignment", "uniformity", "rank", "knn_accuracy"}
    assert all(figures <= line.keys() for line in lines)
    assert same(open_pretrained(pretrained.folder).init.weights, pretrained.init.weights)


@pytest.mark.thorough
def test_an_autoencoder_shows_what_it_paints_and_cmc_the_channels(tmp_path):
    run_pretraining(stripes(), tmp_path / "a", "autoencoder", pictures=True)
    painted = {path.name for path in (tmp_path / "a" / "pictures").glob("painted-*")}
    assert painted == {f"painted-{step:06}.png" for step in (0, 2, 4)}
    run_pretraining(stripes(channels=3, size=16), tmp_path / "c", "cmc", COLOR, pictures=True)
    assert (tmp_path / "c" / "pictures" / "channels.png").exists()


def test_a_source_without_a_label_will_do(tmp_path):
    images = replace(stripes(labeled=0), classes=())
    pretrained = run_pretraining(images, tmp_path / "pre")
    assert "knn_accuracy" not in pretrained.record["health"]


@pytest.mark.thorough
def test_other_labels_leave_the_same_weights_and_the_same_key(tmp_path):
    few, many = stripes(labeled=4), stripes(labeled=30)
    a, b = run_pretraining(few, tmp_path / "a"), run_pretraining(many, tmp_path / "b")
    assert same(a.init.weights, b.init.weights)
    assert a.record["fingerprint"] == b.record["fingerprint"]


def test_the_key_is_of_images_settings_and_seed_and_not_of_what_follows():
    def key(images=None, **fields):
        chosen, on = prepare(stripes() if images is None else images, SimCLR(**fields))
        return pretraining_fingerprint(chosen, on)

    assert key() == key(then="mlp_head")
    timed = pretraining_fingerprint(*prepare(stripes(), SimCLR()), Deadline(60.0, 0.0))
    other = pretraining_fingerprint(
        *prepare(stripes(), SimCLR(then="supervised")), Deadline(60.0, 9.0)
    )
    assert len({key(), timed, other}) == 3  # what follows shares the time
    assert len({key(), key(seed=1), key(temperature=0.1), key(stripes(seed=1))}) == 4


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["simclr", "cmc"])
def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch, method):
    """The memory bank of CMC is restored too."""
    images = stripes(channels=3, size=16)
    settings = COLOR if method == "cmc" else QUICK
    straight = run_pretraining(images, tmp_path / "straight", method, settings)
    monkeypatch.setattr("handful.training.history.SAVE_EVERY", 0)
    kind = methods.METHODS[method]
    loss = kind.loss

    def stopping(self, model, batch):
        if batch.step == 3:
            raise KeyboardInterrupt
        return loss(self, model, batch)

    (tmp_path / "resumed" / "checkpoint").mkdir(parents=True)
    plan = {"precision": "fp32", "threads": 1, "seconds_per_step": 0.01}
    (tmp_path / "resumed" / "checkpoint" / "plan.json").write_text(json.dumps(plan))
    fingerprint = read_json(tmp_path / "straight" / "pretrained.json")["fingerprint"]
    (tmp_path / "resumed" / "checkpoint" / "fingerprint.json").write_text(json.dumps(fingerprint))
    monkeypatch.setattr(kind, "loss", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_pretraining(images, tmp_path / "resumed", method, settings)
    with pytest.raises(ValueError, match="holds an unfinished pre-training"):
        open_pretrained(tmp_path / "resumed")
    monkeypatch.setattr(kind, "loss", loss)
    resumed = run_pretraining(images, tmp_path / "resumed", method, settings)
    assert same(straight.init.weights, resumed.init.weights)


def test_another_pretraining_is_refused_in_the_same_folder(tmp_path):
    run_pretraining(stripes(), tmp_path / "pre")
    said = []
    run_pretraining(stripes(), tmp_path / "pre", say=said.append)
    assert said == [f"{tmp_path / 'pre'} already holds this, finished"]
    with pytest.raises(ValueError, match="made with other images, labels, settings, time or seed"):
        run_pretraining(stripes(), tmp_path / "pre", seed=1)
    run_pretraining(stripes(), tmp_path / "pre", seed=1, overwrite=True)


TIMED = {key: QUICK[key] for key in ("batch", "looks", "backbone.base")}


@pytest.fixture
def five_seconds_a_step(monkeypatch, steady, clock):
    monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 5.0)
    monkeypatch.setattr(
        "handful.training.time_budget.measured", lambda *_: Cost(0.0, 5.0, 0.0, 0.0)
    )


def test_a_budget_buys_steps_and_is_in_the_record(tmp_path, five_seconds_a_step):
    said = []
    pretrained = run_pretraining(
        stripes(), tmp_path / "pre", settings=TIMED, budget=60.0, say=said.append
    )
    steps = pretrained.record["schedule"]["steps"]
    assert steps == 12
    assert pretrained.record["training"]["steps"] == steps
    assert pretrained.record["training"]["budget"] == 60.0
    assert pretrained.record["training"]["turns"] == []
    assert f"{steps} steps, about " in said[0]


@pytest.mark.thorough
def test_pictures_are_paid_for_before_steps(tmp_path, monkeypatch, steady, clock):
    def steps(out, pictures):
        pretrained = run_pretraining(stripes(), out, settings=TIMED, budget=20.0, pictures=pictures)
        return pretrained.record["schedule"]["steps"]

    def drawn(*_):
        clock.now += 3.0

    monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 1.0)
    monkeypatch.setattr("handful.pipeline.pretrain.PretrainPlots.after_training", drawn)
    # 3 s are 3 steps in the measurement and 3 after the training
    assert steps(tmp_path / "a", False) - steps(tmp_path / "b", True) == 6


def test_a_budget_is_part_of_what_distinguishes_pretrainings(tmp_path, five_seconds_a_step):
    run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=20.0)
    with pytest.raises(ValueError, match="made with other images, labels, settings, time or seed"):
        run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=21.0)
    said = []
    run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=20.0, say=said.append)
    assert said == [f"{tmp_path / 'pre'} already holds this, finished"]


def test_an_interrupted_pretraining_goes_on_with_its_planned_steps(tmp_path, monkeypatch):
    def pretrained(bought):
        monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 1.0)
        monkeypatch.setattr(
            "handful.pipeline.pretrain.bought",
            lambda planned, *_, **__: replace(planned, steps=bought),
        )
        return run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=60.0)

    loss = SimCLR.loss

    def stopping(self, model, batch):
        if batch.schedule_progress.last == 5 and batch.step == 3:
            raise KeyboardInterrupt
        return loss(self, model, batch)

    monkeypatch.setattr(SimCLR, "loss", stopping)
    monkeypatch.setattr("handful.training.history.SAVE_EVERY", 0)
    with pytest.raises(KeyboardInterrupt):
        pretrained(5)
    assert (tmp_path / "pre" / "checkpoint" / "checkpoint.safetensors").exists()
    monkeypatch.setattr(SimCLR, "loss", loss)
    assert pretrained(9).record["training"]["steps"] == 5


def test_impossible_budgets_of_a_pretraining_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="budget fixes the steps, and steps=4 is set too"):
        run_pretraining(stripes(), tmp_path / "pre", budget=60.0)
    with pytest.raises(ValueError, match="above 0, got 0"):
        run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=0)
    monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 100.0)
    with pytest.raises(ValueError, match="one step and its overhead .*; give a larger"):
        run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=20.0)


@pytest.mark.thorough
def test_a_fit_shares_its_budget_between_the_pretraining_and_what_follows(five_seconds_a_step):
    def fit(then, features):
        images = stripes(seed=12)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("handful.pipeline.pretrain.embedding_seconds", lambda *_: features)
            run = handful.fit(
                images,
                "simclr",
                settings=TIMED | {"then": then},
                budget=60.0,
                estimate="none",
                precision="fp32",
            )
        return run.record

    before_heads = fit("features", 20.0)
    assert before_heads["stage"]["steps"] == (60 - 20) / 5
    assert before_heads["schedule"]["steps"] == before_heads["stage"]["steps"]
    before_training = fit("supervised", 20.0)
    assert before_training["stage"]["steps"] == 0.75 * 60 / 5
    assert fit("features", 0.0)["stage"] == before_heads["stage"]  # known by now


def test_the_method_after_a_pretraining_trains_as_long_where_the_pretraining_is_known(
    monkeypatch, five_seconds_a_step
):
    left = []

    def affordable(chosen, task, seed, planned, seconds, *_):
        left.append(seconds)
        return replace(planned, steps=2)

    monkeypatch.setattr("handful.pipeline.fit.affordable", affordable)
    settings = TIMED | {"then": "supervised"}
    for draw in range(2):
        images = stripes(seed=13, labeled=16 + draw)
        handful.fit(images, "simclr", settings=settings, budget=40.0, seed=draw, estimate="none")
    assert left == [10, 10]


def test_a_budget_too_short_for_what_follows_says_what_all_of_it_needs(
    monkeypatch, five_seconds_a_step
):
    monkeypatch.setattr("handful.pipeline.pretrain.embedding_seconds", lambda *_: 50.0)
    with pytest.raises(ValueError, match=r"leaves (2\d|30) s .* overhead take about 5\d s"):
        handful.fit(stripes(seed=15), "simclr", settings=TIMED, budget=30.0, estimate="none")


def test_more_labels_find_the_pretraining_that_a_budget_made(five_seconds_a_step):
    said = []
    options = {"estimate": "none", "precision": "fp32", "reporter": Reporter(say=said.append)}
    images = stripes(seed=14)
    first = handful.fit(images, "simclr", settings=TIMED, budget=30.0, **options)
    repeated = earlier_settings(first)
    assert repeated["budget"] == 30.0
    handful.fit(images.seen(np.arange(20)), **repeated, **options)
    assert said.count("the backbone that simclr made of these images is known") == 1


def test_heads_are_timed_before_the_pretraining_as_often_as_they_will_be_fitted(monkeypatch, clock):
    chosen, on = prepare(
        stripes(), SimCLR(then="self_training"), inputs=InputSpec(precision="fp32")
    )
    monkeypatch.setattr("handful.pipeline.pretrain.embedding_seconds", lambda *_: 7.0)
    fit = SelfTraining.fit_features
    shapes, slow_ones = [], {5}

    def slow(self, known, labels, pool, classes, seed):
        shapes.append((len(known), len(pool)))
        clock.now += 1.0 if len(shapes) in slow_ones else 0.15
        return fit(self, known, labels, pool, classes, seed)

    monkeypatch.setattr(SelfTraining, "fit_features", slow)
    found = deadline_with_reserve(chosen, on, 0, Deadline(100.0, time.perf_counter()), 10, False)
    assert shapes == 5 * [(16, 24)]
    assert found.reserved == pytest.approx(7 + 10 * 0.15)  # a slow one among them does not count
    assert found.left == pytest.approx(100 - found.reserved, abs=5)
    shapes.clear()
    slow_ones.add(1)
    found = deadline_with_reserve(chosen, on, 0, Deadline(100.0, time.perf_counter()), 10, False)
    assert len(shapes) == 1  # where they are slow one has to do
    assert found.reserved == pytest.approx(7 + 10 * 1.0)


@pytest.mark.thorough
def test_a_known_pretraining_has_nothing_timed_for_it(monkeypatch, five_seconds_a_step):
    settings = TIMED | {"seed": "5"}
    handful.fit(stripes(), "simclr", settings=settings, budget=30.0, estimate="none")
    monkeypatch.setattr(
        "handful.pipeline.fit.deadline_with_reserve", lambda *_: pytest.fail("timed for nothing")
    )
    handful.fit(stripes(), "simclr", settings=settings, budget=30.0, estimate="none", seed=1)


def test_a_budget_that_was_too_short_leaves_the_folder_for_another(
    tmp_path, monkeypatch, steady, clock
):
    monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 100.0)
    with pytest.raises(ValueError, match="give a larger --budget"):
        run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=20.0)
    monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 5.0)
    run_pretraining(stripes(), tmp_path / "pre", settings=TIMED, budget=30.0)


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["simclr", "auto"])
def test_a_fit_whose_budget_was_too_short_leaves_its_folder_for_another(
    tmp_path, monkeypatch, method
):
    monkeypatch.setattr("handful.pipeline.pretrain.step_seconds", lambda *_: 100.0)
    options = {"settings": TIMED, "estimate": "none"} if method == "simclr" else {}
    with pytest.raises(ValueError, match="give a larger"):
        handful.fit(
            stripes(seed=31), method, budget=0.01, out=tmp_path / "run", pictures=False, **options
        )
    assert not list((tmp_path / "run").rglob("[!.]*"))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("propogation", "no method 'propogation'. Did you mean 'propagation'"),
        (
            "vicreg",
            "then=vicreg learns without labels, as simclr does; the method that follows",
        ),
        ("fine_tuning", "fine_tuning starts from learned weights, and backbone 'small' has none"),
    ],
)
def test_the_method_after_a_pretraining_is_checked_before_it(tmp_path, monkeypatch, then, message):
    monkeypatch.setattr(
        "handful.pipeline.fit.after_pretraining", lambda *_: pytest.fail("trained for nothing")
    )
    with pytest.raises(ValueError) as refused:
        handful.fit(stripes(), "simclr", settings=QUICK | {"then": then}, out=tmp_path / "run")
    assert str(refused.value).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
def test_a_damaged_pretraining_in_the_cache_is_made_again():
    said = []
    options = {"settings": QUICK, "estimate": "none", "precision": "fp32"}
    first = handful.fit(stripes(seed=32), "simclr", **options)
    for weights in (cache_folder() / "pretrained").glob("*/backbone.safetensors"):
        weights.write_bytes(b"damaged")
    again = handful.fit(stripes(seed=32), "simclr", reporter=Reporter(say=said.append), **options)
    assert not [text for text in said if "is known" in text]
    assert again.record["backbone"]["weights"] == first.record["backbone"]["weights"]


def test_a_full_disk_is_said_as_such(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("handful.pipeline.pretrain.train_and_write", full)
    with pytest.raises(ValueError, match="No space left on device; free some space or set HANDFUL"):
        handful.fit(stripes(seed=33), "simclr", settings=QUICK, estimate="none")


@pytest.mark.thorough
def test_a_budget_is_the_same_as_a_whole_number_and_as_a_fraction(five_seconds_a_step):
    said = []
    options = {"settings": TIMED | {"then": "supervised"}, "estimate": "none", "precision": "fp32"}
    options["reporter"] = Reporter(say=said.append)
    for budget in (40, 40.0):
        handful.fit(stripes(seed=34), "simclr", budget=budget, **options)
    assert said.count("the backbone that simclr made of these images is known") == 1


def test_methods_that_learn_from_labels_cannot_pre_train(tmp_path):
    with pytest.raises(ValueError, match="supervised learns from labels; pretrain takes"):
        run_pretraining(stripes(), tmp_path / "pre", "supervised")


@pytest.fixture(scope="module")
def pre(tmp_path_factory):
    return run_pretraining(stripes(), tmp_path_factory.mktemp("pre") / "pre")


@pytest.mark.thorough
@pytest.mark.parametrize("method", ["features", "mlp_head", "supervised"])
def test_a_fit_starts_from_a_pretraining_and_its_folder_is_enough_to_predict(pre, tmp_path, method):
    settings = {"steps": "2"} if method == "supervised" else {}
    run = handful.fit(
        stripes(), method, init=pre.folder, settings=settings, precision="fp32", out=tmp_path / "r"
    )
    assert run.record["init"] == pre.init.hash
    assert "learned without labels before, also from held-out images" in run.estimate["how"]
    weights = run.predictor.model.backbone.state_dict()
    assert same(weights, pre.init.weights) == (method != "supervised")
    opened = open_run(tmp_path / "r").predict(stripes()).probabilities
    assert torch.equal(opened, run.predict(stripes()).probabilities)


@pytest.mark.parametrize("method", ["features", "supervised"])
def test_continuing_a_fit_from_a_pretraining_needs_its_folder_again(pre, tmp_path, method):
    settings = {"steps": "2"} if method == "supervised" else {}
    out = tmp_path / "run"
    options = {"estimate": "none", "precision": "fp32", "init": pre.folder}
    run = handful.fit(stripes(), method, settings=settings, out=out, **options)
    with pytest.raises(ValueError) as refused:
        earlier_settings(run)
    assert str(refused.value) == (
        f"{out} started from a pre-trained backbone; give its folder again, with "
        f"--init, or another --method"
    )
    repeated = earlier_settings(run, init=pre.folder)
    assert not [name for name in repeated["settings"] if name.startswith("backbone.")]
    again = handful.fit(stripes(labeled=20), **repeated, **options)
    assert again.record["method"] == run.record["method"]
    assert again.record["schedule"] == run.record["schedule"]
    assert again.record["init"] == pre.init.hash


def test_images_are_normalised_as_the_pretraining_did_it(pre):
    brighter = stripes(seed=5)
    run = handful.fit(brighter, "features", init=pre.folder, estimate="none")
    mean = run.predictor.model.normalize.mean.flatten().tolist()
    assert mean == pytest.approx(pre.record["normalize"]["mean"])


def test_fine_tuning_lowers_the_rate_of_the_backbone(pre):
    chosen, _ = prepare(stripes(), "supervised", init=pre.folder)
    assert chosen.schedule.backbone_rate == 0.1
    assert prepare(stripes(), "supervised")[0].schedule.backbone_rate == 1.0


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"method": "simclr"},
            "holds a pre-trained backbone, and method 'simclr' asks for another",
        ),
        ({"backbone": "cnn"}, "holds a pre-trained backbone, and backbone 'cnn' asks for another"),
        ({"inputs": InputSpec(16)}, "learned from images of 8 pixels, got size=16"),
        ({"images": stripes(channels=3)}, "learned from grey images"),
    ],
)
def test_what_does_not_go_with_a_pretraining_is_named(pre, options, message):
    options = {"images": stripes(), "method": "features", "init": pre.folder} | options
    with pytest.raises(ValueError, match=message):
        prepare(options.pop("images"), options.pop("method"), **options)


def test_a_damaged_pretraining_is_noticed(pre, tmp_path):
    record = read_json(pre.folder / "pretrained.json")
    (tmp_path / "pretrained.json").write_text(json.dumps(record | {"hash": "sha256:other"}))
    weights = (pre.folder / "backbone.safetensors").read_bytes()
    (tmp_path / "backbone.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="is not the file that pretrained.json was written for"):
        open_pretrained(tmp_path)
    with pytest.raises(ValueError, match="was not left by `handful pretrain`"):
        open_pretrained(tmp_path / "nothing")


def test_constants_of_other_images_are_noticed_as_weights_are(pre, tmp_path):
    record = read_json(pre.folder / "pretrained.json")
    normalize = record["normalize"] | {"std": [2 * value for value in record["normalize"]["std"]]}
    changed = json.dumps(record | {"normalize": normalize})
    (tmp_path / "pretrained.json").write_text(changed)
    weights = (pre.folder / "backbone.safetensors").read_bytes()
    (tmp_path / "backbone.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="is not the file that pretrained.json was written for"):
        open_pretrained(tmp_path)


@pytest.mark.thorough
def test_a_fit_pretrains_once_and_then_trains(tmp_path):
    said = []
    reporter = Reporter(say=said.append)
    options = {"settings": QUICK, "precision": "fp32", "reporter": reporter}
    first = handful.fit(stripes(seed=9, labeled=16), "simclr", **options, out=tmp_path / "run")
    again = handful.fit(stripes(seed=9, labeled=20), "simclr", seed=1, **options)
    known = "the backbone that simclr made of these images is known"
    assert said.count(known) == 1
    assert first.record["init"] == again.record["init"]
    assert first.record["method"]["name"] == "simclr"
    assert first.record["schedule"]["steps"] == first.record["stage"]["steps"] == 4
    assert open_run(tmp_path / "run").predict(stripes()).probabilities.shape == (40, 2)


@pytest.mark.thorough
@pytest.mark.parametrize("given", [{"settings": QUICK}, {"settings": TIMED, "budget": 20.0}])
def test_private_photos_leave_no_picture_in_the_cache(
    given, tmp_path, monkeypatch, five_seconds_a_step
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    for pictures, count in ((False, 0), (True, 1)):
        handful.fit(
            stripes(seed=pictures), "simclr", precision="fp32", estimate="none",
            out=tmp_path / f"run-{pictures}", pictures=pictures, **given,
        )  # fmt: skip
        assert len(list(tmp_path.rglob("views.png"))) == count


def test_a_method_after_a_pretraining_says_that_it_has_no_unlabelled_image_to_learn_from():
    said = []
    run = handful.fit(
        stripes(16, labeled=16), "simclr", settings=QUICK | {"then": "self_training"},
        precision="fp32", estimate="none", reporter=Reporter(say=said.append),
    )  # fmt: skip
    text = "every image has a label, so self_training has no unlabelled image to learn from"
    assert run.record["training"]["remark"] == text
    assert said.count(text) == 1


@pytest.mark.thorough
def test_pictures_that_an_earlier_run_left_go_where_none_are_wanted(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    options = {"settings": QUICK | {"then": "features"}, "precision": "fp32", "estimate": "none"}
    handful.fit(stripes(), "simclr", **options)
    pretrained = run_pretraining(stripes(), tmp_path / "pre", pictures=True)
    assert len(list(tmp_path.rglob("views.png"))) == 2
    handful.fit(stripes(), "simclr", **options, pictures=False)
    run_pretraining(stripes(), tmp_path / "pre")
    assert not list(tmp_path.rglob("*.png"))
    assert pretrained.record == run_pretraining(stripes(), tmp_path / "pre").record


def test_a_pretraining_whose_pictures_are_damaged_or_gone_costs_no_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    options = {"settings": QUICK, "precision": "fp32", "estimate": "none"}
    handful.fit(stripes(), "simclr", **options)
    (picture,) = tmp_path.rglob("views.png")
    picture.write_bytes(b"no picture")
    (history,) = tmp_path.glob("pretrained/*/history.jsonl")
    history.unlink()
    run = handful.fit(stripes(), "simclr", **options, out=tmp_path / "run")
    assert run.record["stage"]["steps"] == 4
    assert load_pictures(tmp_path / "run").stage == ()
    assert not (tmp_path / "run" / "stage-history.jsonl").exists()


@pytest.mark.thorough
def test_the_report_tells_the_pretraining_from_the_training_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(Supervised, "schedule", lambda self, on: Schedule(steps=6, batch=8))

    def facts(then, out):
        settings = QUICK | {"then": then}
        options = {"precision": "fp32", "estimate": "none", "out": out}
        handful.fit(stripes(), "simclr", settings=settings, **options)
        write_report([out], out / "report.html")
        page = (out / "report.html").read_text()
        return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))

    trained = facts("supervised", tmp_path / "a")
    run_pretraining = "Self-supervised pre-training 4 steps of 8 images, adam, peak rate 0.001; "
    assert run_pretraining in trained and " Training 6 steps; " in trained
    fitted = facts("features", tmp_path / "b")
    assert run_pretraining in fitted and " Training " not in fitted.split(run_pretraining)[1]


@pytest.mark.thorough
def test_cmc_leaves_the_features_of_both_encoders(tmp_path):
    images = stripes(channels=3, size=16)
    run = handful.fit(
        images, "cmc", settings=COLOR | {"then": "mlp_head"}, estimate="none", out=tmp_path / "run"
    )
    backbone = run.predictor.model.backbone
    assert backbone.width == 2 * backbone.light.width == 48
    assert run.record["backbone"]["name"] == "small-encoder"
    opened = open_run(tmp_path / "run").predict(images).probabilities
    assert torch.equal(opened, run.predict(images).probabilities)


def test_the_pretraining_of_a_fit_sees_no_label(monkeypatch):
    chosen, on = prepare(
        stripes(seed=11), SimCLR(), settings=QUICK, inputs=InputSpec(precision="fp32")
    )
    seen = []
    monkeypatch.setattr(
        "handful.pipeline.pretrain.Health",
        lambda task, *rest: seen.append(task.labels) or Health(task, *rest),
    )
    cached_pretraining(chosen, on)
    assert (seen[0] == -1).all()


def test_spread_is_0_for_one_point_and_1_for_an_even_cloud():
    assert spread(torch.ones(5, 4)) == 0
    cloud = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    assert spread(cloud) == pytest.approx(1, abs=0.02)


def test_alignment_and_uniformity_by_hand():
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[0.0, 3.0], [0.0, 1.0]])
    assert alignment(a, b) == pytest.approx(1.0)  # squared distances 2 and 0
    assert uniformity(a) == pytest.approx(-4.0)  # one pair at squared distance 2
    assert uniformity(torch.ones(3, 2)) == pytest.approx(0.0)


def test_the_effective_rank_counts_directions():
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(500, 3, generator=generator) @ torch.randn(3, 20, generator=generator)
    assert 1.5 < effective_rank(flat) <= 3.001
    assert effective_rank(torch.ones(5, 4)) == 0
    assert effective_rank(torch.randn(5000, 8, generator=generator)) == pytest.approx(8, abs=0.05)


def test_collapse_is_named_once_training_has_settled():
    fine = {"step": 50, "spread": 0.5, "rank": 9.0}
    assert collapse(fine, ScheduleProgress(100)) is None
    assert "the same for every image" in collapse(fine | {"spread": 0.001}, ScheduleProgress(100))
    assert "lie on one line" in collapse(fine | {"rank": 1.1}, ScheduleProgress(100))
    assert collapse({"step": 10, "spread": 0.0, "rank": 0.0}, ScheduleProgress(100)) is None


def test_a_collapse_is_said_and_recorded(tmp_path, monkeypatch):
    def nothing(self, model, batch):
        loss = 0 * model(batch.unlabeled[0]).sum()
        return methods.base.Step(loss, {"loss": loss})

    monkeypatch.setattr(SimCLR, "loss", nothing)
    monkeypatch.setattr("handful.evaluation.representation.CONSTANT", 10.0)
    said = []
    pretrained = run_pretraining(stripes(), tmp_path / "pre", say=said.append)
    told = [text for text in said if "collapsed" in text]
    assert len(told) == 1 and "at step 2 of 4" in told[0]
    assert "at step 4 of 4" in pretrained.record["collapse"]


def test_a_collapse_of_the_pretraining_is_said_by_every_fit_and_in_its_record(monkeypatch):
    monkeypatch.setattr("handful.evaluation.representation.CONSTANT", 10.0)
    images, settings = stripes(seed=21), QUICK | {"then": "features"}
    for told in ("collapsed at step 2 of 4", "is known; the features have collapsed at step 4"):
        said = []
        options = {"estimate": "none", "precision": "fp32", "reporter": Reporter(say=said.append)}
        run = handful.fit(images, "simclr", settings=settings, **options)
        collapse = run.record["stage"]["collapse"]
        assert "the features have collapsed at step 4 of 4" in collapse
        assert recorded_failures(run.record) == f"in self-supervised pre-training {collapse}"
        assert any(told in text for text in said)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "seen"),
    [
        (
            "autoencoder",
            ["views of it", "by the network after 0 steps", "by the network after 4 steps"],
        ),
        ("cmc", ["views of it", "its channels as the two encoders see them"]),
    ],
)
def test_the_report_of_a_fit_shows_what_its_pretraining_learned_without_labels(
    tmp_path, method, seen
):
    images = stripes(channels=3, size=16, seed=22)
    settings = {"steps": "4", "batch": "8", "looks": "2", "then": "features"}
    options = {"settings": settings, "estimate": "none", "precision": "fp32"}
    handful.fit(images, method, out=tmp_path / "run", **options)
    page = render([tmp_path / "run"])
    assert PRETRAINED in page and "The loss that pre-training minimises" in page
    assert [text for text in seen if text in page] == seen
    assert page.count('class="grid" src="data:image/jpeg;base64,') == len(seen)
    known = handful.fit(images, method, out=tmp_path / "private", pictures=False, **options)
    page = render([known.folder])
    assert "The loss that pre-training minimises" in page and 'class="grid"' not in page
    plain = handful.fit(images, "supervised", settings=QUICK, estimate="none", out=tmp_path / "no")
    assert PRETRAINED not in render([plain.folder])


def test_representation_takes_bytes_and_floats_alike():
    on = task()
    model = SimCLR().build(on)
    represent = representation(model, "fp32")
    torch.testing.assert_close(represent(on.pixels), represent(on.pixels.float() / 255))


def test_the_bank_of_a_small_set_counts_its_own_images():
    chosen, on = prepare(stripes(channels=3, size=16), CMC())
    assert chosen.method.state(on)["bank"].shape == (2, 40, 128)
    assert isinstance(chosen.method.build(on), nn.Module)
    assert np.isfinite(chosen.schedule.rate(0))
