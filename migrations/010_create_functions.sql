-- oldest-release: 0.1.0
-- What crosses tenants: functions that run as the owner of the schema. Row-level security is forced on the owner too, so
-- each function names itself in the transaction-local setting iora.definer and meets only the policies made for it.
-- iora_api may set the same name and gains nothing by it: the policies are the owner's.

-- Up Migration

-- The limits that hold for an owner: its own override, else its tier's, never above the tier's ceiling.
CREATE FUNCTION effective_limits(p_tier text, p_per_minute integer, p_per_month bigint, p_max_api_keys integer)
RETURNS TABLE (requests_per_minute integer, requests_per_month bigint, max_api_keys integer)
LANGUAGE sql STABLE AS $$
  SELECT least(coalesce(p_per_minute, t.requests_per_minute, t.ceiling_per_minute), t.ceiling_per_minute),
         least(coalesce(p_per_month, t.requests_per_month, t.ceiling_per_month), t.ceiling_per_month),
         coalesce(p_max_api_keys, t.max_api_keys)
  FROM public.tiers t WHERE t.name = p_tier
$$;

-- Everything needed to judge a key, by the hash of the whole key; no row for a key nobody made. Whether the row may be
-- used (expiry, revocation, suspension) is the caller's to decide, with its own clock. creator_role is NULL for a
-- personal key and for a creator who left the organization.
-- Sequential scans are off so that a plan kept since the tables were small stays one probe when they are large.
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

CREATE POLICY find_api_key ON api_keys FOR SELECT TO iora_owner
  USING (key_hash = (SELECT decode(nullif(current_setting('iora.key_hash', true), ''), 'hex')));
CREATE POLICY find_api_key ON api_key_families FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'find_api_key');
CREATE POLICY find_api_key ON users FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'find_api_key');
CREATE POLICY find_api_key ON organizations FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'find_api_key');
CREATE POLICY find_api_key ON organization_members FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'find_api_key');

-- Finds or makes the person (p_issuer, p_subject) and, when p_org_slug is given, the organization and the membership;
-- safe when the same person signs in many times at once. The email is stored only when the person is made here, for its
-- ciphertext is bound to p_new_user_id; an email that another active person has is left out. p_org_role NULL makes the
-- first member the owner and later ones members; a role that is given always holds. Refuses (42501) an organization that
-- another issuer vouches for.
CREATE FUNCTION resolve_person(
  p_issuer text, p_subject text, p_new_user_id text,
  p_email_ciphertext bytea, p_email_blind_index bytea, p_data_key_version integer,
  p_org_slug text, p_new_org_id text, p_org_role text
)
RETURNS TABLE (
  user_id text, org_id text, role text, owner_id text,
  tier text, requests_per_minute integer, requests_per_month bigint, max_api_keys integer,
  user_active boolean, org_active boolean, platform_permissions text[]
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_user users;
  v_org organizations;
  v_role text;
BEGIN
  PERFORM set_config('iora.definer', 'resolve_person', true);

  SELECT * INTO v_user FROM users WHERE issuer = p_issuer AND subject = p_subject;
  IF NOT FOUND THEN
    INSERT INTO users (id, issuer, subject, email_ciphertext, email_blind_index, data_key_version, last_login_at)
      VALUES (p_new_user_id, p_issuer, p_subject, p_email_ciphertext, p_email_blind_index, p_data_key_version, now())
      ON CONFLICT DO NOTHING;
    SELECT * INTO v_user FROM users WHERE issuer = p_issuer AND subject = p_subject;
    IF NOT FOUND THEN -- so it was the email that met another active person's
      INSERT INTO users (id, issuer, subject, last_login_at) VALUES (p_new_user_id, p_issuer, p_subject, now())
        ON CONFLICT (issuer, subject) DO NOTHING;
      SELECT * INTO STRICT v_user FROM users WHERE issuer = p_issuer AND subject = p_subject;
    END IF;
  ELSIF v_user.is_active AND coalesce(v_user.last_login_at < now() - interval '1 minute', true) THEN
    UPDATE users SET last_login_at = now() WHERE id = v_user.id;
  END IF;

  IF p_org_slug IS NOT NULL THEN
    SELECT * INTO v_org FROM organizations WHERE slug = p_org_slug;
    IF NOT FOUND THEN
      INSERT INTO organizations (id, name, slug, issuer, external_id)
        VALUES (p_new_org_id, p_org_slug, p_org_slug, p_issuer, p_org_slug)
        ON CONFLICT DO NOTHING;
      SELECT * INTO STRICT v_org FROM organizations WHERE slug = p_org_slug;
    END IF;
    IF v_org.issuer IS DISTINCT FROM p_issuer THEN
      RAISE EXCEPTION 'organization % belongs to another identity provider', p_org_slug USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT m.role INTO v_role FROM organization_members m WHERE m.org_id = v_org.id AND m.user_id = v_user.id;
    IF v_role IS NULL OR v_role <> p_org_role THEN
      -- The lock makes "the first member" one person when several arrive together.
      PERFORM FROM organizations WHERE id = v_org.id FOR UPDATE;
      INSERT INTO organization_members AS m (org_id, user_id, role)
        VALUES (v_org.id, v_user.id, coalesce(p_org_role, CASE
          WHEN EXISTS (SELECT FROM organization_members WHERE org_id = v_org.id) THEN 'member' ELSE 'owner' END))
        ON CONFLICT (org_id, user_id) DO UPDATE SET role = coalesce(p_org_role, m.role)
        RETURNING m.role INTO v_role;
    END IF;
  END IF;

  RETURN QUERY
    SELECT v_user.id, v_org.id, v_role, coalesce(v_org.id, v_user.id),
           coalesce(v_org.tier, v_user.tier), l.requests_per_minute, l.requests_per_month, l.max_api_keys,
           v_user.is_active AND v_user.suspended_at IS NULL, v_org.is_active AND v_org.suspended_at IS NULL,
           v_user.platform_permissions
    FROM effective_limits(
      coalesce(v_org.tier, v_user.tier),
      CASE WHEN v_org.id IS NULL THEN v_user.max_requests_per_minute ELSE v_org.max_requests_per_minute END,
      CASE WHEN v_org.id IS NULL THEN v_user.max_requests_per_month ELSE v_org.max_requests_per_month END,
      CASE WHEN v_org.id IS NULL THEN v_user.max_api_keys ELSE v_org.max_api_keys END
    ) AS l;
  PERFORM set_config('iora.definer', '', true);
END
$$;

CREATE POLICY resolve_person ON users TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'resolve_person');
CREATE POLICY resolve_person ON organizations TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'resolve_person');
CREATE POLICY resolve_person ON organization_members TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'resolve_person');

-- Writes a batch of metered calls: a JSON array of objects with the columns of usage_logs as keys; answers how many were
-- new. A row that is already there is left alone, so a batch whose outcome is unknown is sent again whole.
CREATE FUNCTION record_usage(p_rows json) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
  v_inserted integer;
BEGIN
  PERFORM set_config('iora.definer', 'record_usage', true);
  INSERT INTO usage_logs (id, user_id, org_id, owner_id, api_key_id, key_secret_id, operation, endpoint, method, symbol,
                          status_code, response_time_ms, error_message, cost, billable, request_id, request_metadata, created_at)
    SELECT r.id, r.user_id, r.org_id, r.owner_id, r.api_key_id, r.key_secret_id, r.operation, r.endpoint, r.method, r.symbol,
           r.status_code, r.response_time_ms, r.error_message, r.cost, r.billable, r.request_id, r.request_metadata, r.created_at
    FROM json_to_recordset(p_rows) AS r (
      id uuid, user_id text, org_id text, owner_id text, api_key_id uuid, key_secret_id uuid, operation text, endpoint text,
      method text, symbol text, status_code integer, response_time_ms integer, error_message text, cost integer,
      billable boolean, request_id text, request_metadata jsonb, created_at timestamptz)
    ON CONFLICT DO NOTHING;
  GET DIAGNOSTICS v_inserted = ROW_COUNT;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_inserted;
END
$$;

CREATE POLICY record_usage ON usage_logs FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) = 'record_usage');

-- Adds uses to secrets: the three arrays belong together by position; answers how many secrets were met. Rows are met in
-- the order of their ids, so that two instances counting the same keys never wait for each other in a circle. And one by
-- one: the planner expects the policies to let hardly a row through, so in one statement it may go over all uses again for
-- every key, which takes seconds while a revocation waits for the lock.
CREATE FUNCTION record_key_use(p_secret_ids uuid[], p_last_used timestamptz[], p_counts bigint[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_used record;
  v_updated integer := 0;
BEGIN
  PERFORM set_config('iora.definer', 'record_key_use', true);
  FOR v_used IN
    SELECT u.id, max(u.at) AS last_used_at, sum(u.n)::bigint AS uses
    FROM unnest(p_secret_ids, p_last_used, p_counts) AS u (id, at, n) GROUP BY u.id ORDER BY u.id
  LOOP
    UPDATE api_keys k
      SET last_used_at = greatest(k.last_used_at, v_used.last_used_at), usage_count = k.usage_count + v_used.uses
      WHERE k.id = v_used.id;
    IF FOUND THEN
      v_updated := v_updated + 1;
    END IF;
  END LOOP;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_updated;
END
$$;

CREATE POLICY record_key_use_reads ON api_keys FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'record_key_use');
CREATE POLICY record_key_use ON api_keys FOR UPDATE TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'record_key_use');

GRANT EXECUTE ON FUNCTION find_api_key(bytea) TO iora_api;
GRANT EXECUTE ON FUNCTION resolve_person(text, text, text, bytea, bytea, integer, text, text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION record_usage(json) TO iora_api;
GRANT EXECUTE ON FUNCTION record_key_use(uuid[], timestamptz[], bigint[]) TO iora_api;

-- Down Migration

DROP POLICY record_key_use ON api_keys;
DROP POLICY record_key_use_reads ON api_keys;
DROP FUNCTION record_key_use(uuid[], timestamptz[], bigint[]);
DROP POLICY record_usage ON usage_logs;
DROP FUNCTION record_usage(json);
DROP POLICY resolve_person ON organization_members;
DROP POLICY resolve_person ON organizations;
DROP POLICY resolve_person ON users;
DROP FUNCTION resolve_person(text, text, text, bytea, bytea, integer, text, text, text);
DROP POLICY find_api_key ON organization_members;
DROP POLICY find_api_key ON organizations;
DROP POLICY find_api_key ON users;
DROP POLICY find_api_key ON api_key_families;
DROP POLICY find_api_key ON api_keys;
DROP FUNCTION find_api_key(bytea);
DROP FUNCTION effective_limits(text, integer, bigint, integer);
