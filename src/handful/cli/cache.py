"""`handful cache`: list and clear cached images, features and pre-trained backbones."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import AsJson
from handful.errors import HandfulError

if TYPE_CHECKING:
    from handful.data.cache_entries import Entry


def cache(
    action: Annotated[str, typer.Argument(help="list or clear.")] = "list",
    pixels: Annotated[bool, typer.Option("--pixels", help="Clear decoded images only.")] = False,
    features: Annotated[bool, typer.Option("--features", help="Clear features only.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Clear self-supervised stages too: they took long.")
    ] = False,
    older_than: Annotated[
        str | None,
        typer.Option(
            help="Clear only what was not used for this long, as in 30d, 12h or 45m.",
            metavar="TIME",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what handful keeps on disk to be quick, or clear it. It is made again when needed.

    Kept are decoded images, features, what was found in folders, and self-supervised stages. The
    place is HANDFUL_CACHE, else the system's folder for caches (on Linux XDG_CACHE_HOME/handful or
    ~/.cache/handful). What was used longest ago is removed where all is more than
    HANDFUL_CACHE_LIMIT, such as 10GB; by default 20 GB, and a fifth of the disk at most. Nothing
    that a running process uses is removed, no downloaded data set, no file that is not the
    cache's own, and not the few bytes that say which number format was the faster one here.

    Examples:

        handful cache

        handful cache clear --older-than 30d
    """
    if action not in ("list", "clear"):
        raise HandfulError(f"no action {action!r}; use handful cache, or handful cache clear")
    if action == "list":
        if pixels or features or everything or older_than:
            raise HandfulError("these options are for clearing: handful cache clear")
        _show(as_json)
    else:
        _clear(_kinds(pixels, features, everything), _seconds(older_than), as_json)


def _kinds(pixels: bool, features: bool, everything: bool) -> set[str]:
    from handful.data.cache_entries import KINDS, LAST

    if everything:
        return set(KINDS)
    chosen = {kind for kind, asked in (("pixels", pixels), ("features", features)) if asked}
    return chosen or set(KINDS) - {LAST}


def _seconds(text: str | None) -> float:
    from handful.text import in_seconds

    if text is None:
        return 0.0
    if text.strip().endswith("d"):
        return 24 * in_seconds(f"{text.strip()[:-1]}h")
    return in_seconds(text)


def _show(as_json: bool) -> None:
    from rich.table import Table

    from handful.cli.terminal import answer, print_json
    from handful.data.cache import cache_folder, data_folder
    from handful.data.cache_entries import amount, entries, limit, size

    place, found, data = cache_folder(), entries(), data_folder()
    total, allowed = sum(entry.bytes for entry in found), limit()
    downloads = size(data)
    if as_json:
        known = None if allowed == float("inf") else int(allowed)
        about = {"location": str(place), "bytes": total, "limit": known}
        about |= {"data": {"location": str(data), "bytes": downloads}}
        print_json({**about, "entries": [_as_json(entry) for entry in found]})
        return
    if found:
        table = Table("kind", "size", "last used", "made for")
        for entry in reversed(found):
            used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
            in_use = " (in use)" if entry.in_use else ""
            table.add_row(entry.kind, amount(entry.bytes), used + in_use, entry.source or "–")
        answer.print(table)
    most = "no limit" if allowed == float("inf") else f"the limit is {amount(allowed)}"
    answer.print(f"{amount(total)} in {place}; {most}", soft_wrap=True)
    if downloads:
        answer.print(f"data sets beside it: {amount(downloads)} in {data}", soft_wrap=True)


def _clear(kinds: set[str], older_than: float, as_json: bool) -> None:
    from handful.cli.terminal import answer, print_json
    from handful.data.cache_entries import LAST, amount, clear, entries

    gone, kept = clear(kinds, older_than)
    freed = sum(entry.bytes for entry in gone)
    if as_json:
        lists = {"removed": gone, "kept": kept}
        print_json({key: [_as_json(e) for e in found] for key, found in lists.items()})
        return
    answer.print(f"{amount(freed)} removed ({len(gone)} entries)")
    if kept:
        answer.print(f"{len(kept)} entries are in use by a running process and stay")
    stages = [entry for entry in entries() if entry.kind == LAST]
    if LAST not in kinds and stages:
        space = amount(sum(entry.bytes for entry in stages))
        answer.print(f"{len(stages)} self-supervised stages ({space}) stay; --all removes them")


def _as_json(entry: "Entry") -> dict[str, Any]:
    used = datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds")
    about = {"kind": entry.kind, "path": str(entry.path), "bytes": entry.bytes}
    return {**about, "last_used": used, "source": entry.source, "in_use": entry.in_use}
