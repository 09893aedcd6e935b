-- oldest-release: 0.1.0
-- Events that leave the system, written in the transaction that causes them and delivered afterwards by the worker.

-- Up Migration

CREATE TABLE outbox_events (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  topic text NOT NULL CHECK (length(topic) BETWEEN 1 AND 100),
  owner_id text NOT NULL CHECK (length(owner_id) BETWEEN 1 AND 100),
  payload jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  available_at timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  delivered_at timestamptz
);

-- Serves: the worker's next events; only those still to be delivered are in it.
CREATE INDEX outbox_events_undelivered_idx ON outbox_events (available_at) WHERE delivered_at IS NULL;

ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox_events FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON outbox_events FOR INSERT TO iora_api
  WITH CHECK (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
CREATE POLICY worker_all ON outbox_events TO iora_worker USING (true);
GRANT INSERT (id, topic, owner_id, payload, available_at) ON outbox_events TO iora_api;
GRANT SELECT, DELETE ON outbox_events TO iora_worker;
GRANT UPDATE (available_at, attempts, delivered_at) ON outbox_events TO iora_worker;

-- Down Migration

DROP TABLE outbox_events;
