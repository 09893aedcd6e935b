-- oldest-release: 0.1.0
-- API keys. A family is what a tenant sees: its id, name and permissions survive rotation. Each secret of a family is a
-- row of `api_keys`, found by the keyed hash of the whole key; the key itself is stored nowhere.

-- Up Migration

CREATE TABLE api_key_families (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id text NOT NULL REFERENCES users (id),
  created_by_key_id uuid, -- the family of the key that made it, where one did
  org_id text REFERENCES organizations (id),
  owner_id text NOT NULL GENERATED ALWAYS AS (coalesce(org_id, user_id)) STORED,
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  environment text NOT NULL CHECK (environment IN ('live', 'test')),
  permissions text[] NOT NULL DEFAULT '{tools:read}' CHECK (
    cardinality(permissions) BETWEEN 1 AND 5
    AND permissions <@ ARRAY['tools:read', 'tools:write', 'keys:read', 'keys:write', 'usage:read']
  ),
  requests_per_minute integer CHECK (requests_per_minute > 0),
  requests_per_month bigint CHECK (requests_per_month >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  revoked_by text CHECK (length(revoked_by) BETWEEN 1 AND 255),
  CONSTRAINT api_key_families_revoked_check CHECK (revoked_by IS NULL OR revoked_at IS NOT NULL),
  -- Serves: a tenant's keys, newest first, paged (ids are in the order of creation); one family of a tenant by id; and the
  -- foreign key below, which keeps a secret with its family's owner.
  CONSTRAINT api_key_families_owner_key UNIQUE (owner_id, id)
);

-- Serves: the count of a tenant's live keys under the creation lock (POST /user/api-keys).
CREATE INDEX api_key_families_live_idx ON api_key_families (owner_id, expires_at) WHERE revoked_at IS NULL;

CREATE TRIGGER api_key_families_set_updated_at BEFORE UPDATE ON api_key_families
  FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE api_keys (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  family_id uuid NOT NULL,
  user_id text NOT NULL REFERENCES users (id),
  org_id text REFERENCES organizations (id),
  owner_id text NOT NULL GENERATED ALWAYS AS (coalesce(org_id, user_id)) STORED,
  -- Serves: the look-up of every key that is shown to us (find_api_key).
  key_hash bytea NOT NULL CHECK (octet_length(key_hash) = 32),
  pepper_version integer NOT NULL CHECK (pepper_version > 0),
  key_prefix text NOT NULL CHECK (length(key_prefix) BETWEEN 1 AND 50),
  created_at timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz,
  expires_at timestamptz,
  is_active boolean NOT NULL DEFAULT true,
  revoked_at timestamptz,
  usage_count bigint NOT NULL DEFAULT 0 CHECK (usage_count >= 0),
  CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash),
  CONSTRAINT api_keys_family_fkey FOREIGN KEY (owner_id, family_id) REFERENCES api_key_families (owner_id, id)
) WITH (fillfactor = 85); -- room on the page, so that counting uses rewrites no index

-- Serves: the secrets of one family (get, rotate, revoke).
CREATE INDEX api_keys_family_idx ON api_keys (owner_id, family_id);

ALTER TABLE api_key_families ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key_families FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON api_key_families TO iora_api
  USING (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
-- The creator on record is the caller: nobody signs for another, and nobody learns from the foreign key who exists.
CREATE POLICY creator_is_caller ON api_key_families AS RESTRICTIVE FOR INSERT TO iora_api
  WITH CHECK (user_id = (SELECT nullif(current_setting('app.user_id', true), '')));
GRANT SELECT ON api_key_families TO iora_api;
GRANT INSERT (id, user_id, created_by_key_id, org_id, name, environment, permissions, requests_per_minute, requests_per_month, expires_at)
  ON api_key_families TO iora_api;
GRANT UPDATE (name, permissions, requests_per_minute, requests_per_month, expires_at, revoked_at, revoked_by)
  ON api_key_families TO iora_api;

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON api_keys TO iora_api
  USING (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
CREATE POLICY creator_is_caller ON api_keys AS RESTRICTIVE FOR INSERT TO iora_api
  WITH CHECK (user_id = (SELECT nullif(current_setting('app.user_id', true), '')));
-- Everything but the hash may be read; the hash may be replaced when the pepper changes.
GRANT SELECT (id, family_id, user_id, org_id, owner_id, pepper_version, key_prefix, created_at, last_used_at, expires_at,
              is_active, revoked_at, usage_count)
  ON api_keys TO iora_api;
GRANT INSERT (id, family_id, user_id, org_id, key_hash, pepper_version, key_prefix, expires_at) ON api_keys TO iora_api;
GRANT UPDATE (key_hash, pepper_version, expires_at, is_active, revoked_at) ON api_keys TO iora_api;

-- Down Migration

DROP TABLE api_keys;
DROP TABLE api_key_families;
