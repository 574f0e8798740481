"""Parse settings given as text (`--set threshold=0.9`) into fields of frozen dataclasses."""

import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, get_type_hints

from handful import models
from handful.errors import HandfulError
from handful.models.classifier import BackboneSpec
from handful.text import did_you_mean

_LARGEST = 1e18
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def configure(text: Mapping[str, str], **parts: Any) -> dict[str, Any]:
    """Return copies of the parts with the fields changed that `text` names.

    Args:
        text: field → value as typed. `part.field` is needed where two parts share a field name.
        parts: dataclass objects by name, for example method=..., schedule=..., backbone=...
            For a BackboneSpec the options of its network are set, always as `backbone.option`.

    Raises:
        HandfulError: no part has such a field, or the value is not of the field's type.
    """
    changes: dict[str, dict[str, Any]] = {name: {} for name in parts}
    for key, value in text.items():
        owner, field, kind = _owner(key, parts)
        changes[owner][field] = _parse(key, value, kind)
    return {name: _changed(part, changes[name]) for name, part in parts.items()}


def _owner(key: str, parts: dict[str, Any]) -> tuple[str, str, Any]:
    prefix, _, field = key.rpartition(".")
    known = {name: _types(part) for name, part in parts.items()}
    for name, types in known.items():
        bare = not prefix and not isinstance(parts[name], BackboneSpec)
        if field in types and (bare or prefix == name):
            return name, field, types[field]
    names = [
        f"{name}.{field}" if isinstance(parts[name], BackboneSpec) else field
        for name, types in known.items()
        for field in types
    ]
    raise HandfulError(
        f"no setting {key!r}.{did_you_mean(key, names)} Settings: {', '.join(names)}"
    )


def _types(part: Any) -> dict[str, Any]:
    """Return field → type for a dataclass, or option → type for a backbone."""
    if isinstance(part, BackboneSpec):
        if part.name not in models.BACKBONES:
            return {}
        parameters = inspect.signature(models.BACKBONES[part.name]).parameters.values()
        return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    hints = get_type_hints(type(part))
    return {field.name: hints[field.name] for field in fields(part)}


def _changed(part: Any, changes: dict[str, Any]) -> Any:
    if isinstance(part, BackboneSpec):
        return BackboneSpec(part.name, part.options | changes)
    return replace(part, **changes)


def _parse(name: str, text: str, kind: Any) -> Any:
    if kind in (int, float) and len(text) > 30:
        raise HandfulError(f"{name} takes a number of a usual size, got {text[:30]}...")
    try:
        if kind is bool:
            return _WORDS[text.lower()]
        if kind is int:
            return _of_usual_size(name, int(text))
        if kind is float:
            return _of_usual_size(name, float(text))
    except HandfulError:
        raise
    except (ValueError, KeyError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise HandfulError(f"{name} takes {wanted}, got {text!r}") from None
    return text


def _of_usual_size(name: str, number: Any) -> Any:
    """Return the number; HandfulError if it does not fit into 64 bits, or is not finite.

    The dataclass checks its narrower range itself.
    """
    if not abs(number) < _LARGEST:
        raise HandfulError(f"{name} takes a number below {_LARGEST:.0e}, got {number}")
    return number
