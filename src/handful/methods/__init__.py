"""Every method by name. To add one: its file, a line here, a row in the benchmark table."""

import difflib
from dataclasses import fields, replace
from typing import Any, get_type_hints

from handful.methods.base import Method
from handful.methods.supervised import Supervised

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
}


def make(name: str, **values: Any) -> Method:
    """The method of that name with the given fields; ValueError with a suggestion for a typo."""
    if name not in METHODS:
        raise ValueError(f"no method {name!r}.{did_you_mean(name, METHODS)} Methods: {listed(METHODS)}")
    return METHODS[name](**values)


def configure(text: dict[str, str], **parts: Any) -> dict[str, Any]:
    """Set fields of frozen dataclasses from text, as `--set threshold=0.9` gives it.

    Args:
        text: field → value as typed. `part.field` names the part where two share a field.
        parts: the objects by name, for example method=..., schedule=...

    Returns:
        The parts again, changed where asked. ValueError for an unknown field or a wrong type.
    """
    changes: dict[str, dict[str, Any]] = {name: {} for name in parts}
    for key, value in text.items():
        prefix, _, field = key.rpartition(".")
        owners = [n for n in parts if (n == prefix or not prefix) and field in _types(parts[n])]
        if not owners:
            known = [f for part in parts.values() for f in _types(part)]
            raise ValueError(f"no setting {key!r}.{did_you_mean(key, known)} Settings: {listed(known)}")
        owner = owners[0]
        changes[owner][field] = _parse(field, value, _types(parts[owner])[field])
    return {name: replace(part, **changes[name]) for name, part in parts.items()}


def did_you_mean(given: str, known: Any) -> str:
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def listed(names: Any) -> str:
    return ", ".join(sorted(names))


def _types(part: Any) -> dict[str, Any]:
    hints = get_type_hints(type(part))
    return {field.name: hints[field.name] for field in fields(part)}


def _parse(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                text.lower()
            ]
        if kind is int:
            return int(float(text)) if float(text) == int(float(text)) else int(text)
        if kind is float:
            return float(text)
    except (ValueError, KeyError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise ValueError(f"{name} takes {wanted}, got {text!r}") from None
    return text
