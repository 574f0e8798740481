"""Processes that train together: the loss curve of one, checkpoints of both, and failures."""

import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import together
from handful import cores
from handful.errors import HandfulError
from handful.files import read_json, read_tensors
from handful.methods import METHODS
from handful.methods.fixmatch import FixMatch
from handful.methods.self_supervised import SelfSupervised
from handful.methods.simclr import SimCLR
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.fit import Target, run_fit
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.pretrain import pretrain
from handful.pipeline.recipes import RECIPES, find
from handful.progress import QUIET, Reporter
from handful.training import processes
from handful.training.batches import Batches
from handful.training.loop import Diverged
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.processes import check_devices, check_divisible, in_processes
from handful.training.settings import Settings
from handful.training.trainer import train_task
from lazy_imports import assert_imported_late_and_only_in
from tiny import SCHEDULE, stripes, task

SMALL = BackboneSpec("small", {"base": 8})


@pytest.fixture(scope="module")
def lightning():
    pytest.importorskip("lightning_fabric", reason="needs pip install 'handful[ddp]'")


@pytest.fixture
def two_cores(monkeypatch):
    """Tests may be bound to one core."""
    monkeypatch.setattr(cores, "_given", [2])


# --- what is refused


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_a_number_of_devices_that_is_none_is_refused(count):
    with pytest.raises(HandfulError, match="devices must be 1 or more, got"):
        check_devices(count)


def test_more_processes_than_cores_are_refused(two_cores):
    with pytest.raises(HandfulError, match=r"devices=3 is more .* \(no GPU and 2 cores\); .* 2$"):
        check_devices(3)


def test_more_devices_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("handful.devices.device", lambda: torch.device("cuda"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(HandfulError, match=r"devices=2 is more .* \(1 GPU\); choose at most 1$"):
        check_devices(2)


def test_without_lightning_fabric_the_extra_is_named(monkeypatch, two_cores):
    monkeypatch.setattr(processes, "find_spec", lambda name: None)
    with pytest.raises(HandfulError, match=r"not installed here: pip install 'handful\[ddp\]'"):
        check_devices(2)
    check_devices(1)


def test_a_batch_that_cannot_be_divided_evenly_is_refused():
    settings = Settings(SimCLR(), replace(SCHEDULE, batch=9), SMALL)
    with pytest.raises(HandfulError, match="9 images is not divisible by 2 .* batch=8 or 10, or"):
        check_divisible(settings, 2)
    with pytest.raises(HandfulError, match="choose batch=16, or another number of devices"):
        check_divisible(settings, 16)
    check_divisible(settings, 3)


def test_only_methods_that_say_so_are_divided():
    """The loss of the others compares images, draws or keeps state that a part does not have."""
    with pytest.raises(HandfulError, match="fixmatch trains on one device"):
        check_divisible(Settings(FixMatch(), SCHEDULE, SMALL), 2)
    divisible = {name for name, kind in METHODS.items() if getattr(kind, "divisible", False)}
    label_free = {name for name, kind in METHODS.items() if issubclass(kind, SelfSupervised)}
    assert divisible == label_free | {"supervised"}


def test_the_command_refuses_before_it_reads_an_image(handful, tmp_path, two_cores):
    for words, said in (
        (("pretrain", "digits", "--out", tmp_path / "a", "--devices", "0"), "must be 1 or more"),
        (("pretrain", "digits", "--out", tmp_path / "a", "--devices", "-1"), "must be 1 or more"),
        (("pretrain", "digits", "--out", tmp_path / "a", "--devices", "9"), "choose at most 2"),
        (("reproduce", "mnist-cnn", "--devices", "2"), "mnist-cnn trains on one device"),
        (("reproduce", "cifar10-fast", "--devices", "2", "--on", "ray"), "leave out devices or on"),
    ):
        status, _, err = handful(*words)
        assert status == 2 and said in err, (words, err)
    assert not any(tmp_path.iterdir())


def test_lightning_is_imported_in_one_place_and_only_when_it_is_needed():
    assert_imported_late_and_only_in("process_group.py", "lightning")


# --- parts of a batch


class Part(ProcessGroup):
    """One process of three, without the others."""

    size = 3

    def __init__(self, rank):
        self.rank = rank


@pytest.mark.parametrize("augment", ["simclr,+noise,+elastic", "strong", "digits-strong"])
def test_the_parts_of_a_batch_are_the_batch_of_one_process(augment):
    on = task(stripes(40, size=16, channels=3), flips=True)
    views = (
        Supervised(augment=augment)
        .views(on)
        ._replace(unlabeled=(augment, "weak"), unlabeled_ratio=2)
    )
    schedule = replace(SCHEDULE, batch=6)
    whole = Batches(on, views, schedule, 0)[5]
    parts = [Batches(on, views, schedule, 0, Part(rank))[5] for rank in range(3)]
    assert [len(part.images) for part in parts] == [2, 2, 2]
    for field in ("images", "labels", "ids", "unlabeled_ids"):
        joined = torch.cat([getattr(part, field) for part in parts])
        torch.testing.assert_close(joined, getattr(whole, field), rtol=0, atol=1e-6)
    for number in (0, 1):
        joined = torch.cat([part.unlabeled[number] for part in parts])
        torch.testing.assert_close(joined, whole.unlabeled[number], rtol=0, atol=1e-6)


# --- two processes


@pytest.fixture(scope="module")
def two(tmp_path_factory, lightning):
    """The folder that two processes have worked in, and what they said."""
    folder = tmp_path_factory.mktemp("two")
    together.session(ALONE, folder / "begun-alone", together.HALF)
    said = []

    def track(items, total, what):
        said.append((what, total()))
        yield from items

    in_processes(2, together.everything, folder, reporter=Reporter(track, said.append))
    return folder, said


@pytest.fixture(scope="module")
def found(two):
    return read_json(two[0] / "found.json")


# The largest difference of a step's losses, as a share of the loss: what the losses are rounded to.
# In 32 bits what is rounded grows from step to step. There one process whose batches have their
# images in another order, which is the same training, differs from itself by up to two hundredths.
EQUAL, FIRST_OF_32_BITS, OF_32_BITS = 2e-6, 1e-4, 3e-2


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(together.jobs()))
def test_two_processes_have_the_loss_curve_of_one(found, name):
    ours = np.array(found["curves"][name])
    one = np.array(together.curve(ALONE, *together.jobs()[name]))
    apart = np.abs(ours - one) / np.abs(one)
    print(name, apart.max())
    assert len(one) == together.STEPS and abs(one[-1] - one[0]) > 1e-3 * one[0]  # it learns
    if "32 bits" in name:
        assert apart[:3].max() < FIRST_OF_32_BITS and apart.max() < OF_32_BITS
    elif name == "autoencoder":  # its loss is of 32 bits
        assert apart.max() < 1e-5
    else:
        assert apart.max() < EQUAL


@pytest.mark.thorough
@pytest.mark.parametrize("begun", ["begun-alone", "begun-together"])
def test_a_checkpoint_goes_on_with_another_number_of_processes(two, tmp_path, begun):
    straight = together.session(ALONE, tmp_path)
    saved, _ = read_tensors(two[0] / begun / "checkpoint.safetensors")
    own, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    assert saved.keys() - {"sums/loss"} == own.keys()
    if begun == "begun-together":
        assert int(saved["step"]) == together.HALF
        shutil.copytree(two[0] / begun, tmp_path / "alone")
        resumed = together.session(ALONE, tmp_path / "alone")
        saved = resumed.state.tensors()
    assert int(saved["step"]) == together.STEPS
    weights = straight.state.average.model.state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(saved[f"average/{name}"], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["affine", "plain", "vectors", "bf16"])
def test_batch_norm_has_the_statistics_and_gradients_of_the_whole_batch(two, kind):
    whole = together.normed(ALONE)
    parts = [read_tensors(two[0] / f"norm-{rank}.safetensors")[0] for rank in (0, 1)]
    rough = {"rtol": 2e-2, "atol": 2e-2} if kind == "bf16" else {"rtol": 1e-9, "atol": 1e-9}
    for key in (key for key in whole if key.startswith(f"{kind}/")):
        a, b = (part[key] for part in parts)
        if key.endswith(("/mean", "/var")):
            assert torch.equal(a, b)
            joined = a
        else:  # rows of the batch, or gradients that DDP adds up
            joined = torch.cat([a, b]) if key.endswith(("/x", "/y")) else a + b
        torch.testing.assert_close(joined, whole[key], **rough)


@pytest.mark.thorough
def test_processes_drop_different_features_and_then_draw_the_same(found):
    (first, second), (a, b) = found["dropped"]
    assert first != second
    assert a == b


@pytest.mark.thorough
def test_the_process_that_leads_decides_and_reports(two, found):
    assert found["agreed"] == ["lead", None]
    assert found["tracked"] == [0, 1, 2]
    assert two[1] == ["a sentence", ("a bar", 3)]


# --- one process of one, which needs no other


def test_shared_batch_norm_of_one_process_is_batch_norm(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "meeting"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        ours = together.normed(ALONE, shared=True)
    finally:
        torch.distributed.destroy_process_group()
    for key, expected in together.normed(ALONE).items():
        rough = {"rtol": 2e-2, "atol": 2e-2} if key.startswith("bf16") else {}
        torch.testing.assert_close(ours[key], expected, **rough)


# --- what goes wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, error, said",
    [
        ("killed", HandfulError, r"one of the 2 processes .* was lost \(SIGKILL\).* goes on from"),
        ("refused", HandfulError, "^the reason$"),
        ("broken", RuntimeError, "our own fault(.|\n)*in failing"),
        ("diverged", Diverged, f"the loss became inf at step {together.HALF + 1} of"),
    ],
)
@pytest.mark.usefixtures("lightning")
def test_when_a_process_fails_the_command_ends_and_the_checkpoint_stays(tmp_path, how, error, said):
    begun = time.monotonic()
    with pytest.raises(error, match=said):
        in_processes(2, together.fails, how, tmp_path, reporter=QUIET)
    assert time.monotonic() - begun < 300  # it did not wait for a process that is gone
    resumed = together.session(ALONE, tmp_path)
    assert resumed.history.seconds > 0 and resumed.state.step == together.STEPS


@pytest.mark.slow
@pytest.mark.usefixtures("lightning", "in_the_foreground")
def test_control_c_saves_a_checkpoint_and_a_second_one_ends_at_once(tmp_path):
    def track(items, total, what):
        for number, item in enumerate(items, 1):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield item

    with pytest.raises(KeyboardInterrupt):
        in_processes(2, together.waits, tmp_path, reporter=Reporter(track))
    saved, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    assert int(saved["step"]) >= 3

    def impatient(items, total, what):
        for number, item in enumerate(items, 1):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
            yield item

    with pytest.raises(KeyboardInterrupt):
        in_processes(2, together.waits, tmp_path / "again", reporter=Reporter(impatient))
    assert not (tmp_path / "again" / "checkpoint.safetensors").exists()  # nobody waited for a save


@pytest.mark.slow
@pytest.mark.usefixtures("lightning", "two_cores")
def test_a_pretraining_of_two_processes_is_that_of_one(tmp_path):
    def run(name, devices, **options):
        settings = {"steps": "12", "batch": "8", "looks": "3", "backbone.base": "8"}
        said = []
        found = pretrain(
            stripes(),
            out=tmp_path / name,
            settings=settings,
            precision="fp32",
            devices=devices,
            say=said.append,
            **options,
        )
        return found, said

    one, _ = run("one", 1)
    two, said = run("two", 2)
    assert "12 steps of 8 images, 4 on each of 2 devices, about" in " ".join(said)
    assert len(said) == 1
    assert {
        key: two.record["training"][key] for key in ("steps", "devices", "batch_per_device")
    } == {
        "steps": 12,
        "devices": 2,
        "batch_per_device": 4,
    }
    assert one.record["training"]["devices"] == 1
    assert one.record["fingerprint"] == two.record["fingerprint"]
    names = [
        {str(path.relative_to(found.folder)) for path in found.folder.rglob("*")}
        for found in (one, two)
    ]
    assert names[0] == names[1]
    for name, weight in one.init.weights.items():
        torch.testing.assert_close(two.init.weights[name], weight, rtol=2e-2, atol=2e-3)
    again, said = run("two", 1)
    assert again.init.hash == two.init.hash and "already holds this" in said[0]


@pytest.mark.slow
@pytest.mark.usefixtures("lightning", "two_cores")
def test_a_budget_holds_for_two_processes(tmp_path):
    # On a busy machine the processes alone take half a minute to start, which the budget counts.
    found = pretrain(
        stripes(), out=tmp_path / "pre", budget=120, settings={"batch": "8"}, devices=2
    )
    training = found.record["training"]
    assert training["devices"] == 2 and training["steps"] > 0
    with pytest.raises(HandfulError, match="budget too short"):
        pretrain(stripes(), out=tmp_path / "no", budget=1, settings={"batch": "8"}, devices=2)
    assert not (tmp_path / "no").exists() or not any((tmp_path / "no").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("lightning")
def test_a_fit_of_two_processes_is_that_of_one(tmp_path):
    images = stripes(64, size=32, channels=3, labeled=64)
    method = Supervised(augment="flip-crop-cut", label_smoothing=0.2)
    schedule = replace(together.FAST, looks=2)
    runs = [
        run_fit(
            images,
            FitOptions(
                method,
                schedule=schedule,
                backbone=together.FAST_NETWORK,
                inputs=InputSpec(precision="fp32"),
                estimate="none",
                devices=devices,
            ),
            Target(tmp_path / f"{devices}"),
        )
        for devices in (1, 2)
    ]
    one, two = (run.record["training"] for run in runs)
    assert (one["devices"], one["batch_per_device"]) == (1, 16)
    assert (two["devices"], two["batch_per_device"]) == (2, 8)
    assert runs[0].record["fingerprint"] == runs[1].record["fingerprint"]
    a, b = (run.predict(images).probabilities for run in runs)
    np.testing.assert_allclose(a, b, atol=0.02)


@pytest.mark.usefixtures("lightning", "two_cores")
@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_plan_is_measured_with_what_a_device_gets(tmp_path, monkeypatch, devices):
    """A whole batch may not fit into the memory of one device, and takes longer there."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    measured = tmp_path / "measured"
    method = together.Measured(seen=str(measured), label_smoothing=0.2)
    on = replace(task(stripes(32, size=16, channels=3, labeled=32)), backbone=SMALL)
    settings = Settings(method, replace(together.FAST, steps=2), SMALL)
    learned = train_task(settings, on, 0, tmp_path, devices=devices)
    lines = set(measured.read_text().splitlines())
    assert lines == {f"{together.FAST.batch // devices} images"}
    assert learned.plan.threads == max(1, torch.get_num_threads() // devices)
    saved = [read_json(path)["kind"] for path in (tmp_path / "cache").glob("precisions/*.json")]
    assert {kind["batch"] for kind in saved} <= {together.FAST.batch // devices}


def test_cifar10_fast_is_the_recipe_of_several_devices():
    assert [name for name, recipe in RECIPES.items() if recipe.on_devices] == ["cifar10-fast"]
    recipe = find("cifar10-fast")
    check_divisible(Settings(recipe.method, recipe.schedule, recipe.backbone), 2)
