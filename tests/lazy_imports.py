"""Where the package imports a library that is slow to load, or that is not always installed."""

from pathlib import Path

import handful


def assert_imported_late_and_only_in(file, library):
    """Assert that `file` alone imports the library, and not when it is itself imported."""
    found = [
        (path.name, line)
        for path in Path(handful.__file__).parent.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith((f"import {library}", f"from {library}"))
    ]
    assert found and all(name == file and line[0] == " " for name, line in found)
