"""Render the templates with escaping; file names that are no valid Unicode are replaced."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from handful import text
from handful.data.findings import valid_unicode
from handful.text import sentence

FILTERS = (
    *(text.percent, text.sure, text.span, text.time, text.listed, text.counted),
    sentence,
)


def rendered(template: str, **values: Any) -> str:
    """Render the template of that name in report/templates/ with `values`."""
    return valid_unicode(_environment().get_template(template).render(**values))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("handful.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {word.__name__: word for word in FILTERS}
    return environment
