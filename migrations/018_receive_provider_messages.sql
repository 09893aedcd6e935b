-- oldest-release: 0.1.0
-- Messages of an identity provider (Clerk's webhooks): each takes effect once, and the rows end the same in whatever order they
-- come. What is over stays over; everything else follows the message whose content is newest.

-- Up Migration

-- Which messages have taken effect, kept for as long as one may be sent again. A row commits with the effects of its message.
CREATE TABLE webhook_messages (
  provider text NOT NULL CHECK (provider IN ('clerk')),
  message_id text NOT NULL CHECK (length(message_id) BETWEEN 1 AND 255),
  event_type text NOT NULL CHECK (length(event_type) BETWEEN 1 AND 100),
  received_at timestamptz NOT NULL DEFAULT now(),
  -- Serves: has this message come before (receive_webhook).
  PRIMARY KEY (provider, message_id)
);
-- Serves: forgetting old messages (forget_identity_messages).
CREATE INDEX webhook_messages_received_idx ON webhook_messages (received_at);
-- Serves: forgetting what no token or message can contradict any more (forget_identity_messages).
CREATE INDEX identity_deletions_forgettable_idx ON identity_deletions (deleted_at)
  WHERE kind IN ('session', 'membership', 'member');
-- When the provider said what provider_updated_at dates: tells two messages about one change apart.
ALTER TABLE users ADD COLUMN provider_message_at timestamptz;
ALTER TABLE webhook_messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE webhook_messages FORCE ROW LEVEL SECURITY;

-- Notes a message; false when it has come before. Two deliveries at once wait here for each other, so that the second sees what
-- became of the first.
CREATE FUNCTION receive_webhook(p_provider text, p_message_id text, p_event_type text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_new boolean;
BEGIN
  PERFORM set_config('iora.definer', 'receive_webhook', true);
  INSERT INTO webhook_messages (provider, message_id, event_type) VALUES (p_provider, p_message_id, p_event_type)
    ON CONFLICT DO NOTHING;
  v_new := FOUND;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_new;
END
$$;

-- Notes that something is over. Runs as part of the functions below, with their rights and under their names.
CREATE FUNCTION note_identity_deletion(p_issuer text, p_kind text, p_external_id text, p_deleted_at timestamptz) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO public.identity_deletions AS d (issuer, kind, external_id, deleted_at)
    VALUES (p_issuer, p_kind, p_external_id, p_deleted_at)
    ON CONFLICT (issuer, kind, external_id) DO UPDATE SET deleted_at = greatest(d.deleted_at, excluded.deleted_at)
$$;

-- The audit row of what a message changed. Runs as part of the functions below.
CREATE FUNCTION audit_provider_message(
  p_user_id text, p_org_id text, p_action text, p_resource_type text, p_resource_id text, p_changes jsonb
) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO public.audit_logs (user_id, org_id, owner_id, actor_type, actor_id, action, resource_type, resource_id, outcome, changes)
    VALUES (p_user_id, p_org_id, coalesce(p_org_id, p_user_id), 'system', 'clerk', p_action, p_resource_type, p_resource_id,
            'succeeded', p_changes)
$$;

-- The id of the person, made here where they were not known. Locks the row: what is about to be sealed is bound to it, and
-- whoever changes a person and an organization locks the person first, so that nobody waits for each other in a circle.
-- A person who was deleted has a row too (delete_person) and is answered as it is.
CREATE FUNCTION ensure_person(p_issuer text, p_subject text, p_new_user_id text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_id text;
BEGIN
  PERFORM set_config('iora.definer', 'ensure_person', true);
  INSERT INTO users (id, issuer, subject) VALUES (p_new_user_id, p_issuer, p_subject) ON CONFLICT (issuer, subject) DO NOTHING;
  SELECT id INTO STRICT v_id FROM users WHERE issuer = p_issuer AND subject = p_subject FOR NO KEY UPDATE;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_id;
END
$$;

-- What the provider says of a person, unless something newer was said or the person was deleted. Newer is what changed later
-- (p_updated_at) or, of the same change, was said later (p_message_at); of two that cannot be told apart, a ban holds. An email
-- that another active person has is left out. Answers whether the person's rights changed: banned, or no longer.
CREATE FUNCTION update_person(
  p_user_id text, p_updated_at timestamptz, p_message_at timestamptz, p_active boolean, p_email_ciphertext bytea, p_email_blind_index bytea,
  p_first_name_ciphertext bytea, p_last_name_ciphertext bytea, p_data_key_version integer
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_was_active boolean;
  v_is_active boolean;
BEGIN
  PERFORM set_config('iora.definer', 'update_person', true);
  SELECT is_active,
         p_active AND (is_active OR (provider_updated_at, provider_message_at) IS DISTINCT FROM (p_updated_at, p_message_at))
    INTO v_was_active, v_is_active
    FROM users
    WHERE id = p_user_id AND deleted_at IS NULL
      AND coalesce((provider_updated_at, provider_message_at) <= (p_updated_at, p_message_at), true)
    FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    PERFORM set_config('iora.definer', '', true);
    RETURN false;
  END IF;
  UPDATE users SET is_active = v_is_active, provider_updated_at = p_updated_at, provider_message_at = p_message_at,
      email_ciphertext = NULL, email_blind_index = NULL,
      first_name_ciphertext = p_first_name_ciphertext, last_name_ciphertext = p_last_name_ciphertext,
      data_key_version = p_data_key_version
    WHERE id = p_user_id;
  BEGIN
    UPDATE users SET email_ciphertext = p_email_ciphertext, email_blind_index = p_email_blind_index WHERE id = p_user_id;
  EXCEPTION WHEN unique_violation THEN
    NULL; -- another active person's
  END;
  IF v_was_active <> v_is_active THEN
    PERFORM audit_provider_message(p_user_id, NULL, CASE WHEN v_is_active THEN 'user_unbanned' ELSE 'user_banned' END,
                                   'user', p_user_id, NULL);
  END IF;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_was_active <> v_is_active;
END
$$;

-- Ends a person for good and answers their id. Their memberships end with them, and what is personal goes. One never seen here
-- gets a row too, which says that they are gone to whatever comes later.
CREATE FUNCTION delete_person(p_issuer text, p_subject text, p_new_user_id text, p_deleted_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_id text;
BEGIN
  PERFORM set_config('iora.definer', 'delete_person', true);
  -- Held by sign_in too while it makes a person.
  PERFORM pg_advisory_xact_lock(hashtextextended('person ' || p_issuer || ' ' || p_subject, 0));
  INSERT INTO users AS u (id, issuer, subject, is_active, deleted_at) VALUES (p_new_user_id, p_issuer, p_subject, false, p_deleted_at)
    ON CONFLICT (issuer, subject) DO UPDATE SET is_active = false, deleted_at = greatest(u.deleted_at, excluded.deleted_at),
      provider_updated_at = NULL, email_ciphertext = NULL, email_blind_index = NULL, first_name_ciphertext = NULL,
      last_name_ciphertext = NULL, data_key_version = NULL
    RETURNING u.id INTO v_id;
  DELETE FROM organization_members WHERE user_id = v_id;
  IF NOT EXISTS (SELECT FROM identity_deletions WHERE issuer = p_issuer AND kind = 'user' AND external_id = p_subject) THEN
    PERFORM audit_provider_message(v_id, NULL, 'user_deleted', 'user', v_id, NULL);
  END IF;
  PERFORM note_identity_deletion(p_issuer, 'user', p_subject, p_deleted_at);
  PERFORM set_config('iora.definer', '', true);
  RETURN v_id;
END
$$;

-- Finds or makes the organization, and takes over what the provider says of it unless something newer was said. A slug that
-- another organization has is left out. The administrator who made the organization owns it, also when that is learnt later:
-- raised_user_id is who rose by it. Locks the organization. One that was deleted stays so.
CREATE FUNCTION upsert_organization(
  p_issuer text, p_external_id text, p_new_org_id text, p_name text, p_slug text, p_created_by text, p_updated_at timestamptz
) RETURNS TABLE (org_id text, raised_user_id text)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
  v_org organizations;
  v_raised text;
BEGIN
  PERFORM set_config('iora.definer', 'upsert_organization', true);
  SELECT * INTO v_org FROM organizations WHERE issuer = p_issuer AND external_id = p_external_id FOR UPDATE;
  IF NOT FOUND THEN
    -- Held by whoever ends the organization or a membership in it before it is known.
    PERFORM pg_advisory_xact_lock(hashtextextended('organization ' || p_issuer || ' ' || p_external_id, 0));
    INSERT INTO organizations (id, name, issuer, external_id) VALUES (p_new_org_id, p_name, p_issuer, p_external_id)
      ON CONFLICT (issuer, external_id) DO NOTHING;
    SELECT * INTO STRICT v_org FROM organizations WHERE issuer = p_issuer AND external_id = p_external_id FOR UPDATE;
  END IF;

  IF coalesce(v_org.provider_updated_at <= p_updated_at, true) THEN
    UPDATE organizations SET name = p_name, slug = NULL, provider_updated_at = p_updated_at WHERE id = v_org.id;
    IF v_org.deleted_at IS NULL THEN
      BEGIN
        UPDATE organizations SET slug = p_slug WHERE id = v_org.id;
      EXCEPTION WHEN unique_violation THEN
        NULL; -- another organization's
      END;
    END IF;
  END IF;

  IF v_org.created_by_subject IS NULL AND p_created_by IS NOT NULL THEN
    UPDATE organizations SET created_by_subject = p_created_by WHERE id = v_org.id;
    UPDATE organization_members m SET role = 'owner' FROM users u
      WHERE m.org_id = v_org.id AND m.role = 'admin' AND u.id = m.user_id AND u.issuer = p_issuer AND u.subject = p_created_by
      RETURNING m.user_id INTO v_raised;
    IF v_raised IS NOT NULL THEN
      PERFORM audit_provider_message(v_raised, v_org.id, 'member_role_changed', 'member', v_raised,
                                     jsonb_build_object('from', 'admin', 'to', 'owner'));
    END IF;
  END IF;
  PERFORM set_config('iora.definer', '', true);
  RETURN QUERY SELECT v_org.id, v_raised;
END
$$;

-- Ends an organization for good, the memberships in it too, and answers its id. As with people, one never seen gets a row.
CREATE FUNCTION delete_organization(p_issuer text, p_external_id text, p_new_org_id text, p_deleted_at timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_id text;
BEGIN
  PERFORM set_config('iora.definer', 'delete_organization', true);
  -- Held by sign_in too while it makes an organization.
  PERFORM pg_advisory_xact_lock(hashtextextended('organization ' || p_issuer || ' ' || p_external_id, 0));
  INSERT INTO organizations AS o (id, name, issuer, external_id, is_active, deleted_at)
    VALUES (p_new_org_id, p_external_id, p_issuer, p_external_id, false, p_deleted_at)
    ON CONFLICT (issuer, external_id) DO UPDATE
      SET is_active = false, deleted_at = greatest(o.deleted_at, excluded.deleted_at), slug = NULL
    RETURNING o.id INTO v_id;
  DELETE FROM organization_members WHERE org_id = v_id;
  IF NOT EXISTS (SELECT FROM identity_deletions
                 WHERE issuer = p_issuer AND kind = 'organization' AND external_id = p_external_id) THEN
    PERFORM audit_provider_message(NULL, v_id, 'organization_deleted', 'organization', v_id, NULL);
  END IF;
  PERFORM note_identity_deletion(p_issuer, 'organization', p_external_id, p_deleted_at);
  PERFORM set_config('iora.definer', '', true);
  RETURN v_id;
END
$$;

-- What the provider says of a membership, unless the person, the organization or this very membership is over. Of several
-- memberships of one person in one organization the one made last counts; of what is said about it, tokens included, the newest
-- role. Answers whether rights changed.
CREATE FUNCTION upsert_membership(
  p_issuer text, p_external_id text, p_org_id text, p_user_id text, p_role text, p_joined_at timestamptz, p_updated_at timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_subject text;
  v_role text;
  v_member organization_members;
  v_changed boolean := false;
BEGIN
  PERFORM set_config('iora.definer', 'upsert_membership', true);
  SELECT u.subject INTO v_subject FROM users u WHERE u.id = p_user_id AND u.deleted_at IS NULL FOR SHARE;
  SELECT CASE WHEN p_role = 'admin' AND o.created_by_subject = v_subject THEN 'owner' ELSE p_role END INTO v_role
    FROM organizations o WHERE o.id = p_org_id AND o.deleted_at IS NULL FOR UPDATE;
  IF v_subject IS NULL OR v_role IS NULL OR EXISTS (
    SELECT FROM identity_deletions WHERE issuer = p_issuer AND kind = 'membership' AND external_id = p_external_id) THEN
    PERFORM set_config('iora.definer', '', true);
    RETURN false;
  END IF;

  SELECT * INTO v_member FROM organization_members WHERE org_id = p_org_id AND user_id = p_user_id;
  IF NOT FOUND THEN
    INSERT INTO organization_members (org_id, user_id, role, joined_at, external_id, provider_updated_at)
      VALUES (p_org_id, p_user_id, v_role, p_joined_at, p_external_id, p_updated_at);
    v_changed := true;
  -- Without an id where a token made the row: then any membership may name it.
  ELSIF v_member.external_id IS NULL OR (p_joined_at, p_external_id) >= (v_member.joined_at, v_member.external_id) THEN
    IF v_member.provider_updated_at > p_updated_at THEN
      v_role := v_member.role;
    END IF;
    v_changed := v_role <> v_member.role;
    UPDATE organization_members
      SET role = v_role, joined_at = p_joined_at, external_id = p_external_id,
          provider_updated_at = greatest(provider_updated_at, p_updated_at)
      WHERE org_id = p_org_id AND user_id = p_user_id;
    IF v_changed THEN
      PERFORM audit_provider_message(p_user_id, p_org_id, 'member_role_changed', 'member', p_user_id,
                                     jsonb_build_object('from', v_member.role, 'to', v_role));
    END IF;
  END IF;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_changed;
END
$$;

-- Ends a membership for good, whether or not it was ever known, and the person's being a member until that moment, which tokens
-- issued before may still claim. Answers whether the person lost a membership by it.
CREATE FUNCTION delete_membership(
  p_issuer text, p_external_id text, p_org_external_id text, p_subject text, p_user_id text, p_deleted_at timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_org_id text;
  v_role text;
BEGIN
  PERFORM set_config('iora.definer', 'delete_membership', true);
  -- For an organization that is only being made, there is no row yet that both could lock.
  PERFORM pg_advisory_xact_lock(hashtextextended('organization ' || p_issuer || ' ' || p_org_external_id, 0));
  SELECT id INTO v_org_id FROM organizations WHERE issuer = p_issuer AND external_id = p_org_external_id FOR UPDATE;
  PERFORM note_identity_deletion(p_issuer, 'membership', p_external_id, p_deleted_at);
  PERFORM note_identity_deletion(p_issuer, 'member', p_org_external_id || ' ' || p_subject, p_deleted_at);
  DELETE FROM organization_members m
    WHERE m.org_id = v_org_id AND m.user_id = p_user_id
      AND (m.external_id = p_external_id
           OR m.external_id IS NULL AND coalesce(m.provider_updated_at <= p_deleted_at, true))
    RETURNING m.role INTO v_role;
  IF v_role IS NOT NULL THEN
    PERFORM audit_provider_message(p_user_id, v_org_id, 'member_removed', 'member', p_user_id, jsonb_build_object('role', v_role));
  END IF;
  PERFORM set_config('iora.definer', '', true);
  RETURN v_role IS NOT NULL;
END
$$;

-- Ends a session for good, whether or not it was ever used here; answers the person's id where they are known. Somebody's own
-- sign-out (p_revoked false) is nothing for the audit trail.
CREATE FUNCTION revoke_session(p_issuer text, p_session_id text, p_subject text, p_ended_at timestamptz, p_revoked boolean)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
DECLARE
  v_user_id text;
BEGIN
  PERFORM set_config('iora.definer', 'revoke_session', true);
  SELECT id INTO v_user_id FROM users WHERE issuer = p_issuer AND subject = p_subject;
  IF p_revoked AND v_user_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM identity_deletions WHERE issuer = p_issuer AND kind = 'session' AND external_id = p_session_id) THEN
    PERFORM audit_provider_message(v_user_id, NULL, 'session_revoked', 'session', p_session_id, NULL);
  END IF;
  PERFORM note_identity_deletion(p_issuer, 'session', p_session_id, p_ended_at);
  PERFORM set_config('iora.definer', '', true);
  RETURN v_user_id;
END
$$;

-- Forgets, p_batch rows of each at most, the messages of more than 30 days ago, which are not sent again any more, and the
-- sessions and memberships that ended more than 90 days ago, which no token or message can claim any more. People and
-- organizations that were deleted are never forgotten.
CREATE FUNCTION forget_identity_messages(p_now timestamptz, p_batch integer) RETURNS TABLE (messages integer, deletions integer)
LANGUAGE plpgsql SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, public, pg_temp SET enable_seqscan = off AS $$
BEGIN
  PERFORM set_config('iora.definer', 'forget_identity_messages', true);
  DELETE FROM webhook_messages WHERE (provider, message_id) IN (
    SELECT w.provider, w.message_id FROM webhook_messages w
    WHERE w.received_at < p_now - interval '30 days' ORDER BY w.received_at LIMIT p_batch);
  GET DIAGNOSTICS messages = ROW_COUNT;
  DELETE FROM identity_deletions WHERE (issuer, kind, external_id) IN (
    SELECT d.issuer, d.kind, d.external_id FROM identity_deletions d
    WHERE d.kind IN ('session', 'membership', 'member') AND d.deleted_at < p_now - interval '90 days'
    ORDER BY d.deleted_at LIMIT p_batch);
  GET DIAGNOSTICS deletions = ROW_COUNT;
  PERFORM set_config('iora.definer', '', true);
  RETURN NEXT;
END
$$;

GRANT EXECUTE ON FUNCTION receive_webhook(text, text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION ensure_person(text, text, text) TO iora_api;
GRANT EXECUTE ON FUNCTION update_person(text, timestamptz, timestamptz, boolean, bytea, bytea, bytea, bytea, integer) TO iora_api;
GRANT EXECUTE ON FUNCTION delete_person(text, text, text, timestamptz) TO iora_api;
GRANT EXECUTE ON FUNCTION upsert_organization(text, text, text, text, text, text, timestamptz) TO iora_api;
GRANT EXECUTE ON FUNCTION delete_organization(text, text, text, timestamptz) TO iora_api;
GRANT EXECUTE ON FUNCTION upsert_membership(text, text, text, text, text, timestamptz, timestamptz) TO iora_api;
GRANT EXECUTE ON FUNCTION delete_membership(text, text, text, text, text, timestamptz) TO iora_api;
GRANT EXECUTE ON FUNCTION revoke_session(text, text, text, timestamptz, boolean) TO iora_api;
GRANT EXECUTE ON FUNCTION forget_identity_messages(timestamptz, integer) TO iora_api;

CREATE POLICY provider_messages ON webhook_messages TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN ('receive_webhook', 'forget_identity_messages'));
CREATE POLICY provider_messages ON identity_deletions TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN (
    'delete_person', 'delete_organization', 'upsert_membership', 'delete_membership', 'revoke_session', 'forget_identity_messages'));
CREATE POLICY provider_messages ON users TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN (
    'ensure_person', 'update_person', 'delete_person', 'upsert_organization', 'upsert_membership', 'revoke_session'));
CREATE POLICY provider_messages ON organizations TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN (
    'upsert_organization', 'delete_organization', 'upsert_membership', 'delete_membership'));
CREATE POLICY provider_messages ON organization_members TO iora_owner
  USING ((SELECT current_setting('iora.definer', true)) IN (
    'delete_person', 'upsert_organization', 'delete_organization', 'upsert_membership', 'delete_membership'));
CREATE POLICY provider_messages ON audit_logs FOR INSERT TO iora_owner
  WITH CHECK ((SELECT current_setting('iora.definer', true)) IN (
    'update_person', 'delete_person', 'upsert_organization', 'delete_organization', 'upsert_membership', 'delete_membership',
    'revoke_session'));

-- Down Migration

DROP POLICY provider_messages ON audit_logs;
DROP POLICY provider_messages ON organization_members;
DROP POLICY provider_messages ON organizations;
DROP POLICY provider_messages ON users;
DROP POLICY provider_messages ON identity_deletions;
DROP FUNCTION forget_identity_messages(timestamptz, integer);
DROP FUNCTION revoke_session(text, text, text, timestamptz, boolean);
DROP FUNCTION delete_membership(text, text, text, text, text, timestamptz);
DROP FUNCTION upsert_membership(text, text, text, text, text, timestamptz, timestamptz);
DROP FUNCTION delete_organization(text, text, text, timestamptz);
DROP FUNCTION upsert_organization(text, text, text, text, text, text, timestamptz);
DROP FUNCTION delete_person(text, text, text, timestamptz);
DROP FUNCTION update_person(text, timestamptz, timestamptz, boolean, bytea, bytea, bytea, bytea, integer);
DROP FUNCTION ensure_person(text, text, text);
DROP FUNCTION audit_provider_message(text, text, text, text, text, jsonb);
DROP FUNCTION note_identity_deletion(text, text, text, timestamptz);
DROP FUNCTION receive_webhook(text, text, text);
DROP INDEX identity_deletions_forgettable_idx;
DROP TABLE webhook_messages;
ALTER TABLE users DROP COLUMN provider_message_at;
