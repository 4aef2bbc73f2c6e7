"""What all sections of a param file share: the base class, bounds that several of them use, and what identifies them.

Settings that were added after a format of run folders was fixed leave no trace where nobody names them.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, lt=1e6)]
Tolerance = Annotated[float, Field(gt=0, le=1)]
Fraction = Annotated[float, Field(ge=0.01, le=0.8)]
Width = Annotated[int, Field(ge=1, le=8192)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Steps = Annotated[int, Field(ge=1, le=10_000_000)]
LATER: dict[str, Any] = {"later": True}  # as Field(…, json_schema_extra=LATER)


class Section(BaseModel):
    """Base of all sections: unknown keys, NaN and values of the wrong type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


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
