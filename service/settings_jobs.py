"""Settings of jobs: how many, how often they are tried, how long they can be looked at."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings

from service.settings_types import Count, Seconds


class JobSettings(BaseSettings):
    """Bounds of jobs."""

    max_running_jobs: Count = Field(default=1, description="jobs that run at once")
    max_waiting_jobs: Count = Field(default=16, description="jobs that wait; more are refused")
    max_batch_videos: Count = Field(default=2000, description="videos of one job that indexes many")
    job_retries: Annotated[int, Field(ge=0, le=20)] = Field(
        default=5, description="how often a job is tried again after failures that may pass"
    )
    job_retry_seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = Field(
        default=2.0,
        description="wait before it is tried again; each later one is four times as long, 600 at"
        " most",
    )
    job_history_seconds: Seconds = Field(
        default=30 * 24 * 3600.0, description="how long jobs that ended can be looked at"
    )
