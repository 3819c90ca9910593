"""What is known about the bytes of videos that are kept; whom to tell when a job has ended."""

from alembic import op

revision = "r0004"
down_revision = "r0003"

_STATEMENTS = """
CREATE TABLE media (
    sha256 text PRIMARY KEY COLLATE "C",
    size_bytes bigint NOT NULL,
    content_type text NOT NULL,
    -- False while the bytes are on their way into the store.
    kept boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Before bytes are removed somebody asks whether any video has them.
CREATE INDEX videos_sha256 ON videos (sha256);

-- Requests that are about to add a video with these bytes: until then nobody may remove them.
CREATE TABLE media_holds (
    sha256 text NOT NULL COLLATE "C" REFERENCES media ON DELETE CASCADE,
    token text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (sha256, token)
);

-- One row: the sum of all sizes, so that nobody has to count, and a name of this database.
CREATE TABLE media_total (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    bytes bigint NOT NULL DEFAULT 0,
    owner text NOT NULL DEFAULT gen_random_uuid()::text
);

INSERT INTO media_total DEFAULT VALUES;

CREATE TABLE job_webhooks (
    job_id text PRIMARY KEY COLLATE "C" REFERENCES jobs ON DELETE CASCADE,
    -- The same for all tries: receivers know by it what they have had.
    webhook_id text NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (
        state IN ('waiting', 'pending', 'delivered', 'dead', 'unwanted')),
    attempts integer NOT NULL DEFAULT 0,
    -- When it is tried next; while it is being tried: when that try counts as lost.
    next_at timestamptz,
    last_status integer,
    last_error text,
    delivered_at timestamptz
);

CREATE INDEX job_webhooks_due ON job_webhooks (next_at) WHERE state = 'pending';

-- Jobs end in many ways, in this service or another: in the same transaction their webhook is due.
CREATE FUNCTION job_webhook_due() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE job_webhooks
    SET state = CASE WHEN 'job.' || NEW.state = ANY (events) THEN 'pending' ELSE 'unwanted' END,
        next_at = now()
    WHERE job_id = NEW.id AND state = 'waiting';
    RETURN NULL;
END
$$;

CREATE TRIGGER job_webhook_due AFTER UPDATE OF state ON jobs
    FOR EACH ROW
    WHEN (NEW.state IN ('succeeded', 'failed', 'cancelled')
          AND OLD.state NOT IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION job_webhook_due();
"""


def upgrade() -> None:
    """Create them."""
    op.execute(_STATEMENTS)
