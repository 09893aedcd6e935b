-- oldest-release: 0.1.0
-- Limits as data. No limit (NULL) means: up to the ceiling, so nothing is ever unlimited.

-- Up Migration

CREATE TABLE tiers (
  name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_-]{0,49}$'),
  requests_per_minute integer CHECK (requests_per_minute > 0),
  requests_per_month bigint CHECK (requests_per_month >= 0),
  max_api_keys integer NOT NULL CHECK (max_api_keys >= 0),
  ceiling_per_minute integer NOT NULL DEFAULT 100000 CHECK (ceiling_per_minute > 0),
  ceiling_per_month bigint NOT NULL DEFAULT 1000000000 CHECK (ceiling_per_month > 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER tiers_set_updated_at BEFORE UPDATE ON tiers FOR EACH ROW EXECUTE FUNCTION set_updated_at();

INSERT INTO tiers (name, requests_per_minute, requests_per_month, max_api_keys) VALUES
  ('free', 60, 10000, 5),
  ('pro', 1000, 100000, 50),
  ('enterprise', NULL, NULL, 500);

GRANT SELECT ON tiers TO iora_api, iora_worker;

ALTER TABLE users ADD CONSTRAINT users_tier_fkey FOREIGN KEY (tier) REFERENCES tiers (name);
ALTER TABLE organizations ADD CONSTRAINT organizations_tier_fkey FOREIGN KEY (tier) REFERENCES tiers (name);

-- Down Migration

ALTER TABLE organizations DROP CONSTRAINT organizations_tier_fkey;
ALTER TABLE users DROP CONSTRAINT users_tier_fkey;
DROP TABLE tiers;
