"""The section `data`: which rows, and how they are split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sparseflows.specs.section import LATER, Fraction, Section, Seed

TABLE = "table"  # the name of a file of the user's own
Column = str | Annotated[int, Field(ge=0, le=1_000_000)]
Columns = Annotated[list[Column], Field(max_length=100_000)]
PLAIN, WITH_ENDS = ("log", "power", "rank"), ("logit", "circular")  # transforms, and those that are given two ends
Transform = str | dict[str, list[float]]


class DataSpec(Section):
    """Where the rows come from, and how they are split."""

    name: str = Field(description="a known set (see `sparseflows data list`), or `table` for a file of your own")
    path: str | None = Field(
        None,
        description="the file of `table`, such as a .npy or .csv; the prepared folder of a benchmark set [data/<name>]",
    )
    n_train: Annotated[int, Field(ge=8, le=100_000_000)] | None = Field(
        None, description="training rows; toy sets: how many to draw (validation and test: half as many each)"
    )
    val_fraction: Fraction = Field(0.1, description="share of a table's rows for validation")
    test_fraction: Fraction = Field(0.1, description="share of a table's rows for the test set")
    seed: Seed = Field(0, description="of the draw (toy sets) or the split (tables)")
    split_by_seed: bool = Field(
        False,
        description="every seed s of `seeds` draws or splits the data its own way (by data.seed + s)",
    )
    whiten: bool = Field(False, description="begin with a fixed linear map that whitens the training rows")

    header: Literal["auto"] | bool = Field(
        "auto", json_schema_extra=LATER, description="of a text table: whether its first line names the columns"
    )
    index: Literal["auto"] | bool = Field(
        "auto",
        json_schema_extra=LATER,
        description="of a text table: whether its first column is left out as an index; auto: where it has no name and "
        "counts the rows or names them",
    )
    columns: Columns = Field(
        [], json_schema_extra=LATER, description="of a table: the columns to take, by name, or by place from 1 [all]"
    )
    drop: Columns = Field([], json_schema_extra=LATER, description="of a table: columns to leave out, likewise")
    missing: Literal["refuse", "drop"] = Field(
        "refuse", json_schema_extra=LATER, description="rows of a table in which a value is missing"
    )
    copies: Literal["together", "drop"] = Field(
        "together",
        json_schema_extra=LATER,
        description="rows of a table that are there more than once: kept in one part of the split, or left out but for "
        "the first",
    )
    transform: dict[str, Transform] = Field(
        {},
        json_schema_extra=LATER,
        description="column of a table → log, power, rank, {logit: [low, high]} or {circular: [low, high]}: a map that "
        "the flow sees it through",
    )

    @field_validator("header", "index", mode="before")
    @classmethod
    def _is_a_choice(cls, value: Any, info: ValidationInfo) -> Any:
        if value != "auto" and not isinstance(value, bool):
            raise ValueError(f"{info.field_name} is auto, yes or no, not {str(value)[:60]!r}")
        return value

    @field_validator("columns", "drop", mode="before")
    @classmethod
    def _lists_columns(cls, value: Any, info: ValidationInfo) -> Any:
        listed = [value] if isinstance(value, str | int) else value
        wrong = not isinstance(listed, list) or next(
            (repr(one) for one in listed if type(one) not in (str, int) or one == "" or (one != str(one) and one < 0)),
            "",
        )
        if wrong:
            given = str(value) if wrong is True else wrong
            raise ValueError(f"{info.field_name} is a list of columns, by name or place from 1, not {given[:60]}")
        return listed

    @field_validator("transform", mode="before")
    @classmethod
    def _is_known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"transform is a mapping of columns, as {{income: log}}, not {str(value)[:60]!r}")
        for column, kind in value.items():
            if isinstance(kind, str):
                if kind in WITH_ENDS:
                    raise ValueError(f"transform of '{column}': {kind} takes its two ends, as {{{kind}: [0, 1]}}")
                if kind not in PLAIN:
                    known = ", ".join(PLAIN)
                    raise ValueError(
                        f"transform of '{column}': '{kind[:60]}' is not one of {known}, {{logit: [low, high]}}, "
                        "{circular: [low, high]}"
                    )
                continue
            ends = next(iter(kind.values())) if isinstance(kind, dict) and len(kind) == 1 else None
            numbers = isinstance(ends, list) and all(type(end) in (int, float) for end in ends)
            if ends is None or next(iter(kind)) not in WITH_ENDS or not numbers or len(ends) != 2 or ends[0] >= ends[1]:
                raise ValueError(
                    f"transform of '{column}': give log, power, rank, {{logit: [low, high]}} or {{circular: [low, "
                    f"high]}} with low below high, not {str(kind)[:60]!r}"
                )
        return value

    @model_validator(mode="after")
    def _reads_a_table(self) -> DataSpec:
        given = [
            name
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra == LATER and getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        if given and self.name != TABLE:
            raise ValueError(f"{given[0]} is for a table of your own (data.name: table), not for '{self.name}'")
        return self

    def seed_for(self, seed: int) -> int:
        """The seed of the draw or split that seed `seed` of the run trains on."""
        return self.seed + (seed if self.split_by_seed else 0)

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> DataSpec:
        if self.val_fraction + self.test_fraction > 0.9:
            raise ValueError("val_fraction + test_fraction must leave at least 0.1 of the rows for training")
        return self
