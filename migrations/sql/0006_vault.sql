-- Secrets, sealed; calls made later; folders of the machine that agents see.

-- The key of all secrets, sealed with one that Argon2id makes of a passphrase.
CREATE TABLE vault (
    number INTEGER NOT NULL PRIMARY KEY CHECK (number = 1),
    salt BLOB NOT NULL,
    operations INTEGER NOT NULL,
    memory INTEGER NOT NULL,
    sealed_key BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- `scope` is canonical JSON, {agents?, capabilities, hosts, plain_http?}, and belongs to what is sealed.
CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    scope TEXT NOT NULL,
    version INTEGER NOT NULL,
    -- Nonce, ciphertext and tag; null once it is revoked.
    sealed BLOB,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    CHECK (json_valid(scope))
) STRICT, WITHOUT ROWID;

-- Calls that are made later in an agent's name.
CREATE TABLE schedules (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL REFERENCES agents (name),
    capability TEXT NOT NULL,
    -- Canonical JSON.
    arguments TEXT NOT NULL,
    -- Five fields, and the zone they are meant in; null for one call.
    cron TEXT,
    zone TEXT,
    -- What was missed while the gateway did not run is made up for, once.
    catch_up INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Null once it has ended.
    next_run INTEGER,
    last_run INTEGER,
    runs INTEGER NOT NULL DEFAULT 0,
    missed INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX schedules_by_next_run ON schedules (next_run) WHERE next_run IS NOT NULL;
CREATE INDEX schedules_of_agent ON schedules (agent, number);

-- Mail that was sent with time to take it back.
CREATE TABLE held_mail (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL REFERENCES agents (name),
    account TEXT NOT NULL,
    -- The request that a person approved it by.
    approval TEXT,
    -- Canonical JSON: {to, cc, bcc, subject, body, in_reply_to?}; null once it has ended.
    message TEXT,
    state TEXT NOT NULL CHECK (state IN ('held', 'sending', 'sent', 'failed', 'cancelled', 'unknown')),
    created_at INTEGER NOT NULL,
    send_at INTEGER NOT NULL,
    error TEXT
) STRICT;
CREATE INDEX held_mail_due ON held_mail (send_at) WHERE state = 'held';

-- How much agents may keep in their workspaces; null for as much as there is.
CREATE TABLE quotas (
    agent TEXT NOT NULL PRIMARY KEY REFERENCES agents (name),
    bytes INTEGER,
    files INTEGER
) STRICT, WITHOUT ROWID;

-- Folders of the machine that agents reach as /mnt/<label>.
CREATE TABLE mounts (
    agent TEXT NOT NULL REFERENCES agents (name),
    label TEXT NOT NULL,
    -- Absolute and without links.
    source TEXT NOT NULL,
    read_only INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    PRIMARY KEY (agent, label)
) STRICT, WITHOUT ROWID;
