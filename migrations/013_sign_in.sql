-- oldest-release: 0.1.0
-- Signing in with any provider: who the person is, in which organization, and whether the provider has since taken back the
-- person, the membership or the session. Replaces resolve_person.

-- Up Migration

ALTER TABLE users
  ADD COLUMN provider_updated_at timestamptz, -- of the newest message of the provider that was applied
  ADD COLUMN deleted_at timestamptz;
ALTER TABLE organizations
  ADD COLUMN provider_updated_at timestamptz,
  ADD COLUMN deleted_at timestamptz,
  ADD COLUMN created_by_subject text CHECK (length(created_by_subject) BETWEEN 1 AND 255);
ALTER TABLE organization_members
  ADD COLUMN external_id text CHECK (length(external_id) BETWEEN 1 AND 255), -- the provider's id of the membership
  ADD COLUMN provider_updated_at timestamptz;

-- What a provider said is over, whether or not it was ever known here: messages arrive in any order, and tokens issued before
-- outlive what they speak of. `member` is one person in one organization (`ORGANIZATION SUBJECT`), over until that moment only;
-- everything else is over for good.
CREATE TABLE identity_deletions (
  issuer text NOT NULL CHECK (length(issuer) BETWEEN 1 AND 255),
  kind text NOT NULL CHECK (kind IN ('user', 'organization', 'membership', 'member', 'session')),
  external_id text NOT NULL CHECK (length(external_id) BETWEEN 1 AND 511),
  deleted_at timestamptz NOT NULL,
  -- Serves: is it over (sign_in, messages of the provider).
  PRIMARY KEY (issuer, kind, external_id)
);
-- Nobody but the functions that speak with a provider has any business here.
ALTER TABLE identity_deletions ENABLE ROW LEVEL SECURITY;
ALTER TABLE identity_deletions FORCE ROW LEVEL SECURITY;

DROP POLICY resolve_person ON organization_members;
DROP POLICY resolve_person ON organizations;
DROP POLICY resolve_person ON users;
DROP FUNCTION resolve_person(text, text, text, bytea, bytea, integer, text, text, text);

-- Finds or makes the person (p_issuer, p_subject) and, when p_org_external_id is given, the organization and the membership;
-- safe when the same person signs in many times at once. Answers no row for a person that the provider deleted before it was
-- known here. user_active is false as well when the session was revoked, or the organization or the membership in it ended, since
-- p_issued_at, the moment the provider vouched for all this. email_differs asks for keep_email, since what is sealed is bound to
-- the id. A slug that another organization has is left out. p_org_role NULL makes the first member the owner and later ones
-- members; a role that is given holds unless a newer one is known, and the administrator who made the organization owns it.
CREATE FUNCTION sign_in(
  p_issuer text, p_subject text, p_session_id text, p_issued_at timestamptz, p_new_user_id text, p_email_blind_index bytea,
  p_org_external_id text, p_org_slug text, p_org_name text, p_new_org_id text, p_org_role text
)
RETURNS TABLE (
  user_id text, org_id text, role text, owner_id text,
  tier text, requests_per_minute integer, requests_per_month bigint, max_api_keys integer,
  user_active boolean, org_active boolean, platform_permissions text[], owner_epoch bigint, email_differs boolean
)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_user users;
  v_org organizations;
  v_member organization_members;
  v_role text;
  v_ended boolean := false;
BEGIN
  PERFORM set_config('iora.definer', 'sign_in', true);

  SELECT * INTO v_user FROM users WHERE issuer = p_issuer AND subject = p_subject;
  IF NOT FOUND THEN
    -- Held by whoever deletes the person too, so that one of the two sees what the other did.
    PERFORM pg_advisory_xact_lock(hashtextextended('person ' || p_issuer || ' ' || p_subject, 0));
    IF EXISTS (SELECT FROM identity_deletions WHERE issuer = p_issuer AND kind = 'user' AND external_id = p_subject) THEN
      PERFORM set_config('iora.definer', '', true);
      RETURN;
    END IF;
    INSERT INTO users (id, issuer, subject, last_login_at) VALUES (p_new_user_id, p_issuer, p_subject, now())
      ON CONFLICT (issuer, subject) DO NOTHING;
    SELECT * INTO STRICT v_user FROM users WHERE issuer = p_issuer AND subject = p_subject;
  ELSIF v_user.is_active AND coalesce(v_user.last_login_at < now() - interval '1 minute', true) THEN
    UPDATE users SET last_login_at = now() WHERE id = v_user.id;
  END IF;

  IF p_session_id IS NOT NULL THEN
    v_ended := EXISTS (
      SELECT FROM identity_deletions WHERE issuer = p_issuer AND kind = 'session' AND external_id = p_session_id);
  END IF;

  IF p_org_external_id IS NOT NULL THEN
    SELECT * INTO v_org FROM organizations WHERE issuer = p_issuer AND external_id = p_org_external_id;
    SELECT * INTO v_member FROM organization_members m WHERE m.org_id = v_org.id AND m.user_id = v_user.id;
    IF v_member.user_id IS NULL THEN
      -- The person before the organization, as everybody locks them, and read again: the provider may just have ended either.
      SELECT * INTO STRICT v_user FROM users WHERE id = v_user.id FOR SHARE;
      v_ended := v_ended OR v_user.deleted_at IS NOT NULL;
      IF v_org.id IS NULL AND NOT v_ended THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('organization ' || p_issuer || ' ' || p_org_external_id, 0));
        v_ended := EXISTS (SELECT FROM identity_deletions
                           WHERE issuer = p_issuer AND kind = 'organization' AND external_id = p_org_external_id);
        IF NOT v_ended THEN
          INSERT INTO organizations (id, name, slug, issuer, external_id)
            VALUES (p_new_org_id, coalesce(p_org_name, p_org_slug, p_org_external_id), p_org_slug, p_issuer, p_org_external_id)
            ON CONFLICT DO NOTHING;
          INSERT INTO organizations (id, name, issuer, external_id) -- where the slug met another organization's
            VALUES (p_new_org_id, coalesce(p_org_name, p_org_slug, p_org_external_id), p_issuer, p_org_external_id)
            ON CONFLICT DO NOTHING;
        END IF;
      END IF;
      -- The lock makes "the first member" one person when several arrive together, and is held by whoever ends a membership.
      SELECT * INTO v_org FROM organizations WHERE issuer = p_issuer AND external_id = p_org_external_id FOR UPDATE;
      v_ended := v_ended OR v_org.id IS NULL OR v_org.deleted_at IS NOT NULL OR EXISTS (
        SELECT FROM identity_deletions
        WHERE issuer = p_issuer AND kind = 'member' AND external_id = p_org_external_id || ' ' || p_subject
          AND deleted_at >= p_issued_at);
    END IF;
    v_role := CASE WHEN p_org_role = 'admin' AND v_org.created_by_subject = p_subject THEN 'owner' ELSE p_org_role END;
    IF v_member.user_id IS NULL AND NOT v_ended THEN
      INSERT INTO organization_members AS m (org_id, user_id, role, provider_updated_at)
        VALUES (v_org.id, v_user.id, coalesce(v_role, CASE
          WHEN EXISTS (SELECT FROM organization_members WHERE org_id = v_org.id) THEN 'member' ELSE 'owner' END), p_issued_at)
        ON CONFLICT (org_id, user_id) DO NOTHING;
      SELECT m.role INTO v_role FROM organization_members m WHERE m.org_id = v_org.id AND m.user_id = v_user.id;
    ELSIF v_role <> v_member.role AND NOT v_ended AND coalesce(p_issued_at >= v_member.provider_updated_at, true) THEN
      UPDATE organization_members m SET role = v_role, provider_updated_at = p_issued_at
        WHERE m.org_id = v_org.id AND m.user_id = v_user.id;
    ELSE
      v_role := v_member.role;
    END IF;
  END IF;

  RETURN QUERY
    SELECT v_user.id, v_org.id, v_role, coalesce(v_org.id, v_user.id),
           coalesce(v_org.tier, v_user.tier), l.requests_per_minute, l.requests_per_month, l.max_api_keys,
           v_user.is_active AND v_user.suspended_at IS NULL AND NOT v_ended, v_org.is_active AND v_org.suspended_at IS NULL,
           v_user.platform_permissions, coalesce(v_org.epoch, v_user.epoch),
           v_user.is_active AND p_email_blind_index IS NOT NULL
             AND p_email_blind_index IS DISTINCT FROM v_user.email_blind_index
    FROM effective_limits(
      coalesce(v_org.tier, v_user.tier),
      CASE WHEN v_org.id IS NULL THEN v_user.max_requests_per_minute ELSE v_org.max_requests_per_minute END,
      CASE WHEN v_org.id IS NULL THEN v_user.max_requests_per_month ELSE v_org.max_requests_per_month END,
      CASE WHEN v_org.id IS NULL THEN v_user.max_api_keys ELSE v_org.max_api_keys END
    ) AS l;
  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION sign_in(text, text, text, timestamptz, text, bytea, text, text, text, text, text) TO iora_api;

-- Gives the person the email that the provider vouched for at that moment. Another active person of the same provider gives it up,
-- unless the provider spoke of them later; one of another provider keeps it, and it is left out here.
CREATE FUNCTION keep_email(
  p_user_id text, p_ciphertext bytea, p_blind_index bytea, p_data_key_version integer, p_vouched_at timestamptz
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
BEGIN
  PERFORM set_config('iora.definer', 'keep_email', true);
  UPDATE users SET email_ciphertext = NULL, email_blind_index = NULL
    WHERE email_blind_index = p_blind_index AND is_active AND id <> p_user_id
      AND issuer = (SELECT issuer FROM users WHERE id = p_user_id)
      AND coalesce(provider_updated_at <= p_vouched_at, true);
  BEGIN
    UPDATE users SET email_ciphertext = p_ciphertext, email_blind_index = p_blind_index, data_key_version = p_data_key_version
      WHERE id = p_user_id AND is_active;
  EXCEPTION WHEN unique_violation THEN
    NULL; -- another active person's
  END;
  PERFORM set_config('iora.definer', '', true);
END
$$;
GRANT EXECUTE ON FUNCTION keep_email(text, bytea, bytea, integer, timestamptz) TO iora_api;

CREATE POLICY keep_email ON users TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'keep_email');
CREATE POLICY sign_in ON identity_deletions FOR SELECT TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'sign_in');
CREATE POLICY sign_in ON users TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'sign_in');
CREATE POLICY sign_in ON organizations TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'sign_in');
CREATE POLICY sign_in ON organization_members TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) = 'sign_in');

-- Down Migration

DROP POLICY sign_in ON organization_members;
DROP POLICY sign_in ON organizations;
DROP POLICY sign_in ON users;
DROP FUNCTION sign_in(text, text, text, timestamptz, text, bytea, text, text, text, text, text);
DROP POLICY keep_email ON users;
DROP FUNCTION keep_email(text, bytea, bytea, integer, timestamptz);

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
GRANT EXECUTE ON FUNCTION resolve_person(text, text, text, bytea, bytea, integer, text, text, text) TO iora_api;

DROP TABLE identity_deletions;
ALTER TABLE organization_members DROP COLUMN external_id, DROP COLUMN provider_updated_at;
ALTER TABLE organizations DROP COLUMN provider_updated_at, DROP COLUMN deleted_at, DROP COLUMN created_by_subject;
ALTER TABLE users DROP COLUMN provider_updated_at, DROP COLUMN deleted_at;
