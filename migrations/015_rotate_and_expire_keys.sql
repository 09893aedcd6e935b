-- oldest-release: 0.1.0
-- What happens to keys without anybody asking: overlaps that end once the old secret is idle, expiry that is told before and
-- marked after, and keys that are long gone. And how many live secrets hang on each pepper.

-- Up Migration

-- What an owner was told of a coming expiry. A changed expiry is another one, and is told anew.
CREATE TABLE api_key_expiry_notices (
  owner_id text NOT NULL CHECK (length(owner_id) BETWEEN 1 AND 100),
  family_id uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  days integer NOT NULL CHECK (days IN (1, 7)),
  told_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (family_id, expires_at, days),
  CONSTRAINT api_key_expiry_notices_family_fkey FOREIGN KEY (owner_id, family_id) REFERENCES api_key_families (owner_id, id)
);
ALTER TABLE api_key_expiry_notices ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key_expiry_notices FORCE ROW LEVEL SECURITY;
-- Nobody but expire_keys has to read it; should a right ever be granted, it is to one's own.
CREATE POLICY tenant_isolation ON api_key_expiry_notices TO iora_api
  USING (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));

-- Serves: families that expire soon or have just expired (expire_keys).
CREATE INDEX api_key_families_expiry_idx ON api_key_families (expires_at) WHERE revoked_at IS NULL AND expired_at IS NULL;
-- Serves: families that ended long ago (expire_keys).
CREATE INDEX api_key_families_ended_idx ON api_key_families (least(revoked_at, expires_at)) WHERE tombstoned_at IS NULL;
-- Serves: secrets that ended long ago (expire_keys).
CREATE INDEX api_keys_ended_idx ON api_keys (least(revoked_at, expires_at)) WHERE revoked_at IS NOT NULL OR expires_at IS NOT NULL;
-- Serves: old secrets that end once they are idle (end_idle_overlaps).
CREATE INDEX api_keys_idle_idx ON api_keys (superseded_at) WHERE ends_when_idle AND is_active;

-- Serves: the secrets of some keys that were not ended, however many were before (rotate, revoke).
CREATE INDEX api_keys_active_idx ON api_keys (owner_id, family_id) WHERE is_active;

-- One round of what time does to keys, at p_now, of each kind at most p_batch; answers what it did, for the log:
-- 'expiring' (told 7 days or 1 day before, of the two the nearer alone; not where that moment lay before the key was made),
-- 'expired' (marked, once), 'tombstoned' (its secrets and name gone 90 days after it expired or was revoked; usage still names
-- its id), 'thinned' (secrets gone that ended 90 days ago, but never the newest of a key; p_batch counts secrets here).
-- What somebody is changing at the moment is left to the next round.
CREATE FUNCTION expire_keys(p_now timestamptz, p_batch integer)
RETURNS TABLE (event text, family_id uuid, owner_id text, expires_at timestamptz, days integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_days integer;
  v_from timestamptz;
  v_until timestamptz;
  v_key api_key_families;
BEGIN
  PERFORM set_config('iora.definer', 'expire_keys', true);

  FOREACH v_days IN ARRAY ARRAY[7, 1] LOOP
    -- With less than a day left, that there were seven is no news.
    v_from := CASE v_days WHEN 7 THEN p_now + make_interval(hours => 24) ELSE p_now END;
    v_until := p_now + make_interval(hours => 24 * v_days);
    FOR v_key IN
      SELECT f.* FROM api_key_families f
      WHERE f.revoked_at IS NULL AND f.expired_at IS NULL AND f.expires_at > v_from AND f.expires_at <= v_until
        AND f.created_at <= f.expires_at - make_interval(hours => 24 * v_days)
        AND NOT EXISTS (SELECT FROM api_key_expiry_notices n
                        WHERE n.family_id = f.id AND n.expires_at = f.expires_at AND n.days = v_days)
      ORDER BY f.expires_at LIMIT p_batch FOR UPDATE OF f SKIP LOCKED
    LOOP
      INSERT INTO api_key_expiry_notices (owner_id, family_id, expires_at, days)
        VALUES (v_key.owner_id, v_key.id, v_key.expires_at, v_days);
      INSERT INTO audit_logs (org_id, owner_id, actor_type, actor_id, action, resource_type, resource_id, outcome, changes)
        VALUES (v_key.org_id, v_key.owner_id, 'system', 'keys.expire', 'api_key_expiring', 'api_key', v_key.id::text, 'succeeded',
                jsonb_build_object('name', v_key.name, 'expiresAt', v_key.expires_at, 'days', v_days));
      INSERT INTO outbox_events (topic, owner_id, payload)
        VALUES ('api_key.expiring', v_key.owner_id,
                jsonb_build_object('keyId', v_key.id, 'name', v_key.name, 'expiresAt', v_key.expires_at, 'days', v_days));
      RETURN QUERY SELECT 'expiring', v_key.id, v_key.owner_id, v_key.expires_at, v_days;
    END LOOP;
  END LOOP;

  FOR v_key IN
    SELECT f.* FROM api_key_families f
    WHERE f.revoked_at IS NULL AND f.expired_at IS NULL AND f.expires_at <= p_now
    ORDER BY f.expires_at LIMIT p_batch FOR UPDATE OF f SKIP LOCKED
  LOOP
    UPDATE api_key_families f SET expired_at = p_now WHERE f.id = v_key.id;
    INSERT INTO audit_logs (org_id, owner_id, actor_type, actor_id, action, resource_type, resource_id, outcome, changes)
      VALUES (v_key.org_id, v_key.owner_id, 'system', 'keys.expire', 'api_key_expired', 'api_key', v_key.id::text, 'succeeded',
              jsonb_build_object('name', v_key.name, 'expiresAt', v_key.expires_at));
    INSERT INTO outbox_events (topic, owner_id, payload)
      VALUES ('api_key.expired', v_key.owner_id,
              jsonb_build_object('keyId', v_key.id, 'name', v_key.name, 'expiresAt', v_key.expires_at));
    RETURN QUERY SELECT 'expired', v_key.id, v_key.owner_id, v_key.expires_at, NULL::integer;
  END LOOP;

  v_until := p_now - make_interval(hours => 24 * 90);
  FOR v_key IN
    SELECT f.* FROM api_key_families f
    WHERE f.tombstoned_at IS NULL AND least(f.revoked_at, f.expires_at) <= v_until
    ORDER BY least(f.revoked_at, f.expires_at) LIMIT p_batch FOR UPDATE OF f SKIP LOCKED
  LOOP
    DELETE FROM api_keys k WHERE k.owner_id = v_key.owner_id AND k.family_id = v_key.id;
    DELETE FROM api_key_expiry_notices n WHERE n.family_id = v_key.id;
    UPDATE api_key_families f SET tombstoned_at = p_now, name = 'deleted key', allowed_cidrs = '{}' WHERE f.id = v_key.id;
    INSERT INTO audit_logs (org_id, owner_id, actor_type, actor_id, action, resource_type, resource_id, outcome)
      VALUES (v_key.org_id, v_key.owner_id, 'system', 'keys.expire', 'api_key_tombstoned', 'api_key', v_key.id::text, 'succeeded');
    RETURN QUERY SELECT 'tombstoned', v_key.id, v_key.owner_id, v_key.expires_at, NULL::integer;
  END LOOP;

  -- Ids are in the order of making. The newest stays so that the key still shows a prefix.
  RETURN QUERY
    WITH ended AS (
      SELECT k.id FROM api_keys k
      WHERE (k.revoked_at IS NOT NULL OR k.expires_at IS NOT NULL) AND least(k.revoked_at, k.expires_at) <= v_until
        AND EXISTS (SELECT FROM api_keys newer
                    WHERE newer.owner_id = k.owner_id AND newer.family_id = k.family_id AND newer.id > k.id)
      ORDER BY least(k.revoked_at, k.expires_at) LIMIT p_batch FOR UPDATE OF k SKIP LOCKED
    ), gone AS (
      DELETE FROM api_keys k USING ended WHERE k.id = ended.id RETURNING k.family_id, k.owner_id
    )
    SELECT DISTINCT 'thinned', gone.family_id, gone.owner_id, NULL::timestamptz, NULL::integer FROM gone;

  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION expire_keys(timestamptz, integer) TO iora_api;

CREATE POLICY expire_keys ON api_key_families TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'expire_keys');
CREATE POLICY expire_keys ON api_keys TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'expire_keys');
CREATE POLICY expire_keys ON api_key_expiry_notices TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'expire_keys');
CREATE POLICY expire_keys ON audit_logs FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) = 'expire_keys');
CREATE POLICY expire_keys ON outbox_events FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) = 'expire_keys');

-- Ends, at p_now, old secrets that were rotated out on the condition that they end once idle, and that were neither used
-- nor rotated out since p_idle_since; at most p_batch. Answers whose they were. Those that have ended by themselves are only
-- taken off the list.
CREATE FUNCTION end_idle_overlaps(p_now timestamptz, p_idle_since timestamptz, p_batch integer)
RETURNS TABLE (family_id uuid, owner_id text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_secret record;
BEGIN
  PERFORM set_config('iora.definer', 'end_idle_overlaps', true);
  FOR v_secret IN
    SELECT k.id, k.family_id, k.owner_id, k.org_id, k.key_prefix, coalesce(k.expires_at <= p_now, false) AS has_ended
    FROM api_keys k
    WHERE k.ends_when_idle AND k.is_active AND k.superseded_at <= p_idle_since
      AND (k.expires_at <= p_now OR coalesce(k.last_used_at, k.superseded_at) <= p_idle_since)
    ORDER BY k.superseded_at LIMIT p_batch FOR UPDATE OF k SKIP LOCKED
  LOOP
    UPDATE api_keys k
      SET ends_when_idle = false, is_active = v_secret.has_ended, expires_at = least(k.expires_at, p_now)
      WHERE k.id = v_secret.id;
    CONTINUE WHEN v_secret.has_ended;
    INSERT INTO audit_logs (org_id, owner_id, actor_type, actor_id, action, resource_type, resource_id, outcome, changes)
      VALUES (v_secret.org_id, v_secret.owner_id, 'system', 'keys.end_idle_overlaps', 'api_key_overlap_ended', 'api_key',
              v_secret.family_id::text, 'succeeded', jsonb_build_object('keyPrefix', v_secret.key_prefix));
    RETURN QUERY SELECT v_secret.family_id, v_secret.owner_id;
  END LOOP;
  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION end_idle_overlaps(timestamptz, timestamptz, integer) TO iora_api;

CREATE POLICY end_idle_overlaps ON api_keys TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'end_idle_overlaps');
CREATE POLICY end_idle_overlaps ON audit_logs FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) = 'end_idle_overlaps');

-- How many secrets that still work hang on each pepper. Counts whole tables: for an operator, not for a request.
CREATE FUNCTION count_keys_by_pepper() RETURNS TABLE (pepper_version integer, secrets bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'count_keys_by_pepper', true);
  RETURN QUERY
    SELECT k.pepper_version, count(*)
    FROM api_keys k JOIN api_key_families f ON f.id = k.family_id
    WHERE k.is_active AND (k.expires_at IS NULL OR k.expires_at > now())
      AND f.revoked_at IS NULL AND (f.expires_at IS NULL OR f.expires_at > now())
    GROUP BY k.pepper_version ORDER BY k.pepper_version;
  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION count_keys_by_pepper() TO iora_api;

CREATE POLICY count_keys_by_pepper ON api_keys FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'count_keys_by_pepper');
CREATE POLICY count_keys_by_pepper ON api_key_families FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'count_keys_by_pepper');

-- Down Migration

DROP POLICY count_keys_by_pepper ON api_key_families;
DROP POLICY count_keys_by_pepper ON api_keys;
DROP FUNCTION count_keys_by_pepper();
DROP POLICY end_idle_overlaps ON audit_logs;
DROP POLICY end_idle_overlaps ON api_keys;
DROP FUNCTION end_idle_overlaps(timestamptz, timestamptz, integer);
DROP POLICY expire_keys ON outbox_events;
DROP POLICY expire_keys ON audit_logs;
DROP POLICY expire_keys ON api_keys;
DROP POLICY expire_keys ON api_key_families;
DROP FUNCTION expire_keys(timestamptz, integer);
DROP INDEX api_keys_active_idx;
DROP INDEX api_keys_idle_idx;
DROP INDEX api_keys_ended_idx;
DROP INDEX api_key_families_ended_idx;
DROP INDEX api_key_families_expiry_idx;
DROP TABLE api_key_expiry_notices;
