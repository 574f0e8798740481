"""Recipes: the list, running one, measured figures, and the two reproduced bugs."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest
import torch

from benchmarks.lib.measured import encoder_was_there, made_by
from handful.data.splits import holdout
from handful.errors import HandfulError
from handful.methods import METHODS
from handful.methods.base import Task, Trained, as_json, classifier
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.recipes import RECIPES, find, reproduce
from handful.pipeline.recipes.as_run import EmptyBank, NormalizedTwice
from handful.pipeline.recipes.copies import with_copies
from handful.pipeline.recipes.measured import measured
from handful.pipeline.recipes.recipe import Data, Recipe, epochs
from handful.report.seed_curves import plot_curves
from tiny import stripes, task

ROOT = Path(__file__).parents[2]
TINY = Recipe(
    "tiny",
    report="A",
    what="three steps",
    data=(Data("mnist", "stripes, 4 labels per class", per_class=4),),
    method=Supervised(augment="none"),
    minutes=0.1,
    schedule=Schedule(steps=3, batch=4, looks=3, validation=0.25),
    backbone=BackboneSpec("small", {"base": 4}),
    published=0.5,
    precision="fp32",
)


@pytest.fixture
def tiny_source(monkeypatch):
    """`RECIPES` has `tiny`, whose images are stripes; they are opened once for every call."""
    images = stripes(48, labeled=48)
    opened = replace(images, test=stripes(20, labeled=20, seed=1))
    monkeypatch.setitem(RECIPES, "tiny", TINY)
    monkeypatch.setattr("handful.pipeline.recipes.reproduce.load", lambda *args, **options: opened)
    return opened


@pytest.mark.thorough
def test_every_recipe_fits_together_before_anything_is_run():
    """Method, network and schedule are made; a step needs no data of the report's."""
    for recipe in RECIPES.values():
        if not isinstance(recipe.method, Trained):
            continue
        grey = recipe.data[0].source == "mnist"
        images = stripes(60, size=32 if not grey else 28, channels=1 if grey else 3, labeled=60)
        spec = recipe.backbone or BackboneSpec("small")
        if spec.name == "lite0":
            continue
        some = Task(images, spec, images.native_size[0], flips=not grey)
        recipe.method.views(some)
        assert isinstance(recipe.method.build(some), torch.nn.Module), recipe.name


def test_names_say_which_recipes_hold_a_bug():
    for recipe in RECIPES.values():
        known = METHODS.get(recipe.method.name)
        assert recipe.name.endswith("-as-run") == (known is not type(recipe.method)), recipe.name


def test_epochs_become_the_steps_of_a_loader_that_keeps_what_is_left_over():
    assert epochs(20, images=80, batch=20) == 80
    assert epochs(20, images=100, batch=64) == 40
    assert epochs(25, images=40_000, batch=32) == 31_250


@pytest.mark.parametrize(
    ("name", "steps", "parameters"),
    [
        ("mnist-mlp", 80, 477_898),
        ("mnist-cnn", 80, 205_130),
        ("mnist-cnn-augmented", 4_080, 205_130),
        ("cifar10-cnn", 12_500, None),
        ("cifar10-cnn-norm", 31_250, None),
        ("cifar100labels-resnet18", 1_000, None),
    ],
)
def test_the_reports_specifications_are_kept(name, steps, parameters):
    recipe = find(name)
    assert recipe.schedule.steps == steps
    if parameters:
        images = stripes(30, classes=10, size=28, labeled=30)
        model = classifier(Task(images, recipe.backbone, 28))
        assert sum(p.numel() for p in model.parameters()) == parameters


def test_each_recipe_of_the_chain_adds_one_thing_to_the_one_before():
    names = ["", "-decay", "-dropout", "-augment", "-nobias", "-norm"]
    chain = [find(f"cifar10-cnn{name}") for name in names]
    for before, after in zip(chain, chain[1:], strict=False):
        kept = [
            before.backbone == after.backbone,
            before.schedule == after.schedule,
            before.method == after.method,
        ]
        assert before.data == after.data and not all(kept), after.name
    assert chain[-1].schedule.lr == 7e-4
    assert chain[-2].backbone.options == {"dropout": 0.5, "bias": False}


def test_published_numbers_are_those_of_the_reports():
    published = {name: recipe.published for name, recipe in RECIPES.items() if recipe.published}
    assert published["mnist-mlp"] == 0.7021
    assert published["mnist-uda-deep-cnn"] == 0.97
    assert published["cifar100labels-transfer"] == 0.2982
    assert published["cifar10-cnn-norm"] == 0.7770


def test_a_typo_in_a_name_gets_a_suggestion():
    with pytest.raises(ValueError, match="no recipe 'mnist-mpl'. Did you mean 'mnist-mlp'?"):
        find("mnist-mpl")


@pytest.mark.thorough
def test_a_recipe_runs_draw_by_draw_and_what_is_finished_is_not_run_again(
    tiny_source, tmp_path, monkeypatch
):
    found = list(reproduce.reproduce(TINY, range(2), tmp_path))
    assert [x.draw for x in found] == [0, 1] and found[0].n == 20
    seen = [(tmp_path / f"draw-{k}" / "labels.csv").read_text() for k in range(2)]
    assert seen[0] != seen[1]
    assert len(seen[0].splitlines()) == 1 + 2 * 4
    monkeypatch.setattr("handful.pipeline.last_fit.train_task", None)  # a call would fail
    again = list(reproduce.reproduce(TINY, range(2), tmp_path))
    assert [x.accuracy for x in again] == [x.accuracy for x in found]


def test_the_method_never_gets_the_test_part(tiny_source):
    seen = reproduce.training_images(TINY, TINY.data[0], tiny_source, draw=0)
    assert seen.test is None and len(seen.labeled) == 8


def test_the_first_labels_are_the_same_in_every_draw(tiny_source):
    data = Data("cifar10", "first", first=10)
    some = [
        reproduce.training_images(TINY, data, tiny_source, draw).labeled.tolist() for draw in (0, 1)
    ]
    assert some[0] == some[1] == list(range(10))


def test_data_that_are_missing_are_named_with_where_to_get_and_put_them(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise HandfulError("cannot get stl10: no network")

    monkeypatch.setattr("handful.pipeline.recipes.reproduce.load", refuse)
    recipe = replace(TINY, data=(Data("stl10", "STL-10"), Data("tin10", "tin10")))
    with pytest.raises(ValueError) as error:
        reproduce.open_data(recipe, tmp_path)
    assert f"{tmp_path}/stl10_binary: stl10_binary.tar.gz (2.6 GB) from https" in str(error.value)
    assert f"{tmp_path}/tin10: ten classes of Tiny ImageNet" in str(error.value)


def test_the_first_data_at_hand_are_used(tmp_path):
    recipe = find("cifar10-cnn")
    assert reproduce.first_available(recipe, tmp_path) is None
    (tmp_path / "cifar10-jpeg").mkdir()
    assert reproduce.first_available(recipe, tmp_path).title == "CIFAR-10 (JPEG), all labels"
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert reproduce.first_available(recipe, tmp_path).title == "CIFAR-10, all labels"


@pytest.mark.thorough
def test_reproduce_prints_published_against_ours_and_leaves_curves(handful, tiny_source, tmp_path):
    out = tmp_path / "runs"
    status, printed, told = handful("reproduce", "tiny", "--draws", "2", "--out", out)
    assert status == 0
    assert "over 2 draws" in printed and "published 50.0 %" in printed
    assert "stripes, 4 labels per class" in told
    assert "validation accuracy" in (out / "curves.svg").read_text()
    assert all((out / f"draw-{draw}" / "report.html").exists() for draw in range(2))


def test_recipes_as_json_has_the_keys_that_were_promised(handful):
    status, printed, _ = handful("recipes", "--json")
    rows = json.loads(printed)["recipes"]
    assert status == 0 and [row["name"] for row in rows] == list(RECIPES)
    assert all(list(row) == ["name", "report", "published", "measured", "command"] for row in rows)
    for row in rows:
        if row["measured"] is not None:
            assert list(row["measured"]) == ["mean", "std", "n", "minutes", "on"]


@pytest.mark.thorough
def test_recipes_lists_a_command_for_each(handful, monkeypatch):
    monkeypatch.setattr("handful.cli.terminal.answer.width", 200)
    status, printed, _ = handful("recipes")
    assert status == 0
    assert all(f"handful reproduce {name} " in printed for name in RECIPES)


def test_the_measured_figures_are_those_of_the_lines():
    lines = (ROOT / "benchmarks" / "results" / "recipes.jsonl").read_text().splitlines()
    for name, found in measured().items():
        last = {x["draw"]: x for x in map(json.loads, lines) if made_by(find(name), x)}
        accuracies = [x["figures"]["test_accuracy"] for x in last.values()]
        assert found.n == len(accuracies)
        assert found.mean == pytest.approx(mean(accuracies), abs=1e-5)
        assert found.n == 1 or found.std == pytest.approx(stdev(accuracies), abs=1e-5)


def test_minutes_are_not_told_of_runs_that_found_their_encoder():
    cmc, rows = find("tin10-cmc"), find("mnist-simclr-basic-128-crop")
    assert encoder_was_there(cmc, cmc.data[0], 7.0)
    assert not encoder_was_there(cmc, cmc.data[0], 60 * cmc.minutes)
    assert not encoder_was_there(rows, rows.data[0], 7.0)  # one encoder for all draws of labels
    assert not encoder_was_there(find("tin10-supervised"), cmc.data[0], 7.0)


def test_a_line_of_settings_that_a_recipe_no_longer_has_does_not_count():
    recipe = find("mnist-uda-deep-cnn")
    settings = {
        "method": as_json(recipe.method),
        "schedule": asdict(recipe.schedule),
        "backbone": asdict(recipe.backbone) | {"parameters": 1},
    }
    line = {"name": recipe.name, "settings": settings}
    assert made_by(recipe, line)
    assert not made_by(find("mnist-uda-threshold"), line)
    for part, changed in (
        ("method", {"temperature": 1.0}),
        ("schedule", {"lr": 0.5}),
        ("backbone", {"name": "cnn"}),
    ):
        other = settings | {part: settings[part] | changed}
        assert not made_by(recipe, line | {"settings": other}), part
    older = {key: value for key, value in settings["schedule"].items() if key != "clip"}
    assert made_by(recipe, line | {"settings": settings | {"schedule": older}})
    seeded = as_json(find("tin10-cmc").method) | {"seed": 3}
    assert made_by(
        find("tin10-cmc"),
        {
            "name": "tin10-cmc",
            "settings": {"method": seeded, "schedule": None, "backbone": {"name": "small-encoder"}},
        },
    )


def test_copies_belong_to_the_group_of_their_image_and_leave_it_unchanged():
    images = stripes(12, size=28, labeled=4)
    more = with_copies(images, ("rotate", "shift"), copies=3, seed=0)
    assert len(more) == 12 + 4 * 2 * 3 and len(more.labeled) == 4 * 7
    np.testing.assert_array_equal(more.at(28)[:12], images.at(28))
    of_first = np.flatnonzero(more.groups == more.groups[0])
    assert len(of_first) == 7 and set(more.labels[of_first]) == {images.labels[0]}
    assert len(np.unique(more.at(28)[of_first].numpy(), axis=0)) == 7


def test_the_prepared_set_has_4080_images_to_train_on():
    """80 labels and ten copies of each under five augmentations; 20 are held with theirs."""
    images = stripes(120, classes=10, size=28, labeled=100)
    more = with_copies(images, reproduce.COPY_PIPELINES, copies=10, seed=0)
    labeled = more.labeled
    held = holdout(more.labels[labeled], 0.2, 0, more.groups[labeled])
    assert len(labeled) - len(held) == 4_080
    assert not set(more.groups[labeled][held]) & set(np.delete(more.groups[labeled], held))


def test_copies_of_images_of_several_sizes_are_refused():
    images = stripes()
    images.store.sizes[0] = 5
    with pytest.raises(ValueError, match="one square size"):
        with_copies(images, ("rotate",), copies=1, seed=0)


def test_the_bug_normalises_training_images_twice_and_test_images_once():
    some = task(backbone=BackboneSpec("cifar-cnn"))
    model = NormalizedTwice().build(some)
    black = torch.zeros(1, 1, 8, 8)
    assert model.train().normalize(black).unique().item() == -3
    assert model.eval().normalize(black).unique().item() == -1


def test_the_band_reaches_as_far_as_every_run_does(tmp_path):
    long = [{"step": s, "train_loss": 1.0 / (s + 1)} for s in range(5)]
    plot_curves({0: long, 1: long[:3]}, tmp_path / "curves.svg", "two runs")
    svg = (tmp_path / "curves.svg").read_text()
    assert "training loss" in svg and "validation loss" not in svg


def test_the_bug_draws_negatives_from_a_bank_that_no_image_wrote():
    some = task(stripes(20, size=16, channels=3), backbone=BackboneSpec("small-encoder"))
    method = EmptyBank(slots=50, projection=0)
    memory = method.state(some)
    assert memory["written"].all() and len(memory["written"]) == 50 > len(some.images)
    assert memory["bank"].norm(dim=2).allclose(torch.ones(()))
    model = method.build(some)
    light, _ = model.backbone.channels(torch.ones(1, 3, 16, 16))
    assert light.unique().item() == pytest.approx(100, abs=0.01)  # L as it is, up to 100


def test_where_all_labels_are_seen_a_draw_is_a_seed_of_the_encoder_too():
    stl, mnist = find("stl10-cmc"), find("mnist-simclr-basic-128-crop")
    seeds = [reproduce.method_of(r, r.data[0], 3).seed for r in (stl, mnist)]
    assert seeds == [3, 0]


def test_the_same_few_unlabeled_images_are_used_in_every_draw():
    images = stripes(40, labeled=10)
    data = Data("tin10", "some", unlabeled=12)
    some = [reproduce.training_images(TINY, data, images, draw) for draw in (0, 1)]
    assert len(some[0]) == 22 and len(some[0].labeled) == 10
    assert some[0].names == some[1].names


def test_all_twelve_rows_of_simclr_are_there():
    rows = [name for name in RECIPES if name.endswith(("-full", "-crop"))]
    assert len(rows) == 12
    assert find("mnist-simclr-resnet-256-full").schedule.steps == 1_175
