-- Takes a database back to the step before the queue.
DROP TRIGGER vector_changed ON vtag.videos;
DROP TRIGGER vector_removed ON vtag.segments;
DROP FUNCTION vtag.vector_changed, vtag.vector_removed;
DROP TABLE vtag.vector_store, vtag.vector_writes, vtag.vector_removals, vtag.vector_changes;
ALTER TABLE vtag.segments DROP COLUMN vector_id, ALTER COLUMN embedding SET NOT NULL;
DROP TRIGGER tg_pgqueuer_changed ON vtag.pgqueuer;
DROP FUNCTION vtag.fn_pgqueuer_changed;
DROP TABLE vtag.pgqueuer, vtag.pgqueuer_log, vtag.pgqueuer_statistics, vtag.pgqueuer_schedules;
DROP TYPE vtag.pgqueuer_status;
ALTER TABLE vtag.jobs DROP COLUMN bound, DROP COLUMN priority, DROP COLUMN queue_id,
    DROP COLUMN runner, DROP COLUMN retries, DROP COLUMN next_attempt_at;
UPDATE vtag.alembic_version SET version_num = 'r0004';
