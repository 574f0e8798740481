"""What a command imports before it works, and what it keeps from the garbage collector."""

import gc

import pytest

import handful
from handful.cli.collector import few_collections
from image_files import save, smooth
from lazy_imports import assert_refused_before, fresh_python

WRONG_PATHS = [
    (["fit", "/no/such", "--out", "new"], "no folder '/no/such'"),
    (["data", "/no/such"], "no folder '/no/such'"),
    (["embed", "/no/such", "--out", "new.npz"], "no folder '/no/such'"),
    (["predict", "/no/run", "photo.jpg"], "no folder '/no/run'; give the folder that"),
    (["fit", "", "--out", "new"], "the source is empty text; give the path of a folder (."),
    (["predict", "run", ""], "the source is empty text"),
    (["embed", "", "--out", "new.npz"], "the source is empty text"),
    (["predict", "run", "no.jpg"], "no file 'no.jpg'; check the path"),
    (["evaluate", "/no/run", "photo.jpg"], "no folder '/no/run'; give the folder that"),
    (["export", "/no/run", "--out", "new"], "no folder '/no/run'; give the folder that"),
    (["report", "run", "/no/run"], "no folder '/no/run'; give the folder that"),
    (["serve", "/no/run"], "no folder '/no/run'; give the folder that"),
    (["merge", "/no/parts", "--out", "new.csv"], "no folder '/no/parts'; give the folder that"),
]


def test_wrong_paths_are_answered_before_torch_is_imported(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert_refused_before({"torch", "numpy", "rich"}, WRONG_PATHS, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.jpg", "run"]


def test_a_mistyped_run_is_answered_with_the_name_that_may_be_meant(handful, tmp_path):
    (tmp_path / "photos-run").mkdir()
    status, _, err = handful("predict", tmp_path / "photo-run", "digits")
    assert status == 2 and "Did you mean 'photos-run'?" in err


# What `predict` of a photograph may import beside Python, torch and what torch brings, with a run
# that has a head on features of a Lite network: all else is slow, or not needed.
NEEDED = {
    "numpy", "PIL", "pillow_heif", "_pillow_heif", "onnx", "onnxruntime", "google", "ml_dtypes",
    "safetensors", "threadpoolctl", "filelock", "platformdirs", "pydantic", "pydantic_core",
    "annotated_types", "typing_inspection", "typing_extensions", "typer", "click", "shellingham",
    "annotated_doc", "colorama", "rich",
}  # fmt: skip


@pytest.mark.thorough
def test_predict_of_a_photo_imports_what_it_needs_and_keeps_it_from_the_collector(tmp_path):
    images = handful.load("digits")
    handful.fit(
        images.seen(images.labeled[:30]),
        "features",
        backbone="lite0",
        size=32,
        out=tmp_path / "run",
        estimate="none",
    )
    save(tmp_path / "photo.png", smooth(40, 50, seed=0))
    code = (
        "import gc, sys, torch; before = set(sys.modules)\n"
        "from handful import cli\n"
        "sys.argv = ['handful', 'predict', 'run', 'photo.png']\n"
        "cli.main()\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        f"more = names - sys.stdlib_module_names - {{'handful', 'torch'}} - {NEEDED!r}\n"
        "more = {name for name in more if not name.startswith(('_sysconfigdata', '_cython'))}\n"
        "assert not more and 'onnxruntime' in names, more\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "assert gc.get_freeze_count() > 50_000, gc.get_freeze_count()\n"
    )
    done = fresh_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("photo.png\t")


@pytest.mark.thorough
def test_a_first_classifier_is_there_before_what_is_slow_and_not_needed_is_imported(tmp_path):
    for at in range(24):
        save(tmp_path / "photos" / "ab"[at % 2] / f"{at}.png", smooth(40, 50, seed=at))
    save(tmp_path / "photos" / "more.png", smooth(40, 50, seed=99))
    slow = {
        "sklearn", "matplotlib", "torchvision", "timm", "pandas", "torch._dynamo",
    }  # fmt: skip
    code = (
        "import gc, sys; from handful import cli\n"
        "from handful.pipeline import first_result as at\n"
        "sys.argv = ['handful', 'fit', 'photos', '--size', '32', '--backbone', 'lite0']\n"
        "def so_far(*figure):\n"
        f"    found = {slow!r} & set(sys.modules)\n"
        "    assert not found, found\n"
        "    assert gc.get_freeze_count() > 50_000\n"
        "    raise SystemExit(77)\n"
        "at.so_far = so_far\n"
        "cli.main()\n"
    )
    done = fresh_python(code, tmp_path)
    assert done.returncode == 77, done.stderr
    assert (tmp_path / "photos-run" / "run.json").exists()


def test_a_program_that_calls_commands_keeps_its_collector_and_only_the_first_call_its_objects():
    code = (
        "import gc\n"
        "from handful.cli.collector import few_collections\n"
        "gc.set_threshold(701, 11, 12)\n"
        "try:\n"
        "    with few_collections():\n"
        "        assert gc.get_threshold()[0] > 10_000 and not gc.get_freeze_count()\n"
        "        raise KeyError\n"
        "except KeyError: pass\n"
        "assert gc.get_threshold() == (701, 11, 12)\n"
        "kept = gc.get_freeze_count()\n"
        "assert kept > 1_000\n"
        "more = [[] for _ in range(50_000)]\n"
        "with few_collections(): pass\n"
        "assert gc.get_freeze_count() <= kept and gc.isenabled()\n"
    )
    done = fresh_python(code)
    assert done.returncode == 0, done.stderr


def test_a_collector_that_is_off_stays_off():
    before = gc.isenabled()
    gc.disable()
    try:
        with few_collections():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        if before:
            gc.enable()
