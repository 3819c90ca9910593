"""Graphs of half precision, one for each place that is large; an active space per collection."""

from alembic import op

revision = "r0003"
down_revision = "r0002"

_STATEMENTS = """
-- Null: a search that names no space goes where the service's own model and lambda are.
ALTER TABLE collections ADD COLUMN active_space_id integer REFERENCES spaces;

-- While this lies ahead many videos are being loaded, and a graph would make each of them wait.
ALTER TABLE contents ADD COLUMN loads_until timestamptz;

-- Rows of up to 2000 dimensions stay in one piece: comparing many of them reads no second table.
ALTER TABLE segments SET (toast_tuple_target = 8160);

CREATE INDEX videos_metadata ON videos USING gin (metadata jsonb_path_ops);
CREATE INDEX videos_created ON videos (collection_id, created_at);

-- They held vectors of whole precision of all collections; new graphs are built in the background.
DO $$
DECLARE
    old name;
BEGIN
    FOR old IN SELECT relname FROM pg_class WHERE relkind = 'i'
        AND relnamespace = current_schema()::regnamespace AND relname ~ '^segments_hnsw_[0-9]+$'
    LOOP
        EXECUTE format('DROP INDEX %I', old);
    END LOOP;
END
$$;
"""


def upgrade() -> None:
    """Prepare the tables; graphs are not built here, which would keep the service from starting."""
    op.execute(_STATEMENTS)
