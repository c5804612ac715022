-- What agents keep and say: state in three places, messages, alerts.

-- One value by its key. `place` is session, persistent or shared; `owner` a session's id, an agent's name, or empty.
CREATE TABLE state (
    place TEXT NOT NULL CHECK (place IN ('session', 'persistent', 'shared')),
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    -- Canonical JSON.
    value TEXT NOT NULL,
    -- Goes up by one with each change, over deletions too.
    version INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (place, owner, key)
) STRICT, WITHOUT ROWID;

-- Every value that a key has had, the last ones; null where it was deleted.
CREATE TABLE state_history (
    place TEXT NOT NULL,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    value TEXT,
    updated_at INTEGER NOT NULL,
    updated_by TEXT NOT NULL,
    PRIMARY KEY (place, owner, key, version)
) STRICT, WITHOUT ROWID;

-- A message waits for its reader until they say that they have dealt with it.
CREATE TABLE messages (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    sender TEXT NOT NULL REFERENCES agents (name),
    recipient TEXT NOT NULL REFERENCES agents (name),
    topic TEXT,
    body TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    -- How often it was given to its reader.
    deliveries INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX messages_of_recipient ON messages (recipient, number);

CREATE TABLE subscriptions (
    agent TEXT NOT NULL REFERENCES agents (name),
    topic TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (agent, topic)
) STRICT, WITHOUT ROWID;
CREATE INDEX subscriptions_by_topic ON subscriptions (topic);

CREATE TABLE alerts (
    number INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL REFERENCES agents (name),
    message TEXT NOT NULL,
    severity TEXT NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    created_at INTEGER NOT NULL,
    acknowledged_at INTEGER
) STRICT;
CREATE INDEX alerts_by_agent ON alerts (agent, number);
