-- oldest-release: 0.1.0
-- Services that sign their calls: the nonces they have used, and looking up the owner they act for. And what becomes of a key
-- that was found in public.

-- Up Migration

-- A nonce is here as long as a signature with it could still be accepted. No tenant's data.
CREATE TABLE service_nonces (
  key_id text NOT NULL CHECK (length(key_id) BETWEEN 1 AND 64),
  nonce text NOT NULL CHECK (length(nonce) BETWEEN 16 AND 64),
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (key_id, nonce)
);

-- Serves: removing what has expired (forget_service_nonces).
CREATE INDEX service_nonces_expires_at_idx ON service_nonces (expires_at);

-- Writing alone: ON CONFLICT DO NOTHING tells whether a nonce is new, and nobody has to read them.
GRANT INSERT (key_id, nonce, expires_at) ON service_nonces TO iora_api;

-- Removes at most p_limit nonces that have expired by the clock of the database, the oldest first; answers how many. Takes no
-- moment from the caller, so that it can remove none that still guards against a replay.
CREATE FUNCTION forget_service_nonces(p_limit integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_deleted integer;
BEGIN
  DELETE FROM service_nonces WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM service_nonces WHERE expires_at < now() ORDER BY expires_at LIMIT p_limit));
  GET DIAGNOSTICS v_deleted = ROW_COUNT;
  RETURN v_deleted;
END
$$;
GRANT EXECUTE ON FUNCTION forget_service_nonces(integer) TO iora_api;

-- Standing, tier and limits of an owner, an organization or a person, by its id; no row where there is none.
CREATE FUNCTION find_owner(p_owner_id text)
RETURNS TABLE (
  owner_id text, owner_active boolean, tier text,
  requests_per_minute integer, requests_per_month bigint, max_api_keys integer, owner_epoch bigint
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'find_owner', true);
  RETURN QUERY
    SELECT w.id, w.active, w.tier, l.requests_per_minute, l.requests_per_month, l.max_api_keys, w.epoch
    FROM (
      SELECT o.id, o.is_active AND o.suspended_at IS NULL AS active, o.tier, o.epoch,
             o.max_requests_per_minute AS per_minute, o.max_requests_per_month AS per_month, o.max_api_keys AS keys
      FROM organizations o WHERE o.id = p_owner_id
      UNION ALL
      SELECT u.id, u.is_active AND u.suspended_at IS NULL, u.tier, u.epoch,
             u.max_requests_per_minute, u.max_requests_per_month, u.max_api_keys
      FROM users u WHERE u.id = p_owner_id
    ) AS w
    CROSS JOIN LATERAL effective_limits(w.tier, w.per_minute, w.per_month, w.keys) AS l;
  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION find_owner(text) TO iora_api;

CREATE POLICY find_owner ON users FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'find_owner');
CREATE POLICY find_owner ON organizations FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'find_owner');

-- Marks the secret with that hash as found in public and, with p_revoke, ends it; its family and the other secrets stay as they
-- are. Tells the owner by an audit row and an outbox event. A report of what is known already changes nothing and tells
-- nobody. Answers the family, its owner and the secret's state (restricted or revoked); no row for a hash nobody has.
CREATE FUNCTION report_leaked_key(p_key_hash bytea, p_revoke boolean, p_source text)
RETURNS TABLE (family_id uuid, owner_id text, state text)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_key api_keys;
  v_family_revoked boolean;
  v_is_news boolean;
  v_state text;
BEGIN
  PERFORM set_config('iora.definer', 'report_leaked_key', true), set_config('iora.key_hash', encode(p_key_hash, 'hex'), true);
  -- The lock makes the first of several reports at once the one that tells.
  SELECT k.* INTO v_key FROM api_keys k WHERE k.key_hash = p_key_hash FOR UPDATE;
  IF FOUND THEN
    SELECT f.revoked_at IS NOT NULL INTO STRICT v_family_revoked FROM api_key_families f WHERE f.id = v_key.family_id;
    v_is_news := v_key.leaked_at IS NULL OR (p_revoke AND v_key.revoked_at IS NULL);
    IF v_is_news THEN
      UPDATE api_keys k
        SET leaked_at = coalesce(k.leaked_at, now()),
            is_active = k.is_active AND NOT p_revoke,
            revoked_at = CASE WHEN p_revoke THEN coalesce(k.revoked_at, now()) ELSE k.revoked_at END
        WHERE k.key_hash = p_key_hash
        RETURNING k.* INTO v_key;
    END IF;
    v_state := CASE WHEN v_family_revoked OR NOT v_key.is_active OR v_key.revoked_at IS NOT NULL
                    THEN 'revoked' ELSE 'restricted' END;
    IF v_is_news THEN
      INSERT INTO audit_logs (org_id, owner_id, actor_type, action, resource_type, resource_id, outcome, changes)
        VALUES (v_key.org_id, v_key.owner_id, 'system', 'api_key_leaked', 'api_key', v_key.family_id::text, 'succeeded',
                jsonb_build_object('secretId', v_key.id, 'keyPrefix', v_key.key_prefix, 'state', v_state, 'source', p_source));
      INSERT INTO outbox_events (topic, owner_id, payload)
        VALUES ('api_key.leaked', v_key.owner_id,
                jsonb_build_object('keyId', v_key.family_id, 'secretId', v_key.id, 'keyPrefix', v_key.key_prefix,
                                   'state', v_state, 'source', p_source));
    END IF;
    RETURN QUERY SELECT v_key.family_id, v_key.owner_id, v_state;
  END IF;
  PERFORM set_config('iora.definer', '', true), set_config('iora.key_hash', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION report_leaked_key(bytea, boolean, text) TO iora_api;

-- Reading the one secret is what the policy find_api_key allows; changing it only this function may.
CREATE POLICY report_leaked_key ON api_keys FOR UPDATE TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'report_leaked_key'
         AND key_hash = (SELECT decode(nullif(current_setting('iora.key_hash', true), ''), 'hex')));
CREATE POLICY report_leaked_key ON api_key_families FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'report_leaked_key');
CREATE POLICY report_leaked_key ON audit_logs FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) = 'report_leaked_key');
CREATE POLICY report_leaked_key ON outbox_events FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) = 'report_leaked_key');

-- Down Migration

DROP POLICY report_leaked_key ON outbox_events;
DROP POLICY report_leaked_key ON audit_logs;
DROP POLICY report_leaked_key ON api_key_families;
DROP POLICY report_leaked_key ON api_keys;
DROP FUNCTION report_leaked_key(bytea, boolean, text);
DROP POLICY find_owner ON organizations;
DROP POLICY find_owner ON users;
DROP FUNCTION find_owner(text);
DROP FUNCTION forget_service_nonces(integer);
DROP TABLE service_nonces;
