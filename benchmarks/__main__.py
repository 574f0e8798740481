"""Benchmarks: run one, and bring what it found into the documentation and into the package.

    python -m benchmarks run                     # what there is
    python -m benchmarks run draws --help        # what one of them does, and what it takes
    python -m benchmarks run draws try mnist --per-class 10 --draws 1000-1002 --dev 10000
    python -m benchmarks tables                  # results -> tables in README.md and docs/
    python -m benchmarks resources               # results -> files that the package needs
    python -m benchmarks check                   # is any of them stale?

A benchmark writes one line of JSON a result into benchmarks/results/: the figures, the command, the
commit and the machine. Tables are made of those lines, never typed. What was tried, what was
decided and why is in benchmarks/log/README.md.
"""

import argparse
import ast
import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDERS = (
    "accuracy", "estimates", "labeling", "speed", "export", "cluster", "peers", "robustness",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Name of a benchmark -> its file."""
    return {
        path.stem: path
        for folder in FOLDERS
        for path in sorted((HERE / folder).glob("*.py"))
        if path.stem != "__init__"
    }


def first_line(path: Path) -> str:
    """Of the docstring; nothing is imported for it."""
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0]


def listing() -> str:
    """Every benchmark with a line of what it is, by folder."""
    found = modules()
    wide = max(map(len, found))
    parts = []
    for folder in FOLDERS:
        parts.append(f"{folder}: {first_line(HERE / folder / '__init__.py')}")
        for name, path in found.items():
            if path.parent.name == folder:
                parts.append(f"  {name:{wide}}  {first_line(path)}")
    return "\n".join(parts)


def run(name: str, arguments: list[str]) -> None:
    """The benchmark, with its own arguments."""
    found = modules()
    if name not in found:
        sys.exit(f"no benchmark {name}; there are:\n{listing()}")
    sys.argv = [name, *arguments]
    importlib.import_module(f"benchmarks.{found[name].parent.name}.{name}").main()


def tables() -> None:
    from benchmarks.lib import made

    print(*(f"wrote {name}" for name in made.write_tables()) or ["nothing to do"], sep="\n")


def resources() -> None:
    from benchmarks.lib import made

    print(*(f"wrote {name}" for name in made.write_resources()) or ["nothing to do"], sep="\n")


def check() -> None:
    from benchmarks.lib import made

    if stale := made.stale():
        what = "\n  ".join(stale)
        sys.exit(
            f"not what benchmarks/results/ gives:\n  {what}\n"
            "python -m benchmarks tables, and python -m benchmarks resources, write them anew"
        )


def made_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, what: str, more: str = "") -> argparse.ArgumentParser:
        about = f"{what}\n\n{more}" if more else what
        return commands.add_parser(name, help=what, description=about, formatter_class=raw)

    one = add(
        "run",
        "run a benchmark; without a name, list them",
        "`python -m benchmarks run NAME --help` says what NAME does and what it takes.\n"
        "Most take dev (tuned on, scored on a part of the training images) or final, and --dry,\n"
        "which writes no line. What has its line already is not run again.\n\n" + listing(),
    )
    one.add_argument("name", nargs="?", metavar="NAME")
    one.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT")
    add(
        "tables",
        "write the tables in README.md and docs/ from the results",
        "A table stands between `<!-- table NAME -->` and `<!-- end -->`; lib/tables/ has one\n"
        "module a subject.",
    )
    add(
        "resources",
        "write what the package needs of the results",
        "experience.json, what `auto` knows beforehand, and measured.json, the figures in\n"
        "`handful recipes`.",
    )
    add(
        "check",
        "exit 1 if a table or a resource is not what the results give",
        "Says which. Part of `make lint`.",
    )
    return parser


def main() -> None:
    parser = made_parser()
    given = parser.parse_args()
    if given.command is None:
        parser.print_help()
    elif given.command == "run":
        run(given.name, given.arguments) if given.name else print(listing())
    else:
        {"tables": tables, "resources": resources, "check": check}[given.command]()


if __name__ == "__main__":
    main()
