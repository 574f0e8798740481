"""The help, the start, and what is checked before anything slow is imported."""

import subprocess
import sys

import pytest

from handful.cli.early_checks import METHOD_NAMES
from handful.methods import METHODS


def test_handful_alone_shows_how_to_start(handful):
    status, out, err = handful()
    assert status == 0 and not err
    for command in ("handful label", "handful fit", "handful predict"):
        assert command in out


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_printed(handful, flag):
    status, out, _ = handful(flag)
    assert status == 0 and out.startswith("handful ")


def test_the_help_of_fit_fits_on_two_screens(handful):
    status, out, _ = handful("fit", "--help")
    lines = out.splitlines()
    assert status == 0
    assert len(lines) <= 100 and max(map(len, lines)) <= 80
    groups = [line for line in lines if line in ("Data:", "Time:", "Result:", "Expert:")]
    assert groups == ["Data:", "Time:", "Result:", "Expert:"]
    assert lines.index("  handful fit photos/                        sub-folders are classes") < 5
    assert "--no-follow-links" not in out and "<int>" not in out


def test_the_names_of_methods_are_those_of_the_methods():
    assert METHOD_NAMES == tuple(METHODS)


MISTAKES = [
    (["--method", "supervize"], "Did you mean 'supervised'?"),
    (["--labels", "none.csv"], "no file 'none.csv'"),
    (["--after", "none"], "no folder 'none'"),
    (["--init", "none"], "no folder 'none'"),
    (["--out", "full"], "holds other files"),
    (["--out", "diary.txt"], "is a file"),
    (["--budget", "soon"], "a time is typed as"),
    (["--prior", "7"], "--prior takes"),
    (["--set", "steps"], "--set takes"),
    (["-q", "-v"], "exclude each other"),
]


def test_mistakes_are_answered_before_torch_is_imported(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("mine")
    (tmp_path / "diary.txt").write_text("mine")
    code = (
        "import sys; from handful import cli\n"
        f"for words in {[words for words, _ in MISTAKES]!r}:\n"
        "    sys.argv = ['handful', 'fit', 'digits', *words]\n"
        "    try: cli.main()\n"
        "    except SystemExit as leaving: assert leaving.code == 2, words\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    answers = done.stderr.splitlines()
    assert len(answers) == len(MISTAKES)
    for answer, (_, said) in zip(answers, MISTAKES, strict=True):
        assert said in answer
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary.txt", "full"]


def test_the_help_imports_no_library_that_it_does_not_need():
    code = (
        "import sys; from handful import cli\n"
        "sys.argv = ['handful', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'numpy', 'scipy', 'sklearn', 'PIL', 'pydantic', 'filelock', 'fsspec'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--help" in done.stdout


def test_methods_are_listed_with_what_they_need(handful):
    status, out, _ = handful("methods")
    assert status == 0
    for name in METHODS:
        assert f"\n{name}\n" in f"\n{out}"
    status, out, _ = handful("methods", "self_training")
    assert "Needs labels, unlabelled images, ImageNet weights" in out
    assert "Accuracy with 10 labels per class: " in " ".join(out.split())
    status, _, err = handful("methods", "self_trainin")
    assert status == 2 and "Did you mean 'self_training'?" in err
