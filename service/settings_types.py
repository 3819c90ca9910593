"""Kinds of numbers that settings are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

MiB = 1024 * 1024
GiB = 1024 * MiB

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=1)]
