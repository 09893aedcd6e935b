-- oldest-release: 0.1.0
-- What rotation, leaks, allow-lists and expiry keep of a key, and the epoch by which instances tell what they know of an
-- owner from what they should know.

-- Up Migration

-- Counts the changes of an owner's rights; bumped in the transaction of each, and never taken back.
ALTER TABLE users ADD COLUMN epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0);
ALTER TABLE organizations ADD COLUMN epoch bigint NOT NULL DEFAULT 0 CHECK (epoch >= 0);

ALTER TABLE api_key_families
  ADD COLUMN allowed_cidrs cidr[] NOT NULL DEFAULT '{}' CHECK (cardinality(allowed_cidrs) <= 20),
  -- Set once, when the expiry has been noticed and told; expires_at alone decides.
  ADD COLUMN expired_at timestamptz,
  -- The secrets are gone and the name with them; the row stays because usage names it.
  ADD COLUMN tombstoned_at timestamptz;
GRANT INSERT (allowed_cidrs), UPDATE (allowed_cidrs) ON api_key_families TO iora_api;

ALTER TABLE api_keys
  ADD COLUMN leaked_at timestamptz,
  -- Rotated out at that moment, with so many uses until then; from then on it works until expires_at.
  ADD COLUMN superseded_at timestamptz,
  ADD COLUMN superseded_usage_count bigint CHECK (superseded_usage_count >= 0),
  ADD COLUMN ends_when_idle boolean NOT NULL DEFAULT false,
  ADD CONSTRAINT api_keys_superseded_check CHECK ((superseded_at IS NULL) = (superseded_usage_count IS NULL));
GRANT SELECT (leaked_at, superseded_at, superseded_usage_count, ends_when_idle) ON api_keys TO iora_api;
GRANT UPDATE (superseded_at, superseded_usage_count, ends_when_idle) ON api_keys TO iora_api;

-- Everything needed to judge a key, as in 010, and beside it what this migration adds. An older release reads the columns it
-- knows.
DROP FUNCTION find_api_key(bytea);
CREATE FUNCTION find_api_key(p_key_hash bytea)
RETURNS TABLE (
  secret_id uuid, family_id uuid, name text, environment text, permissions text[], key_prefix text, pepper_version integer,
  secret_is_active boolean, secret_expires_at timestamptz, secret_revoked_at timestamptz,
  family_expires_at timestamptz, family_revoked_at timestamptz,
  user_id text, org_id text, owner_id text,
  family_requests_per_minute integer, family_requests_per_month bigint,
  tier text, requests_per_minute integer, requests_per_month bigint, max_api_keys integer,
  owner_active boolean, creator_active boolean, creator_role text,
  secret_leaked_at timestamptz, allowed_cidrs text[], owner_epoch bigint
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'find_api_key', true), set_config('iora.key_hash', encode(p_key_hash, 'hex'), true);
  RETURN QUERY
    SELECT k.id, f.id, f.name, f.environment, f.permissions, k.key_prefix, k.pepper_version,
           k.is_active, k.expires_at, k.revoked_at,
           f.expires_at, f.revoked_at,
           f.user_id, f.org_id, f.owner_id,
           f.requests_per_minute, f.requests_per_month,
           coalesce(o.tier, u.tier), l.requests_per_minute, l.requests_per_month, l.max_api_keys,
           coalesce(o.is_active AND o.suspended_at IS NULL, u.is_active AND u.suspended_at IS NULL),
           u.is_active AND u.suspended_at IS NULL, m.role,
           k.leaked_at, f.allowed_cidrs::text[], coalesce(o.epoch, u.epoch)
    FROM api_keys k
    JOIN api_key_families f ON f.id = k.family_id
    JOIN users u ON u.id = f.user_id
    LEFT JOIN organizations o ON o.id = f.org_id
    LEFT JOIN organization_members m ON m.org_id = f.org_id AND m.user_id = f.user_id
    CROSS JOIN LATERAL effective_limits(
      coalesce(o.tier, u.tier),
      CASE WHEN o.id IS NULL THEN u.max_requests_per_minute ELSE o.max_requests_per_minute END,
      CASE WHEN o.id IS NULL THEN u.max_requests_per_month ELSE o.max_requests_per_month END,
      CASE WHEN o.id IS NULL THEN u.max_api_keys ELSE o.max_api_keys END
    ) AS l
    WHERE k.key_hash = p_key_hash;
  PERFORM set_config('iora.definer', '', true), set_config('iora.key_hash', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION find_api_key(bytea) TO iora_api;

-- Bumps the epochs of owners; answers each with its new one. Locks in the order of ids, so that two changes of the same
-- owners never wait for each other in a circle. Ids that no owner has are passed over.
CREATE FUNCTION bump_epochs(p_owner_ids text[]) RETURNS TABLE (owner_id text, epoch bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_id text;
BEGIN
  PERFORM set_config('iora.definer', 'bump_epochs', true);
  FOR v_id IN SELECT DISTINCT id FROM unnest(p_owner_ids) AS id ORDER BY id LOOP
    IF starts_with(v_id, 'org_') THEN
      RETURN QUERY UPDATE organizations o SET epoch = o.epoch + 1 WHERE o.id = v_id RETURNING o.id, o.epoch;
    ELSE
      RETURN QUERY UPDATE users u SET epoch = u.epoch + 1 WHERE u.id = v_id RETURNING u.id, u.epoch;
    END IF;
  END LOOP;
  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION bump_epochs(text[]) TO iora_api;

CREATE POLICY bump_epochs ON users TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'bump_epochs');
CREATE POLICY bump_epochs ON organizations TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'bump_epochs');

-- Down Migration

DROP POLICY bump_epochs ON organizations;
DROP POLICY bump_epochs ON users;
DROP FUNCTION bump_epochs(text[]);
DROP FUNCTION find_api_key(bytea);
CREATE FUNCTION find_api_key(p_key_hash bytea)
RETURNS TABLE (
  secret_id uuid, family_id uuid, name text, environment text, permissions text[], key_prefix text, pepper_version integer,
  secret_is_active boolean, secret_expires_at timestamptz, secret_revoked_at timestamptz,
  family_expires_at timestamptz, family_revoked_at timestamptz,
  user_id text, org_id text, owner_id text,
  family_requests_per_minute integer, family_requests_per_month bigint,
  tier text, requests_per_minute integer, requests_per_month bigint, max_api_keys integer,
  owner_active boolean, creator_active boolean, creator_role text
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'find_api_key', true), set_config('iora.key_hash', encode(p_key_hash, 'hex'), true);
  RETURN QUERY
    SELECT k.id, f.id, f.name, f.environment, f.permissions, k.key_prefix, k.pepper_version,
           k.is_active, k.expires_at, k.revoked_at,
           f.expires_at, f.revoked_at,
           f.user_id, f.org_id, f.owner_id,
           f.requests_per_minute, f.requests_per_month,
           coalesce(o.tier, u.tier), l.requests_per_minute, l.requests_per_month, l.max_api_keys,
           coalesce(o.is_active AND o.suspended_at IS NULL, u.is_active AND u.suspended_at IS NULL),
           u.is_active AND u.suspended_at IS NULL, m.role
    FROM api_keys k
    JOIN api_key_families f ON f.id = k.family_id
    JOIN users u ON u.id = f.user_id
    LEFT JOIN organizations o ON o.id = f.org_id
    LEFT JOIN organization_members m ON m.org_id = f.org_id AND m.user_id = f.user_id
    CROSS JOIN LATERAL effective_limits(
      coalesce(o.tier, u.tier),
      CASE WHEN o.id IS NULL THEN u.max_requests_per_minute ELSE o.max_requests_per_minute END,
      CASE WHEN o.id IS NULL THEN u.max_requests_per_month ELSE o.max_requests_per_month END,
      CASE WHEN o.id IS NULL THEN u.max_api_keys ELSE o.max_api_keys END
    ) AS l
    WHERE k.key_hash = p_key_hash;
  PERFORM set_config('iora.definer', '', true), set_config('iora.key_hash', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION find_api_key(bytea) TO iora_api;

ALTER TABLE api_keys
  DROP COLUMN leaked_at, DROP COLUMN superseded_at, DROP COLUMN superseded_usage_count, DROP COLUMN ends_when_idle;
ALTER TABLE api_key_families DROP COLUMN allowed_cidrs, DROP COLUMN expired_at, DROP COLUMN tombstoned_at;
ALTER TABLE organizations DROP COLUMN epoch;
ALTER TABLE users DROP COLUMN epoch;
