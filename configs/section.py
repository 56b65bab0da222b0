"""What the sections of a config have in common: they are immutable, and an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

# Upper bounds are what the machines hold: a slip of the keyboard is named with its key, and no overflow in a library.
PositiveInt = Annotated[int, Field(gt=0, le=2**31 - 1)]
NonNegativeInt = Annotated[int, Field(ge=0, le=2**31 - 1)]
RowCount = Annotated[int, Field(gt=0, le=2**48)]  # of a table or of a data set
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
PositiveFloat = Annotated[float, Field(gt=0, le=3.4e38)]  # in 32 bits
NonNegativeFloat = Annotated[float, Field(ge=0, le=3.4e38)]
Seconds = Annotated[float, Field(gt=0, le=1e9)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
OpenFraction = Annotated[float, Field(ge=1e-6, le=1 - 1e-6)]
Layers = tuple[PositiveInt, ...]


class Section(BaseModel):
    """Part of a config: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic would read `epochs: true` as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"must not be {str(value).lower()}")
        return value
