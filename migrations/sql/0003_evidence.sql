-- Trees over the record, signed checkpoints, epochs, where checkpoints are sent, and other installations' logs that
-- this one witnesses.

-- A tree of its own for each epoch: leaf 0 is the row `first_seq`.
CREATE TABLE epochs (
    epoch INTEGER NOT NULL PRIMARY KEY CHECK (epoch >= 1),
    first_seq INTEGER NOT NULL UNIQUE CHECK (first_seq >= 1)
) STRICT;

-- Full tiles as C2SP tlog-tiles has them: 256 hashes of the complete subtrees of height 8 × level. What is right of the
-- last full tile is computed from the level below, at level 0 from the rows.
CREATE TABLE tiles (
    epoch INTEGER NOT NULL,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 7),
    number INTEGER NOT NULL CHECK (number >= 0),
    hashes BLOB NOT NULL CHECK (length(hashes) = 8192),
    PRIMARY KEY (epoch, level, number)
) STRICT;

-- C2SP tlog-checkpoint notes: the newest of each epoch, and each that a witness has cosigned.
CREATE TABLE checkpoints (
    epoch INTEGER NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    note TEXT NOT NULL,
    cosigned INTEGER NOT NULL DEFAULT 0 CHECK (cosigned IN (0, 1)),
    PRIMARY KEY (epoch, size)
) STRICT, WITHOUT ROWID;

-- Where checkpoints go.
CREATE TABLE anchors (
    number INTEGER NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('file', 'command', 'witness')),
    -- A path, a JSON array of a program and its arguments, or a submission prefix.
    target TEXT NOT NULL UNIQUE,
    -- A witness's verifier key.
    verifier TEXT,
    every_seconds INTEGER NOT NULL CHECK (every_seconds >= 1),
    created_at INTEGER NOT NULL,
    -- The last checkpoint that arrived.
    sent_epoch INTEGER,
    sent_size INTEGER,
    sent_at INTEGER,
    -- Since when it fails, and why; null while it works.
    failing_since INTEGER,
    problem TEXT
) STRICT;

-- As a witness: the largest tree seen of each log.
CREATE TABLE witnessed (
    origin TEXT NOT NULL PRIMARY KEY,
    verifier TEXT NOT NULL,
    size INTEGER NOT NULL DEFAULT 0 CHECK (size >= 0),
    -- The checkpoint with the log's signature and ours; null before the first.
    note TEXT,
    seen_at INTEGER
) STRICT, WITHOUT ROWID;

-- Agents of a restored file wait until a person lets them go on.
ALTER TABLE agents ADD COLUMN suspended_at INTEGER;

-- Which key signed what, and what was forgotten: few rows of many.
CREATE INDEX audit_of_keys ON audit (seq) WHERE phase IN ('key', 'prune');
CREATE INDEX audit_by_request ON audit (request, seq) WHERE request IS NOT NULL;
