-- Roles and modes, sessions as conditions see them, compiled policies, rate windows.

-- Null where the agent's policy document speaks for itself.
ALTER TABLE agents ADD COLUMN role TEXT;
ALTER TABLE agents ADD COLUMN mode TEXT CHECK (mode IN ('explore', 'ask', 'auto'));

ALTER TABLE sessions ADD COLUMN label TEXT;
ALTER TABLE sessions ADD COLUMN mode TEXT CHECK (mode IN ('explore', 'ask', 'auto'));
ALTER TABLE sessions ADD COLUMN calls INTEGER NOT NULL DEFAULT 0;

-- The bytes that decide. Their SHA-256 is the version's digest; versions from before this column are compiled anew
-- from their bundle when they are needed.
ALTER TABLE policy_versions ADD COLUMN compiled BLOB;

-- Which policy was put in force when: few rows of many.
CREATE INDEX audit_of_policies ON audit (seq) WHERE phase = 'policy';

-- Calls admitted without approval under rules with a rate limit. `elapsed` is microseconds of a clock that nobody
-- sets and that never goes back, over restarts too.
CREATE TABLE rate_calls (
    agent TEXT NOT NULL,
    layer TEXT NOT NULL CHECK (layer IN ('system', 'organisation', 'agent')),
    document TEXT NOT NULL,
    pattern TEXT NOT NULL,
    elapsed INTEGER NOT NULL,
    -- Tells apart calls of one microsecond.
    number INTEGER NOT NULL,
    PRIMARY KEY (agent, layer, document, pattern, elapsed, number)
) STRICT, WITHOUT ROWID;
