-- What a person is shown, how many must agree and until when; supervisors with tokens, grants, what is to be told to
-- whom, and links that answer.

-- Why the agent asks, in its own words.
ALTER TABLE approvals ADD COLUMN purpose TEXT;
-- What is shown, redacted: canonical JSON.
ALTER TABLE approvals ADD COLUMN shown TEXT NOT NULL DEFAULT '{}';
-- Every rule's terms, all of which must be met: a JSON array.
ALTER TABLE approvals ADD COLUMN terms TEXT NOT NULL DEFAULT '[]';
-- Equal for like requests of one agent.
ALTER TABLE approvals ADD COLUMN kin TEXT NOT NULL DEFAULT '';
ALTER TABLE approvals ADD COLUMN expires_at INTEGER;
ALTER TABLE approvals ADD COLUMN remind_at INTEGER;
-- The request that this one asks again.
ALTER TABLE approvals ADD COLUMN retry_of TEXT;
-- The arguments as the agent gave them, where a supervisor has changed them.
ALTER TABLE approvals ADD COLUMN original TEXT;

-- One person's consent to a request that needs several.
CREATE TABLE approval_votes (
    request TEXT NOT NULL REFERENCES approvals (id),
    principal TEXT NOT NULL,
    voted_at INTEGER NOT NULL,
    reason TEXT,
    PRIMARY KEY (request, principal)
) STRICT, WITHOUT ROWID;

CREATE TABLE supervisors (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT,
    -- SHA-256 of the token's text; null once revoked.
    token_hash BLOB UNIQUE CHECK (token_hash IS NULL OR length(token_hash) = 32),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

-- An answer given in advance.
CREATE TABLE grants (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL REFERENCES agents (name),
    capability TEXT NOT NULL,
    -- Conditions in the policy's language: a JSON array, all of which must hold.
    conditions TEXT NOT NULL,
    -- Null for every session of the agent.
    session TEXT,
    expires_at INTEGER,
    -- Null for as many as you like.
    uses INTEGER CHECK (uses >= 1),
    used INTEGER NOT NULL DEFAULT 0,
    last_used_at INTEGER,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    -- Those who agreed to it: a JSON array of principals.
    agreed TEXT NOT NULL,
    request TEXT,
    reason TEXT,
    ended_at INTEGER,
    ended_by TEXT
) STRICT;
CREATE INDEX grants_live ON grants (agent, capability) WHERE ended_at IS NULL;

-- What a notifier has yet to be told.
CREATE TABLE deliveries (
    number INTEGER NOT NULL PRIMARY KEY,
    notifier TEXT NOT NULL,
    message TEXT NOT NULL,
    request TEXT,
    due_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    problem TEXT
) STRICT;
CREATE INDEX deliveries_due ON deliveries (due_at);

-- Links that answer a request once.
CREATE TABLE approval_links (
    token_hash BLOB NOT NULL PRIMARY KEY CHECK (length(token_hash) = 32),
    request TEXT NOT NULL REFERENCES approvals (id),
    -- What the request was bound to when the link was made.
    binding_digest BLOB NOT NULL CHECK (length(binding_digest) = 32),
    principal TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
) STRICT, WITHOUT ROWID;
