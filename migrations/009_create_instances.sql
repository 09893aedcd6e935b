-- oldest-release: 0.1.0
-- The processes that are alive, by their heartbeat: a revocation waits for these to acknowledge. No tenant's data.

-- Up Migration

CREATE TABLE instances (
  id uuid PRIMARY KEY,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now(),
  hostname text NOT NULL CHECK (length(hostname) BETWEEN 1 AND 255),
  version text NOT NULL CHECK (length(version) BETWEEN 1 AND 50)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON instances TO iora_api, iora_worker;

-- Down Migration

DROP TABLE instances;
