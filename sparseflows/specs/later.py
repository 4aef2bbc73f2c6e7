"""Settings that were added after a format of run folders was fixed: they leave no trace where nobody names them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

LATER: dict[str, Any] = {"later": True}  # as Field(…, json_schema_extra=LATER)


def known_by(section: BaseModel) -> dict[str, Any]:
    """The settings of a section by name, sections in it included, that make two experiments the same.

    These are all of them, those that the file does not name too, with their defaults. But a setting marked `LATER`
    that has its default is left out: so a file that does not name it is known by what it was known by before.
    """
    found = section.model_dump()
    for name, field in type(section).model_fields.items():
        value, extra = getattr(section, name), field.json_schema_extra
        later = isinstance(extra, dict) and extra.get("later") is True
        if later and value == field.get_default(call_default_factory=True):
            del found[name]
        elif isinstance(value, BaseModel):
            found[name] = known_by(value)
    return found
