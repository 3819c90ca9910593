"""Jobs wait in the tables of a queue library; any service may run one that needs no files."""

from alembic import op

from service.index import queue_schema

revision = "r0005"
down_revision = "r0004"

_COLUMNS = """
-- Jobs whose material lies on the disk of their owner; nobody else can run them.
ALTER TABLE jobs ADD COLUMN bound boolean NOT NULL DEFAULT true;
ALTER TABLE jobs ALTER COLUMN bound DROP DEFAULT;
ALTER TABLE jobs ADD COLUMN priority integer NOT NULL DEFAULT 0;
-- Its place in the queue.
ALTER TABLE jobs ADD COLUMN queue_id bigint;
-- The service that runs it, or ran it last.
ALTER TABLE jobs ADD COLUMN runner text;
-- Attempts that ended by a failure that may pass.
ALTER TABLE jobs ADD COLUMN retries integer NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN next_attempt_at timestamptz;
"""

_UNFINISHED = """
-- Jobs that a service without the queue left. Those it was running count as interrupted.
UPDATE jobs SET state = 'interrupted' WHERE state = 'running' AND NOT cancel_requested;
UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE state = 'running';
WITH queued AS (
    INSERT INTO pgqueuer (priority, entrypoint, payload, status)
    SELECT 0, kind || '@' || owner, convert_to(id, 'UTF8'), 'queued'
    FROM jobs WHERE waits ORDER BY id RETURNING id, payload)
UPDATE jobs SET queue_id = queued.id FROM queued
WHERE jobs.id = convert_from(queued.payload, 'UTF8');
"""


def upgrade() -> None:
    """Make the tables of the library, and put into the queue what waits."""
    op.execute(_COLUMNS)
    op.execute(queue_schema.installation())
    op.execute(_UNFINISHED)
