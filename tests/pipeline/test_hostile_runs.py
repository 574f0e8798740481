"""Foreign run folders: a result or a HandfulError, in bounded time and memory."""

import json
import os
import random
import resource
import shutil
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import handful
from handful.errors import HandfulError
from handful.files import read_json, read_tensors, tensor_bytes, write_json, write_tensors
from handful.pipeline.artifacts import LABELS, MODEL, RECORD
from handful.pipeline.earlier_run import earlier_settings, with_earlier_labels
from handful.pipeline.run import open_run
from handful.report import render
from handful.text import as_json_line, for_terminal
from soon import soon
from tiny import stripes

MEMORY = 1_000_000  # kilobytes over what is used before
QUICK = {"steps": "3", "backbone.base": "8"}
IMAGES = stripes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with its report."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = handful.fit(IMAGES, "supervised", settings=QUICK, precision="fp32", out=folder)
    with pytest.warns(UserWarning, match="among those the run was trained on"):
        run.score_test(IMAGES)
    return folder


def used(folder, waiting=0):
    """Do all that commands do with a run folder; return how many steps were refused."""

    def predict():
        run = open_run(folder)
        assert bool(run.predict(IMAGES[:4]).probabilities.isfinite().all())

    def follow():
        run = open_run(folder)
        with_earlier_labels(IMAGES, run)
        earlier_settings(run)

    def familiar():
        open_run(folder).predict(IMAGES[:4], none_of_these=True)

    refused = 0
    for use in (predict, follow, familiar, lambda: render([folder])):
        try:
            with soon(waiting=waiting):
                use()
        except HandfulError as error:
            assert len(str(error)) < 3_000
            refused += 1
    return refused


VALUES = [
    None, True, False, 0, -1, 1, 10**400, -(10**30), 1e308, -0.5, 2.5, "", "x", "\x1b[31m",
    "\ud800", "\u202e", "9" * 3000, [], {}, [[]], [None], {"": 0}, {"name": "small"}, [1, 2, 3],
    "timm:hf-hub:a/b", "../../etc", 40000, 2**63, "nan", [["a"]] * 3, {"a": {"b": {"c": []}}},
]  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value, as a path of keys."""
    if path:
        yield path
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield from places(value[key], (*path, key))


def mutated(text, rng):
    """Return run.json with one to three errors, as bytes."""
    found = json.loads(text)
    for _ in range(rng.randint(1, 3)):
        every = list(places(found))
        if not every:
            break
        *way, last = rng.choice(every)
        box = found
        for key in way:
            box = box[key]
        kind = rng.choice(["delete", "value", "value", "value", "again"])
        if kind == "delete":
            del box[last]
        elif kind == "value":
            box[last] = rng.choice(VALUES)
        elif isinstance(box, list):
            box.append(box[last])
        else:
            box[f"{last} "] = box[last]
    content = json.dumps(found).encode()
    match rng.randrange(14):
        case 0:
            return content[: rng.randrange(len(content))]
        case 1:
            at = rng.randrange(len(content))
            return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        case 2:
            return content.replace(b'"seed"', b'"seed": 1, "seed"', 1)
        case 3:
            return b'{"deep": ' + b"[" * 50_000 + b"]" * 50_000 + b"," + content[1:]
        case 4:
            return content.replace(
                b": 0,", rng.choice([b": NaN,", b": 1e999,", b": -Infinity,"]), 1
            )
        case 5:
            return content.decode().encode("utf-16")
        case _:
            return content


def with_header(path, change):
    """Write the weights again under a header changed by `change`."""
    tensors, metadata = read_tensors(path)
    header = json.loads(metadata["predictor"])
    metadata["predictor"] = json.dumps(change(header) or header)
    write_tensors(path, tensors, metadata)


def with_tensors(path, change):
    tensors, metadata = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, metadata)


def bytes_changed(path, rng):
    content = bytearray(path.read_bytes() if path.exists() else rng.randbytes(200))
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(min(len(content), 4000))] = rng.randrange(256)
    path.write_bytes(content[: rng.randrange(len(content))] if rng.random() < 0.3 else content)


def special(path, rng):
    """Replace the file by something that is no regular file."""
    path.unlink(missing_ok=True)
    match rng.randrange(5):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.name)  # around
        case 3:
            path.symlink_to("nowhere")
        case 4:
            pipe = path.with_name("pipe")
            os.mkfifo(pipe)
            path.symlink_to(pipe)


def nested(path, rng):
    kind = rng.choice(["[", '{"a":', "[[],"])
    path.write_text(kind * rng.choice([90, 110, 2_000, 100_000]))


def sparse(path, rng):
    """Make a sparse file as large as a disk."""
    with open(path, "r+b" if path.exists() and rng.random() < 0.5 else "wb") as file:
        file.truncate(2**38)


def header_value(path, rng):
    def change(header):
        every = list(places(header))
        *way, last = rng.choice(every)
        box = header
        for key in way:
            box = box[key]
        box[last] = rng.choice(VALUES)

    with_header(path, change)


def head_of(path, rng):
    layers = [
        ["Linear", {"in_features": 10**9, "out_features": 10**9}],
        ["Tensor", {}],
        ["ReLU", 3],
    ]
    head = [rng.choice([*layers, *VALUES]) for _ in range(3)]
    with_header(path, lambda header: header | {"head": head})


def options_of(path, rng):
    options = {"base": rng.choice([*VALUES, 65_536, 10**9]), "depth": 10**9}
    options = dict(rng.sample(sorted(options.items()), rng.randint(1, 2)))
    name = rng.choice(["small", "fast", "split", "lite0", "timm:hf-hub:a/b", "timm:resnet18"])
    with_header(path, lambda header: header | {"backbone": {"name": name, "options": options}})


def tensor_of(path, rng):
    def change(tensors):
        key = rng.choice(sorted(tensors))
        match rng.randrange(4):
            case 0:
                tensors[key] = torch.full_like(tensors[key].float(), rng.choice([np.nan, np.inf]))
            case 1:
                del tensors[key]
            case 2:
                tensors[key] = tensors[key].reshape(-1)[:1]
            case 3:
                tensors[key + "x"] = torch.zeros(2, 2)

    with_tensors(path, change)


def random_cells(path, rng):
    cells = [
        "file",
        "label",
        "origin",
        "",
        "\0",
        "é",
        "'",
        '"',
        "a" * 200_000,
        "\n",
        ",",
        "000.png",
    ]
    path.write_text("".join(rng.choice([*cells, ","]) for _ in range(rng.randint(0, 60))))


def random_json(path, rng):
    path.write_text(json.dumps(rng.choice([*VALUES, {"images": {"a": "b"}, "augmented": 3}])))


BESIDE = ["labels.csv", "label-issues.csv", "out-of-fold.csv", "label-next.csv", "history.jsonl",
          "pictures.json", "test.json", "familiar.safetensors"]  # fmt: skip


def hostile(folder, rng):
    """Make a run folder hostile."""
    name = rng.choice([RECORD, MODEL, MODEL, *BESIDE])
    path = folder / name
    every = [special, nested, sparse, bytes_changed, random_json]
    if name == MODEL:
        every += 2 * [header_value, head_of, options_of, tensor_of]
    if name.endswith(".csv"):
        every += 3 * [random_cells]
    if name == RECORD:
        path.write_bytes(mutated(path.read_text(), rng))
        every = [special, nested, sparse, bytes_changed]
        if rng.random() < 0.5:
            return
    rng.choice(every)(path, rng)


def many_hostile(whole, tmp_path, count):
    refused = 0
    for number in range(count):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        hostile(folder, random.Random(number))
        refused += used(folder) > 0
        shutil.rmtree(folder)
    return refused


def many_mutated(whole, tmp_path, count):
    folder, refused = tmp_path / "run", 0
    shutil.copytree(whole, folder)
    text = (whole / RECORD).read_text()
    for number in range(count):
        (folder / RECORD).write_bytes(mutated(text, random.Random(number)))
        refused += used(folder) > 0
    return refused


@pytest.fixture
def bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def test_a_hostile_run_folder_is_refused_or_used_never_a_fault(whole, tmp_path, bounded_memory):
    assert many_hostile(whole, tmp_path, 14) >= 7


def test_a_mutated_record_is_refused_or_used_never_a_fault(whole, tmp_path, bounded_memory):
    assert many_mutated(whole, tmp_path, 20) >= 10


@pytest.mark.slow
def test_a_thousand_hostile_run_folders(whole, tmp_path, bounded_memory):
    assert many_hostile(whole, tmp_path, 1_000) >= 500


@pytest.mark.slow
def test_a_thousand_mutated_records(whole, tmp_path, bounded_memory):
    assert many_mutated(whole, tmp_path, 1_000) >= 500


@pytest.fixture
def copy(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    return folder


def test_a_pipe_in_a_run_folder_is_refused_at_once(copy):
    (copy / RECORD).unlink()
    os.mkfifo(copy / RECORD)
    with soon(), pytest.raises(HandfulError, match="a pipe, a device or the like"):
        open_run(copy)


def test_weights_that_are_no_numbers_are_refused(copy):
    with_tensors(copy / MODEL, lambda tensors: tensors["head.bias"].fill_(float("nan")))
    with pytest.raises(HandfulError, match="not finite"):
        open_run(copy)


def test_a_header_cannot_ask_for_images_of_any_size(copy):
    with_header(copy / MODEL, lambda header: header | {"size": 40_000})
    with pytest.raises(HandfulError, match="size: Input should be less than or equal to 2048"):
        open_run(copy)


def test_a_record_and_a_model_of_other_classes_are_not_one_run(copy):
    with_header(copy / MODEL, lambda header: header | {"classes": ["b", "a"]})
    with pytest.raises(HandfulError, match="name other classes"):
        open_run(copy)


def test_a_damaged_record_names_what_is_wrong_in_it(copy):
    record = read_json(copy / RECORD)
    (copy / RECORD).write_text(json.dumps(record | {"seconds": "31"}))
    with pytest.raises(HandfulError, match="seconds: Input should be a valid number"):
        open_run(copy)


def test_a_record_with_keys_of_another_version_is_read(copy):
    record = read_json(copy / RECORD)
    del record["prior_from"], record["choice"]
    (copy / RECORD).write_text(json.dumps(record | {"later": {"x": 1}}))
    run = open_run(copy)
    assert run.record["prior_from"] == "labels" and run.record["choice"] == []
    assert run.record["later"] == {"x": 1}


def test_a_stranger_s_record_does_not_have_weights_fetched(copy):
    run = open_run(copy)
    run.record["backbone"] = {"name": "timm:resnet18", "options": {}}
    with pytest.raises(HandfulError, match="--backbone timm:resnet18"):
        earlier_settings(run)
    assert earlier_settings(run, backbone="timm:resnet18")["backbone"] == "timm:resnet18"
    run.record["backbone"] = {"name": "lite0", "options": {}}
    run.record["method"] = {"name": "fine_tuning", "embed_backbone": "lite0+timm:hf_hub:a/b"}
    with pytest.raises(HandfulError, match="used lite0.timm:hf_hub:a/b, whose weights may"):
        earlier_settings(run)
    run.record["method"] = {"name": "features"}
    run.record["fixed"] = {"settings": {"embed_backbone": "timm:resnet18"}}
    with pytest.raises(HandfulError, match="used timm:resnet18, whose weights may"):
        earlier_settings(run)


@pytest.mark.parametrize(
    "text", ["[" * 101 + "]" * 101, "NaN", "1e999", '{"a": 1, "a": 2}', "9" * 5000]
)
def test_json_that_readers_differ_on_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(HandfulError, match="is damaged"):
        read_json(tmp_path / "x.json")


def test_a_network_without_a_bias_in_its_head_is_opened_again(tmp_path):
    images = stripes(size=32, channels=3)
    settings = {"steps": "2", "backbone.bias": "false"}
    run = handful.fit(
        images, backbone="cifar-cnn", settings=settings, estimate="none", precision="fp32",
        out=tmp_path / "run",
    )  # fmt: skip
    assert run.predictor.model.head.bias is None
    again = open_run(tmp_path / "run").predict(images).probabilities
    assert torch.equal(run.predict(images).probabilities, again)


@dataclass(frozen=True)
class Own:
    """A fitted method of a user, with a head of its own."""

    kind: str = "deep"
    name: ClassVar[str] = "own"
    limit: ClassVar[int] = 0

    def fit_features(self, labeled, labels, unlabeled, num_classes, seed):
        if self.kind == "strange":
            return Strange(labeled.shape[1], num_classes)
        norm = nn.LayerNorm(labeled.shape[1])
        first = nn.Linear(labeled.shape[1], 5, bias=False)
        layers = nn.Sequential(norm, first, nn.GELU(), nn.Linear(5, num_classes))
        return layers.requires_grad_(False).eval()


class Strange(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.layer(x).square()


@pytest.mark.thorough
def test_a_head_of_other_layers_is_opened_again(tmp_path):
    images = stripes(size=32, channels=3)
    run = handful.fit(images, Own(), size=32, precision="fp32", estimate="none", out=tmp_path / "r")
    again = open_run(tmp_path / "r").predict(images).probabilities
    assert torch.equal(run.predict(images).probabilities, again)


def test_a_head_that_cannot_be_saved_ends_the_fit_before_it_begins(tmp_path):
    with pytest.raises(HandfulError, match="a head of Strange cannot be saved"):
        handful.fit(stripes(size=32, channels=3), Own("strange"), size=32, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_equal_weights_are_equal_files():
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    metadata = {f"key{i}": "x" * i for i in range(9)}
    mixed = dict(reversed(list(metadata.items())))
    first = tensor_bytes(tensors, metadata)
    for _ in range(20):
        assert tensor_bytes(dict(reversed(list(tensors.items()))), mixed) == first


def test_a_file_of_tensors_reads_as_it_was_written(tmp_path):
    write_tensors(tmp_path / "x", {"a": torch.eye(3), "b": torch.zeros(0, 2)}, {"k": "é\x1b"})
    tensors, metadata = read_tensors(tmp_path / "x")
    assert torch.equal(tensors["a"], torch.eye(3)) and tensors["b"].shape == (0, 2)
    assert metadata == {"k": "é\x1b"}


def test_two_equal_fits_leave_equal_models(tmp_path):
    for name in "ab":
        handful.fit(
            IMAGES,
            "supervised",
            settings=QUICK,
            precision="fp32",
            estimate="none",
            out=tmp_path / name,
        )
    assert (tmp_path / "a" / MODEL).read_bytes() == (tmp_path / "b" / MODEL).read_bytes()


def test_a_damaged_earlier_run_ends_a_fit_before_it_begins(copy, tmp_path):
    run = open_run(copy)
    (copy / LABELS).write_text("file,label\n")
    (copy / LABELS).write_text("file,label\n000.png,a\n")
    with pytest.raises(HandfulError, match=r"labels\.csv is damaged"):
        with_earlier_labels(IMAGES, run)
    record = read_json(copy / RECORD)
    del record["fingerprint"]
    (copy / RECORD).write_text(json.dumps(record))
    with pytest.raises(HandfulError, match="fingerprint: Field required"):
        open_run(copy)


def test_what_a_terminal_obeys_is_shown_as_an_escape():
    assert (
        for_terminal("a\x1b[31mb\nc\td\u202ee\x9bf\u2028") == r"a\x1b[31mb\nc\td\u202ee\x9bf\u2028"
    )
    assert for_terminal("Müller [red] 猫 👩‍🚀") == "Müller [red] 猫 👩‍🚀"
    line = as_json_line({"f": "a\x1b\u202e\x9b\ud800é"})
    assert line == '{"f": "a\\u001b\\u202e\\u009b\\ud800é"}'
    assert json.loads(line) == {"f": "a\x1b\u202e\x9b\ud800é"}


def test_consoles_show_names_as_they_are(capsys):
    from rich.table import Table
    from rich.text import Text

    from handful.cli.terminal import SafeConsole

    table = Table("[red]x", "\x1b]0;title\x07")
    table.add_row("a\nb", "\x9b2J")
    console = SafeConsole(highlight=False, markup=False, emoji=False, width=60)
    console.print("[bold]\x1b[2J\n\u202e:smile:")
    console.print(table, Text("z\x1b[1m"))
    shown = capsys.readouterr().out
    assert r"[bold]\x1b[2J\n\u202e:smile:" in shown and r"a\nb" in shown and "[red]x" in shown
    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\u202e"}


def test_a_link_to_itself_is_refused(copy):
    (copy / MODEL).unlink()
    (copy / MODEL).symlink_to(MODEL)
    with pytest.raises(HandfulError, match="a link to itself"):
        open_run(copy)


@pytest.mark.parametrize(
    "name, old, new, words",
    [
        (LABELS, "origin", "other", "no column 'origin'"),
        (LABELS, ",a,", ",z,", "'z', which is no class of this run"),
        ("label-next.csv", "why", "other", "no column 'why'"),
        ("label-next.csv", ",0.", ",7.", "is no number from 0 to 1"),
    ],
)
def test_a_report_names_the_table_that_is_damaged(copy, name, old, new, words):
    path = copy / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(HandfulError, match=words) as refused:
        render([copy])
    assert str(path) in str(refused.value)


def test_a_fault_in_a_report_is_not_blamed_on_its_folder(copy, monkeypatch):
    def faulty(run, links):
        return [][1]

    monkeypatch.setattr("handful.report.run.page", faulty)
    with pytest.raises(IndexError, match="list index out of range"):
        render([copy])


def test_a_run_of_file_and_class_names_that_are_not_utf_8_is_opened_again(copy):
    record = read_json(copy / RECORD)
    record["data"]["source"] = "photos\udcff"
    record["label_next"] = [{"file": "\udce9t\udce9.jpg", "why": "random", "pixels": "x"}]
    write_json(copy / RECORD, record)
    assert open_run(copy).record["label_next"][0]["file"] == "\udce9t\udce9.jpg"


def test_a_sentence_longer_than_the_screen_is_wrapped_and_not_escaped():
    import io

    from handful.cli.terminal import SafeConsole

    out = io.StringIO()
    console = SafeConsole(file=out, width=40, highlight=False, markup=False, emoji=False)
    console.print("the classes look balanced by hand; if not, give \x1b[31m or name\nits shares")
    assert "\\n" not in out.getvalue().replace("name\\nits", "")
    assert len(out.getvalue().splitlines()) > 1 and "\x1b" not in out.getvalue()
