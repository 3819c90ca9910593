"""A database as the first version of the service left it, with two videos in it."""

from pathlib import Path

import asyncpg

from service.index.video_index import Space

SPACE = Space("demo", "0123456789ab", 0.4, 8)
VIDEO = "vid_01ARZ3NDEKTSV4RRFFQ69G5FAV"
OTHER_VIDEO = "vid_01ARZ3NDEKTSV4RRFFQ69G5FAW"

_SCHEMA = Path(__file__).with_name("first_schema.sql")
_ROWS = f"""
INSERT INTO videos VALUES
    ('{VIDEO}', 3, 'aa', 10, 'cam-1', '{{"n": 1, "s": "é", "z": null}}', 8.0, 25.0, 320, 240,
     'h264', '2026-01-02T03:04:05Z'),
    ('{OTHER_VIDEO}', 1, 'bb', 20, NULL, '{{}}', NULL, NULL, 64, 48, 'vp9',
     '2026-01-02T03:04:06Z');
INSERT INTO spaces (name, revision, clip_weight, dimensions) VALUES
    ('{SPACE.name}', '{SPACE.revision}', 0.4, 8), ('{SPACE.name}', '{SPACE.revision}', 0.5, 8);
INSERT INTO segments VALUES
    (1, '{VIDEO}', 0, 0, 4, '[1,0,0,0,0,0,0,0]'),
    (1, '{VIDEO}', 1, 4, 8, '[0.6,0.8,0,0,0,0,0,0]'),
    (2, '{VIDEO}', 0, 0, 8, '[0,1,0,0,0,0,0,0]'),
    (1, '{OTHER_VIDEO}', 0, 0, 4, '[0,0,1,0,0,0,0,0]');
CREATE INDEX segments_hnsw_1 ON segments USING hnsw ((embedding::vector(8)) vector_ip_ops)
    WITH (m = 16, ef_construction = 128) WHERE space_id = 1;
INSERT INTO jobs (id, kind, state, owner, request, finished_at)
    VALUES ('job_01ARZ3NDEKTSV4RRFFQ69G5FAV', 'step', 'succeeded', 'somebody', '{{}}', now());
INSERT INTO job_pieces VALUES ('job_01ARZ3NDEKTSV4RRFFQ69G5FAV', '0', '{{"kept": 0}}');
"""  # noqa: S608 - constants


async def make(dsn: str) -> None:
    """Fill an empty database."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE EXTENSION vector; CREATE SCHEMA vtag;"
                                 " SET search_path = vtag, public")  # fmt: skip
        await connection.execute(_SCHEMA.read_text())
        await connection.execute(_ROWS)
    finally:
        await connection.close()
