"""The first shape. Databases that never heard of steps have it, or parts of it."""

from alembic import op

revision = "r0001"
down_revision = None

_STATEMENTS = """
CREATE TABLE IF NOT EXISTS videos (
    id text PRIMARY KEY COLLATE "C",
    version integer NOT NULL DEFAULT 1,
    sha256 text NOT NULL UNIQUE,
    size_bytes bigint NOT NULL,
    external_id text,
    metadata jsonb NOT NULL DEFAULT '{}',
    duration_seconds double precision,
    fps double precision,
    width integer NOT NULL,
    height integer NOT NULL,
    codec text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS videos_external_id ON videos (external_id) WHERE external_id IS NOT NULL;

-- Vectors of two spaces are never compared: every query names exactly one.
CREATE TABLE IF NOT EXISTS spaces (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    revision text NOT NULL,
    clip_weight numeric(5, 4) NOT NULL,
    dimensions integer NOT NULL,
    UNIQUE (name, revision, clip_weight)
);

-- The column has no fixed dimension: each space has its own, held by its own partial index.
CREATE TABLE IF NOT EXISTS segments (
    space_id integer NOT NULL REFERENCES spaces,
    video_id text NOT NULL COLLATE "C" REFERENCES videos ON DELETE CASCADE,
    ordinal integer NOT NULL,
    start_seconds double precision NOT NULL,
    end_seconds double precision NOT NULL,
    embedding vector NOT NULL,
    PRIMARY KEY (video_id, space_id, ordinal)
);

CREATE INDEX IF NOT EXISTS segments_space ON segments (space_id);

-- Jobs outlive the process that runs them.
CREATE TABLE IF NOT EXISTS jobs (
    id text PRIMARY KEY COLLATE "C",
    kind text NOT NULL,
    state text NOT NULL CHECK (
        state IN ('queued', 'running', 'interrupted', 'succeeded', 'failed', 'cancelled')),
    waits boolean NOT NULL GENERATED ALWAYS AS (state IN ('queued', 'interrupted')) STORED,
    -- The service on whose disk the material of the job lies; nobody else can run it.
    owner text NOT NULL,
    request jsonb NOT NULL,
    progress jsonb NOT NULL DEFAULT '{}',
    result jsonb,
    problem jsonb,
    attempts integer NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    heartbeat_at timestamptz,
    finished_at timestamptz
);

CREATE INDEX IF NOT EXISTS jobs_waiting ON jobs (owner, id) WHERE waits;

-- What a job has finished, so that the next attempt need not do it again.
CREATE TABLE IF NOT EXISTS job_pieces (
    job_id text NOT NULL COLLATE "C" REFERENCES jobs ON DELETE CASCADE,
    name text NOT NULL,
    content jsonb NOT NULL,
    PRIMARY KEY (job_id, name)
);

-- Answers that are given again to whoever asks again under the same Idempotency-Key.
CREATE TABLE IF NOT EXISTS answers (
    key bytea PRIMARY KEY,
    attempt text NOT NULL,
    locked_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    fingerprint bytea,
    status smallint,
    headers jsonb,
    body bytea
);

CREATE INDEX IF NOT EXISTS answers_expires_at ON answers (expires_at);
"""


def upgrade() -> None:
    """Make what is missing."""
    op.execute(_STATEMENTS)
