"""The example of every public docstring runs, in a folder with the photographs that it names."""

import copy
import doctest
import inspect

import numpy as np
import pytest

import handful
from image_files import save

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
# What takes a second: features of a pre-trained network, and fits with the default network.
THOROUGH = {"embed", "fit", "Run", "Run.to_onnx", "Classifier", "Classifier.fit"}
QUICK = {"steps": 1, "batch": 8, "backbone.base": 8}


def public():
    """Every public name, and the public methods of the classes among them."""
    for name in handful.__all__:
        found = getattr(handful, name)
        yield name, found
        if inspect.isclass(found):
            own = [(key, value) for key, value in vars(found).items() if not key.startswith("_")]
            yield from ((f"{name}.{key}", value) for key, value in own if inspect.isfunction(value))


def marked(name):
    return pytest.param(name, marks=[pytest.mark.thorough] if name in THOROUGH else [])


EVERY = dict(public())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos/, boxes.csv, photos-by-class/ and photos-run/."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)
    for number, name in enumerate(("fox-1", "fox-2", "hare-1", "hare-2")):
        picture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        save(folder / "photos" / f"{name}.png", picture)
        if number % 2 == 0:
            save(folder / "photos-by-class" / name[:-2] / f"{name}.png", picture)
    rows = ["fox-1.png,0,0,9,9", "fox-2.png,,,,", "hare-1.png,0,0,9,9", "hare-1.png,5,5,15,15"]
    (folder / "boxes.csv").write_text("\n".join(["file,x1,y1,x2,y2", *rows]))
    handful.fit(
        folder / "photos-by-class",
        "supervised",
        settings=QUICK,
        precision="fp32",
        estimate="none",
        out=folder / "photos-run",
        pictures=False,
    )
    return folder


@pytest.fixture(scope="module")
def known():
    """The names that examples use without defining them."""
    from sklearn.datasets import load_digits

    images, digits = handful.load("digits"), load_digits()
    some = images.seen(range(60))
    run = handful.fit(some, "supervised", settings=QUICK, precision="fp32", estimate="none")
    classifier = handful.Classifier("supervised", settings=QUICK, precision="fp32")
    classifier.fit(digits.images[:60] / 16, digits.target[:60])
    return {
        "handful": handful,
        "digits": digits,
        "images": images,
        "run": run,
        "classifier": classifier,
    }


@pytest.mark.filterwarnings("ignore:this run learned from whole images")  # the run is of digits
@pytest.mark.parametrize("name", [marked(name) for name in EVERY])
def test_the_example_of_a_docstring_runs(name, place, known, monkeypatch, capsys):
    monkeypatch.chdir(place)
    changing = copy.deepcopy({key: known[key] for key in ("run", "classifier")})
    examples = doctest.DocTestParser().get_doctest(
        inspect.getdoc(EVERY[name]) or "", {**known, **changing}, name, None, 0
    )
    assert examples.examples, f"{name} has no example"
    failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(examples)
    assert not failed, capsys.readouterr().out


def test_dir_shows_the_public_names_and_only_those():
    assert dir(handful) == sorted(handful.__all__)


def test_type_checkers_find_the_annotations():
    from importlib.resources import files

    assert (files("handful") / "py.typed").is_file()
