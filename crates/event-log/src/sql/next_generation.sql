-- Closes the generation $1 and opens the next one at the offset $2, audited ($3 operator, $4 act, $5 reason): a function of the
-- owner (migrations/0010_roles_and_row_security.sql). Its row is locked by lock_generation.sql. Locks: nothing more.
SELECT opened_generation, kept_as FROM event_log.open_generation($1, $2, $3, $4, $5)
