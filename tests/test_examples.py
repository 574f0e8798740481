"""The scripts in examples/ run and print what they promise."""

import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICK = {"settings": {"steps": "3", "backbone.base": "8"}, "precision": "fp32"}


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_by_a_test_here():
    tested = inspect.getsource(inspect.getmodule(example))
    for path in EXAMPLES.glob("*.py"):
        assert f'example("{path.stem}")' in tested


@pytest.mark.thorough
def test_own_photos_are_learned_and_sorted(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, colour in [("fox", 0), ("jay", 2), ("unlabeled", 1)]:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 120, (24, 24, 3), dtype=np.uint8)
            pixels[..., colour] += 100
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    example("own_photos").main(tmp_path / "photos", tmp_path / "run", **QUICK)
    printed = capsys.readouterr().out
    assert "16 of 24 images have a label: fox, jay" in printed
    assert "unlabeled/0.png: " in printed
    assert len(list((tmp_path / "run" / "sorted").rglob("*.png"))) == 8


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_methods_are_compared_draw_by_draw(tmp_path, capsys):
    example("compare_methods").main("digits", tmp_path, draws=1, **QUICK)
    printed = capsys.readouterr().out
    assert "supervised: " in printed and "fixmatch minus supervised: " in printed


@pytest.mark.thorough
def test_a_new_method_is_an_object_that_fit_takes(capsys):
    run = example("new_method").main(settings={"steps": "3"}, precision="fp32")
    assert run.record["method"] == {"name": "mixup", "alpha": 0.2}
    assert "of 359 test images" in capsys.readouterr().out
