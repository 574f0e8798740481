"""Settings as text, as `--set threshold=0.9` gives them, into the fields of frozen dataclasses."""

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
    """The parts again, with the fields that `text` names changed.

    Args:
        text: field → value as typed. `part.field` names the part, where two share a field's name.
        parts: dataclass objects by name, for example method=..., schedule=..., backbone=...
            A BackboneSpec takes the options of its backbone, always as `backbone.option`.

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
    """Field → type, of a dataclass or of a backbone's options."""
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
    """HandfulError for what neither 64 bits nor a computation can hold; the owner knows more."""
    if not abs(number) < _LARGEST:
        raise HandfulError(f"{name} takes a number below {_LARGEST:.0e}, got {number}")
    return number
