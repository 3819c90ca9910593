"""Vectors may be in another database than the records; what it still has to be told is written."""

from alembic import op

revision = "r0006"
down_revision = "r0005"

_STATEMENTS = """
-- One row: where the vectors are, and a name of this database that no other has.
CREATE TABLE vector_store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    kind text NOT NULL DEFAULT 'postgres' CHECK (kind IN ('postgres', 'milvus')),
    name text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', '')
);

INSERT INTO vector_store DEFAULT VALUES;

-- A vector is in its row, or elsewhere under this number: that of the write which put it there,
-- times 2^20, and its own in that write.
ALTER TABLE segments ADD COLUMN vector_id bigint;
ALTER TABLE segments ALTER COLUMN embedding DROP NOT NULL;
ALTER TABLE segments ADD CONSTRAINT segments_vector
    CHECK ((embedding IS NULL) <> (vector_id IS NULL)) NOT VALID;

-- Writes that have not committed. A row is there before the first vector goes elsewhere, and goes
-- with the commit: one that is left, and that nobody holds, names vectors that nobody needs.
CREATE TABLE vector_writes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    space_id integer NOT NULL REFERENCES spaces,
    since timestamptz NOT NULL DEFAULT now()
);

-- Vectors of segments that were removed here: they are to be removed elsewhere.
CREATE TABLE vector_removals (
    vector_id bigint PRIMARY KEY,
    space_id integer NOT NULL
);

-- Videos of which filters elsewhere still see the former facts.
CREATE TABLE vector_changes (
    video_id text PRIMARY KEY COLLATE "C",
    collection_id integer NOT NULL
);

CREATE FUNCTION vector_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO vector_removals VALUES (OLD.vector_id, OLD.space_id) ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER vector_removed AFTER DELETE ON segments
    FOR EACH ROW WHEN (OLD.vector_id IS NOT NULL) EXECUTE FUNCTION vector_removed();

CREATE FUNCTION vector_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO vector_changes
    SELECT NEW.id, NEW.collection_id
    WHERE EXISTS (SELECT FROM segments WHERE video_id = NEW.id AND vector_id IS NOT NULL)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;

CREATE TRIGGER vector_changed AFTER UPDATE OF external_id, metadata, created_at ON videos
    FOR EACH ROW
    WHEN ((OLD.external_id, OLD.metadata, OLD.created_at)
          IS DISTINCT FROM (NEW.external_id, NEW.metadata, NEW.created_at))
    EXECUTE FUNCTION vector_changed();
"""


def upgrade() -> None:
    """Create them; every vector that is there stays in its row."""
    op.execute(_STATEMENTS)
