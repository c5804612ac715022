-- The first schema. Numbered files are applied in order, in one transaction, and never edited once released.

CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Public halves of every key that signed something; the private ones are files in keys/.
CREATE TABLE keys (
    key_id BLOB NOT NULL PRIMARY KEY CHECK (length(key_id) = 32),
    purpose TEXT NOT NULL CHECK (purpose IN ('row', 'checkpoint')),
    epoch INTEGER NOT NULL CHECK (epoch >= 1),
    public_key BLOB NOT NULL CHECK (length(public_key) = 32),
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The record. `body` is canonical JSON, stored as it was signed; every other column that a query reads is computed
-- from it, so a row cannot say one thing to a query and another to its signature.
CREATE TABLE audit (
    seq INTEGER NOT NULL PRIMARY KEY CHECK (seq >= 1),
    epoch INTEGER NOT NULL CHECK (epoch >= 1),
    key_id BLOB NOT NULL CHECK (length(key_id) = 32),
    prev BLOB NOT NULL CHECK (length(prev) = 32),
    body_hash BLOB NOT NULL CHECK (length(body_hash) = 32),
    sig BLOB NOT NULL CHECK (length(sig) = 64),
    body TEXT,
    time INTEGER GENERATED ALWAYS AS (json_extract(body, '$.time')) VIRTUAL,
    phase TEXT GENERATED ALWAYS AS (json_extract(body, '$.phase')) VIRTUAL,
    principal TEXT GENERATED ALWAYS AS (json_extract(body, '$.principal')) VIRTUAL,
    agent TEXT GENERATED ALWAYS AS (json_extract(body, '$.agent')) VIRTUAL,
    session TEXT GENERATED ALWAYS AS (json_extract(body, '$.session')) VIRTUAL,
    capability TEXT GENERATED ALWAYS AS (json_extract(body, '$.capability')) VIRTUAL,
    tier TEXT GENERATED ALWAYS AS (json_extract(body, '$.decision.tier')) VIRTUAL,
    outcome TEXT GENERATED ALWAYS AS (json_extract(body, '$.outcome')) VIRTUAL,
    intent INTEGER GENERATED ALWAYS AS (json_extract(body, '$.intent')) VIRTUAL,
    request TEXT GENERATED ALWAYS AS (json_extract(body, '$.request')) VIRTUAL
) STRICT;

CREATE INDEX audit_by_time ON audit (time);
CREATE INDEX audit_by_agent ON audit (agent, seq) WHERE agent IS NOT NULL;
CREATE INDEX audit_by_capability ON audit (capability, seq) WHERE capability IS NOT NULL;
-- Success is the usual case and no help to a search.
CREATE INDEX audit_by_outcome ON audit (outcome, seq) WHERE outcome IS NOT NULL AND outcome <> 'succeeded';

CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'audit rows are never deleted');
END;

-- Pruning may forget a body, never change one.
CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit
WHEN NEW.body IS NOT NULL OR NEW.seq IS NOT OLD.seq OR NEW.epoch IS NOT OLD.epoch OR NEW.key_id IS NOT OLD.key_id
    OR NEW.prev IS NOT OLD.prev OR NEW.body_hash IS NOT OLD.body_hash OR NEW.sig IS NOT OLD.sig
BEGIN
    SELECT RAISE(ABORT, 'audit rows are never changed');
END;

CREATE TABLE agents (
    name TEXT NOT NULL PRIMARY KEY,
    purpose TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
    -- SHA-256 of the token's text; null while the agent is revoked.
    token_hash BLOB UNIQUE CHECK (token_hash IS NULL OR length(token_hash) = 32),
    created_at INTEGER NOT NULL,
    token_created_at INTEGER,
    status_changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id TEXT NOT NULL PRIMARY KEY,
    agent TEXT NOT NULL REFERENCES agents (name),
    -- How the agent came in: http, stdio, operator.
    via TEXT NOT NULL,
    -- The token's hash that opened it; a session ends with its token.
    token_hash BLOB,
    started_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_agent ON sessions (agent, last_seen_at);

-- A version is every document of every layer. Versions are kept: the record names them by digest.
CREATE TABLE policy_versions (
    version INTEGER NOT NULL PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    bundle TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT;

CREATE TABLE approvals (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'executing', 'succeeded', 'failed', 'unknown',
        'refused', 'rejected', 'cancelled', 'expired')),
    agent TEXT NOT NULL REFERENCES agents (name),
    session TEXT NOT NULL,
    capability TEXT NOT NULL,
    -- Canonical JSON of the arguments as they will be executed.
    arguments TEXT NOT NULL,
    -- What must be the same at execution: canonical JSON, and its SHA-256.
    binding TEXT NOT NULL,
    binding_digest BLOB NOT NULL CHECK (length(binding_digest) = 32),
    -- The decision that asked: tier, policy, rule, reason, source.
    decision TEXT NOT NULL,
    requested_at INTEGER NOT NULL,
    decided_at INTEGER,
    decided_by TEXT,
    decision_reason TEXT,
    intent INTEGER,
    finished_at INTEGER,
    -- What every wait is answered with once the request has ended: canonical JSON.
    result TEXT
) STRICT;
CREATE INDEX approvals_by_state ON approvals (state, number);
CREATE INDEX approvals_by_agent ON approvals (agent, number);

CREATE TABLE notifications (
    -- The row of the record that tells what happened.
    seq INTEGER NOT NULL PRIMARY KEY REFERENCES audit (seq),
    time INTEGER NOT NULL,
    agent TEXT NOT NULL,
    capability TEXT NOT NULL,
    outcome TEXT NOT NULL,
    summary TEXT NOT NULL,
    read_at INTEGER
) STRICT;
CREATE INDEX notifications_unread ON notifications (seq) WHERE read_at IS NULL;
