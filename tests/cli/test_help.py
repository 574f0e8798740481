"""The help, the start, and what is checked before anything slow is imported."""

import pytest

from handful import cli
from handful.cli.early_checks import METHOD_NAMES
from handful.methods import METHODS
from lazy_imports import assert_refused_before, fresh_python


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
    mistakes = [(["fit", "digits", *words], said) for words, said in MISTAKES]
    assert_refused_before({"torch"}, mistakes, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary.txt", "full"]


# What typer brings; where it reads a command, newer ones check types by pydantic.
TYPER = {"typer", "click", "annotated_doc", "shellingham", "typing_extensions", "colorama"}
PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"}


def libraries_of(words, status):
    """Top-level names of what a command imports beside Python and handful, and its answer."""
    code = (
        "import sys; before = set(sys.modules); from handful import cli\n"
        f"sys.argv = ['handful', *{words!r}]\n"
        "try: cli.main()\n"
        f"except SystemExit as leaving: assert (leaving.code or 0) == {status}, leaving.code\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "names = {name for name in names if not name.startswith('_sysconfigdata')}\n"
        "print('imported:', *names - sys.stdlib_module_names - {'handful'})\n"
    )
    done = fresh_python(code)
    assert done.returncode == 0, done.stderr
    shown, _, found = done.stdout.rpartition("imported:")
    return set(found.split()), shown + done.stderr


def test_the_help_imports_typer_alone():
    found, shown = libraries_of(["--help"], 0)
    assert found <= TYPER, found
    assert "Classify new images with a run." in shown and "--help" in shown


@pytest.mark.parametrize(
    "words, status, said",
    [
        (["fit", "--help"], 0, "--labels FILE"),
        (["fit", "/no/such/folder"], 2, "no folder '/no/such/folder'"),
        (["predict", "run", "photo.jpg", "--on", "nowhere"], 2, "nowhere"),
    ],
)
def test_help_of_a_command_and_mistakes_import_little(words, status, said):
    found, shown = libraries_of(words, status)
    assert found <= TYPER | PYDANTIC | {"filelock", "platformdirs"}, found
    assert said in shown


def test_the_help_lists_every_command_with_what_it_does(handful):
    status, out, _ = handful("--help")
    lines = out.splitlines()
    assert status == 0 and max(map(len, lines)) <= 80
    rows = [line for line in lines[lines.index("Commands:") + 1 :] if line[2:3].strip()]
    listed = [row.split(maxsplit=1) for row in rows]
    names = [command.__name__.replace("_", "-") for command in cli.COMMANDS]
    assert [name for name, _ in listed if name in names] == names
    assert ["predict", "Classify new images with a run."] in listed
    assert ["labels", "Work on label files."] in listed
    assert "`" not in out and "<bool>" not in out


def test_labels_alone_lists_what_it_takes(handful):
    status, out, err = handful("labels")
    assert status == 0 and not err
    assert "Commands:\n  merge  Merge label files: " in out


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


def test_photos_that_a_shell_lists_are_one_short_error(handful):
    photos = [f"photos/{number}.jpg" for number in range(300)]
    status, _, said = handful("predict", "run", *photos)
    assert status == 2
    assert said == (
        "Error: predict takes one SOURCE, and more words follow it: 'photos/1.jpg', 'photos/2.jpg' "
        "and 297 more; of many photos give their folder, or a list of them: a CSV with a column "
        "file\n"
    )
    status, _, said = handful("recipes", "all")
    assert status == 2
    assert said == "Error: recipes does not take 'all' (handful recipes --help tells more)\n"
