-- oldest-release: 0.1.0
-- What the operator of the installation does to tenants: administrators, suspension, tiers; how people are found by their
-- email; and the delivery of what the outbox holds.

-- Up Migration

-- Serves: the administrators of the platform (list_administrators).
CREATE INDEX users_administrators_idx ON users (id) WHERE platform_permissions <> '{}';

-- Puts into the owner's own trail what the operator did to it, unless it is the caller's: that one has its row already.
-- Called by the functions below only.
CREATE FUNCTION tell_owner(p_owner_id text, p_action text, p_changes jsonb, p_actor_id text, p_request_id text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  IF p_owner_id IS NOT DISTINCT FROM current_setting('app.owner_id', true) THEN
    RETURN;
  END IF;
  INSERT INTO audit_logs (user_id, org_id, owner_id, actor_type, actor_id, action, resource_type, resource_id, outcome,
                          request_id, changes)
    VALUES (CASE WHEN starts_with(p_owner_id, 'user_') THEN p_owner_id END,
            CASE WHEN starts_with(p_owner_id, 'org_') THEN p_owner_id END,
            p_owner_id, 'operator', p_actor_id, p_action, 'tenant', p_owner_id, 'succeeded', p_request_id, p_changes);
END
$$;

-- Finds people without making any: by id, or by the blind indexes of an email among the active ones, of whom more than one
-- may have it while two data keys are in use. With an organization, by id or slug, org_id and role tell of the membership
-- and are NULL where there is none. The columns are those of sign_in.
CREATE FUNCTION find_person(p_user_id text, p_email_blind_indexes bytea[], p_org_id text, p_org_slug text)
RETURNS TABLE (
  user_id text, org_id text, role text,
  tier text, requests_per_minute integer, requests_per_month bigint, max_api_keys integer,
  user_active boolean, org_active boolean, platform_permissions text[], owner_epoch bigint
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'find_person', true);
  RETURN QUERY
    SELECT u.id, o.id, m.role,
           coalesce(o.tier, u.tier), l.requests_per_minute, l.requests_per_month, l.max_api_keys,
           u.is_active AND u.suspended_at IS NULL, o.is_active AND o.suspended_at IS NULL,
           u.platform_permissions, coalesce(o.epoch, u.epoch)
    FROM (SELECT * FROM users WHERE id = p_user_id
          UNION SELECT * FROM users WHERE is_active AND email_blind_index = ANY (p_email_blind_indexes)) AS u
    LEFT JOIN organization_members m ON m.user_id = u.id
      AND m.org_id = (SELECT id FROM organizations WHERE id = p_org_id
                      UNION ALL SELECT id FROM organizations WHERE slug = p_org_slug LIMIT 1)
    LEFT JOIN organizations o ON o.id = m.org_id
    CROSS JOIN LATERAL effective_limits(
      coalesce(o.tier, u.tier),
      CASE WHEN o.id IS NULL THEN u.max_requests_per_minute ELSE o.max_requests_per_minute END,
      CASE WHEN o.id IS NULL THEN u.max_requests_per_month ELSE o.max_requests_per_month END,
      CASE WHEN o.id IS NULL THEN u.max_api_keys ELSE o.max_api_keys END
    ) AS l
    ORDER BY u.id;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- The people who administer the platform, after p_after in the order of their ids.
CREATE FUNCTION list_administrators(p_after text, p_limit integer)
RETURNS TABLE (user_id text, email_ciphertext bytea, platform_permissions text[], is_active boolean, suspended_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'list_administrators', true);
  RETURN QUERY
    SELECT u.id, u.email_ciphertext, u.platform_permissions, u.is_active, u.suspended_at
    FROM users u WHERE u.platform_permissions <> '{}' AND u.id > p_after ORDER BY u.id LIMIT p_limit;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- Organizations and people, after p_after in the order of their ids, each with the number of its live keys.
CREATE FUNCTION list_tenants(p_after text, p_limit integer)
RETURNS TABLE (
  id text, name text, slug text, tier text, is_active boolean, suspended_at timestamptz, created_at timestamptz, keys integer
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'list_tenants', true);
  RETURN QUERY
    SELECT t.*, (SELECT count(*)::integer FROM api_key_families f
                 WHERE f.owner_id = t.id AND f.revoked_at IS NULL AND (f.expires_at IS NULL OR f.expires_at > now()))
    FROM ((SELECT o.id, o.name, o.slug, o.tier, o.is_active, o.suspended_at, o.created_at
           FROM organizations o WHERE o.id > p_after ORDER BY o.id LIMIT p_limit)
          UNION ALL
          (SELECT u.id, NULL, NULL, u.tier, u.is_active, u.suspended_at, u.created_at
           FROM users u WHERE u.id > p_after ORDER BY u.id LIMIT p_limit)) AS t
    ORDER BY t.id LIMIT p_limit;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- One organization or person, by id or slug, with what list_tenants leaves out.
CREATE FUNCTION show_tenant(p_id text, p_slug text)
RETURNS TABLE (
  id text, name text, slug text, tier text, is_active boolean, suspended_at timestamptz, created_at timestamptz, keys integer,
  email_ciphertext bytea, issuer text, members integer,
  requests_per_minute integer, requests_per_month bigint, max_api_keys integer
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'show_tenant', true);
  RETURN QUERY
    SELECT t.id, t.name, t.slug, t.tier, t.is_active, t.suspended_at, t.created_at,
           (SELECT count(*)::integer FROM api_key_families f
            WHERE f.owner_id = t.id AND f.revoked_at IS NULL AND (f.expires_at IS NULL OR f.expires_at > now())),
           t.email_ciphertext, t.issuer,
           (SELECT count(*)::integer FROM organization_members m WHERE m.org_id = t.id),
           l.requests_per_minute, l.requests_per_month, l.max_api_keys
    FROM (SELECT o.id, o.name, o.slug, o.tier, o.is_active, o.suspended_at, o.created_at, NULL::bytea AS email_ciphertext,
                 o.issuer, o.max_requests_per_minute, o.max_requests_per_month, o.max_api_keys
          FROM organizations o WHERE o.id = p_id OR o.slug = p_slug
          UNION ALL
          SELECT u.id, NULL, NULL, u.tier, u.is_active, u.suspended_at, u.created_at, u.email_ciphertext,
                 u.issuer, u.max_requests_per_minute, u.max_requests_per_month, u.max_api_keys
          FROM users u WHERE u.id = p_id) AS t
    CROSS JOIN LATERAL effective_limits(t.tier, t.max_requests_per_minute, t.max_requests_per_month, t.max_api_keys) AS l;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- Adds platform permissions to a person or takes them away; answers what the person has now and whose rights that changes:
-- the person's own and those of the organizations it acts in. No row for a person that is not there.
CREATE FUNCTION set_platform_permissions(
  p_user_id text, p_permissions text[], p_granted boolean, p_actor_id text, p_request_id text
)
RETURNS TABLE (platform_permissions text[], owner_ids text[])
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_before text[];
  v_after text[];
BEGIN
  PERFORM set_config('iora.definer', 'set_platform_permissions', true);
  SELECT u.platform_permissions INTO v_before FROM users u WHERE u.id = p_user_id FOR UPDATE;
  IF FOUND THEN
    v_after := ARRAY(
      SELECT permission FROM unnest(ARRAY['admin:read', 'admin:write']) AS permission
      WHERE CASE WHEN permission = ANY (p_permissions) THEN p_granted ELSE permission = ANY (v_before) END);
    UPDATE users SET platform_permissions = v_after WHERE id = p_user_id AND users.platform_permissions <> v_after;
    PERFORM tell_owner(p_user_id, CASE WHEN p_granted THEN 'admin_granted' ELSE 'admin_revoked' END,
                       jsonb_build_object('before', v_before, 'after', v_after), p_actor_id, p_request_id);
    RETURN QUERY SELECT v_after, ARRAY(SELECT m.org_id FROM organization_members m WHERE m.user_id = p_user_id) || p_user_id;
  END IF;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- Suspends an organization or a person, or lifts that; answers since when, and whose rights it changes. Suspending twice
-- leaves the first moment. No row for an owner that is not there.
CREATE FUNCTION set_owner_suspended(p_owner_id text, p_suspended boolean, p_reason text, p_actor_id text, p_request_id text)
RETURNS TABLE (suspended_at timestamptz, owner_ids text[])
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_suspended_at timestamptz;
BEGIN
  PERFORM set_config('iora.definer', 'set_owner_suspended', true);
  IF starts_with(p_owner_id, 'org_') THEN
    UPDATE organizations o SET suspended_at = CASE WHEN p_suspended THEN coalesce(o.suspended_at, now()) END
      WHERE o.id = p_owner_id RETURNING o.suspended_at INTO v_suspended_at;
  ELSE
    UPDATE users u SET suspended_at = CASE WHEN p_suspended THEN coalesce(u.suspended_at, now()) END
      WHERE u.id = p_owner_id RETURNING u.suspended_at INTO v_suspended_at;
  END IF;
  IF FOUND THEN
    PERFORM tell_owner(p_owner_id, CASE WHEN p_suspended THEN 'tenant_suspended' ELSE 'tenant_resumed' END,
                       jsonb_strip_nulls(jsonb_build_object('reason', p_reason)), p_actor_id, p_request_id);
    RETURN QUERY SELECT v_suspended_at,
      ARRAY(SELECT m.org_id FROM organization_members m WHERE m.user_id = p_owner_id) || p_owner_id;
  END IF;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- Puts an organization or a person into a tier and answers the one before; no row for an owner that is not there. What else
-- is kept of the owner stays, its own limits included. Where p_clerk_issuer vouches for the owner, the tier is to be passed
-- on to it: only the newest still waits, and not before an older one that is under way has had its time.
CREATE FUNCTION set_owner_tier(p_owner_id text, p_tier text, p_clerk_issuer text, p_actor_id text, p_request_id text)
RETURNS TABLE (previous_tier text)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_kind text := CASE WHEN starts_with(p_owner_id, 'org_') THEN 'organization' ELSE 'user' END;
  v_issuer text;
  v_external_id text;
  v_previous text;
  v_not_before timestamptz;
BEGIN
  PERFORM set_config('iora.definer', 'set_owner_tier', true);
  IF v_kind = 'organization' THEN
    SELECT o.tier, o.issuer, o.external_id INTO v_previous, v_issuer, v_external_id
      FROM organizations o WHERE o.id = p_owner_id FOR UPDATE;
    UPDATE organizations SET tier = p_tier WHERE id = p_owner_id AND tier <> p_tier;
  ELSE
    SELECT u.tier, u.issuer, u.subject INTO v_previous, v_issuer, v_external_id
      FROM users u WHERE u.id = p_owner_id FOR UPDATE;
    UPDATE users SET tier = p_tier WHERE id = p_owner_id AND tier <> p_tier;
  END IF;
  IF v_previous IS NOT NULL THEN
    PERFORM tell_owner(p_owner_id, 'tier_changed', jsonb_build_object('before', v_previous, 'after', p_tier),
                       p_actor_id, p_request_id);
    IF v_issuer = p_clerk_issuer THEN
      WITH superseded AS (
        DELETE FROM outbox_events e
          WHERE e.topic = 'clerk.metadata' AND e.owner_id = p_owner_id AND e.delivered_at IS NULL
          RETURNING e.available_at, e.attempts
      )
      SELECT max(available_at) INTO v_not_before FROM superseded WHERE attempts > 0 AND available_at < 'infinity';
      INSERT INTO outbox_events (topic, owner_id, payload, available_at)
        VALUES ('clerk.metadata', p_owner_id,
                jsonb_build_object('kind', v_kind, 'externalId', v_external_id, 'tier', p_tier), greatest(now(), v_not_before));
    END IF;
    RETURN QUERY SELECT v_previous;
  END IF;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- Takes up to p_limit events of a topic for delivery, the longest due first. Each counts as tried and comes again after
-- p_pause, doubled with every try and at most p_pause_max, unless it is marked as delivered before; after p_attempts_max tries
-- it does not come again.
CREATE FUNCTION claim_outbox_events(
  p_topic text, p_now timestamptz, p_limit integer, p_attempts_max integer, p_pause interval, p_pause_max interval
)
RETURNS TABLE (id uuid, payload jsonb, attempts integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('iora.definer', 'claim_outbox_events', true);
  RETURN QUERY
    UPDATE outbox_events e
      SET attempts = e.attempts + 1,
          available_at = CASE WHEN e.attempts + 1 >= p_attempts_max THEN 'infinity'
                              ELSE p_now + least(p_pause * 2 ^ e.attempts, p_pause_max) END
      WHERE e.id IN (SELECT due.id FROM outbox_events due
                     WHERE due.topic = p_topic AND due.delivered_at IS NULL AND due.available_at <= p_now
                     ORDER BY due.available_at LIMIT p_limit FOR UPDATE SKIP LOCKED)
      RETURNING e.id, e.payload, e.attempts;
  PERFORM set_config('iora.definer', '', true);
END
$$;

-- Marks events as delivered; answers how many were not before.
CREATE FUNCTION mark_outbox_delivered(p_ids uuid[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_marked integer;
BEGIN
  PERFORM set_config('iora.definer', 'mark_outbox_delivered', true);
  UPDATE outbox_events e SET delivered_at = now() WHERE e.id = ANY (p_ids) AND e.delivered_at IS NULL;
  GET DIAGNOSTICS v_marked = ROW_COUNT;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_marked;
END
$$;

CREATE POLICY operator_reads ON users FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN ('find_person', 'list_administrators', 'list_tenants', 'show_tenant'));
CREATE POLICY operator_reads ON organizations FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN ('find_person', 'list_tenants', 'show_tenant'));
CREATE POLICY operator_reads ON organization_members FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN
         ('find_person', 'show_tenant', 'set_platform_permissions', 'set_owner_suspended'));
CREATE POLICY operator_reads ON api_key_families FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN ('list_tenants', 'show_tenant'));
CREATE POLICY operator_changes ON users TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN
         ('set_platform_permissions', 'set_owner_suspended', 'set_owner_tier'));
CREATE POLICY operator_changes ON organizations TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN ('set_owner_suspended', 'set_owner_tier'));
CREATE POLICY operator_tells ON audit_logs FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) IN
              ('set_platform_permissions', 'set_owner_suspended', 'set_owner_tier'));
CREATE POLICY set_owner_tier ON outbox_events TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'set_owner_tier');
CREATE POLICY delivery ON outbox_events TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN ('claim_outbox_events', 'mark_outbox_delivered'));

GRANT EXECUTE ON FUNCTION find_person(text, bytea[], text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION list_administrators(text, integer) TO iora_api;
GRANT EXECUTE ON FUNCTION list_tenants(text, integer) TO iora_api;
GRANT EXECUTE ON FUNCTION show_tenant(text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION set_platform_permissions(text, text[], boolean, text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION set_owner_suspended(text, boolean, text, text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION set_owner_tier(text, text, text, text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION claim_outbox_events(text, timestamptz, integer, integer, interval, interval) TO iora_api;
GRANT EXECUTE ON FUNCTION mark_outbox_delivered(uuid[]) TO iora_api;

-- Down Migration

DROP POLICY delivery ON outbox_events;
DROP POLICY set_owner_tier ON outbox_events;
DROP POLICY operator_tells ON audit_logs;
DROP POLICY operator_changes ON organizations;
DROP POLICY operator_changes ON users;
DROP POLICY operator_reads ON api_key_families;
DROP POLICY operator_reads ON organization_members;
DROP POLICY operator_reads ON organizations;
DROP POLICY operator_reads ON users;
DROP FUNCTION mark_outbox_delivered(uuid[]);
DROP FUNCTION claim_outbox_events(text, timestamptz, integer, integer, interval, interval);
DROP FUNCTION set_owner_tier(text, text, text, text, text);
DROP FUNCTION set_owner_suspended(text, boolean, text, text, text);
DROP FUNCTION set_platform_permissions(text, text[], boolean, text, text);
DROP FUNCTION show_tenant(text, text);
DROP FUNCTION list_tenants(text, integer);
DROP FUNCTION list_administrators(text, integer);
DROP FUNCTION find_person(text, bytea[], text, text);
DROP FUNCTION tell_owner(text, text, jsonb, text, text);
DROP INDEX users_administrators_idx;
