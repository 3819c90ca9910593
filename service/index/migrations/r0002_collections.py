"""Videos stand in named collections; how much each holds is counted as it is written."""

from alembic import op

revision = "r0002"
down_revision = "r0001"

_STATEMENTS = """
CREATE TABLE collections (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now()
);

-- It is the first, so its number is 1: everything that was there before stands in it.
INSERT INTO collections (name) VALUES ('default');

ALTER TABLE videos
    ADD COLUMN collection_id integer NOT NULL DEFAULT 1 REFERENCES collections ON DELETE CASCADE;
ALTER TABLE videos ALTER COLUMN collection_id DROP DEFAULT;
ALTER TABLE videos DROP CONSTRAINT videos_sha256_key;
ALTER TABLE videos ADD UNIQUE (collection_id, sha256);
CREATE INDEX videos_newest ON videos (collection_id, id);

-- That of the video, once more: indexes for search can only look at their own table.
ALTER TABLE segments ADD COLUMN collection_id integer NOT NULL DEFAULT 1;
ALTER TABLE segments ALTER COLUMN collection_id DROP DEFAULT;
DROP INDEX segments_space;
CREATE INDEX segments_place ON segments (collection_id, space_id);

-- Counting vectors reads all of them; these figures change in the transaction that writes.
CREATE TABLE contents (
    collection_id integer NOT NULL REFERENCES collections ON DELETE CASCADE,
    space_id integer NOT NULL REFERENCES spaces,
    videos bigint NOT NULL CHECK (videos >= 0),
    segments bigint NOT NULL CHECK (segments >= 0),
    PRIMARY KEY (collection_id, space_id)
);
INSERT INTO contents (collection_id, space_id, videos, segments)
    SELECT 1, space_id, count(DISTINCT video_id), count(*) FROM segments GROUP BY space_id;
"""


def upgrade() -> None:
    """Put everything that is there into the collection ``default``."""
    op.execute(_STATEMENTS)
