"""The section `data`: which rows, and how they are split."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sparseflows.specs.section import Fraction, Section, Seed


class DataSpec(Section):
    """Where the rows come from, and how they are split."""

    name: str = Field(description="a known set (see `sparseflows data list`), or `table` for a file of your own")
    path: str | None = Field(
        None, description="the .npy or .csv file of `table`; the prepared folder of a benchmark set [data/<name>]"
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

    def seed_for(self, seed: int) -> int:
        """The seed of the draw or split that seed `seed` of the run trains on."""
        return self.seed + (seed if self.split_by_seed else 0)

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> DataSpec:
        if self.val_fraction + self.test_fraction > 0.9:
            raise ValueError("val_fraction + test_fraction must leave at least 0.1 of the rows for training")
        return self
