"""Where the package imports a library that is slow to load, or that is not always installed."""

import subprocess
import sys
from pathlib import Path

import handful


def fresh_python(code, folder=None):
    """Run code in a process that has imported nothing, and return it when it has ended."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def assert_refused_before(libraries, mistakes, folder):
    """Assert that each command says what is wrong, and ends before a library is imported.

    Args:
        mistakes: (words of the command line, part of the answer) each.
    """
    code = (
        "import sys; from handful import cli\n"
        f"for words in {[words for words, _ in mistakes]!r}:\n"
        "    sys.argv = ['handful', *words]\n"
        "    try: cli.main()\n"
        "    except SystemExit as leaving: assert leaving.code == 2, words\n"
        f"    assert not {libraries!r} & set(sys.modules), words\n"
    )
    done = fresh_python(code, folder)
    assert done.returncode == 0, done.stderr
    answers = done.stderr.splitlines()
    assert len(answers) == len(mistakes)
    for answer, (words, said) in zip(answers, mistakes, strict=True):
        assert said in answer, words


def assert_imported_late_and_only_in(file, library):
    """Assert that `file` alone imports the library, and not when it is itself imported."""
    found = [
        (path.name, line)
        for path in Path(handful.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith((f"import {library}", f"from {library}"))
    ]
    assert found and all(name == file and line[0] == " " for name, line in found)
