-- oldest-release: 0.1.0
-- People, known by (issuer, subject). Email and names are held only as ciphertext; the keyed blind index finds an email
-- and keeps it unique among active people without the database ever knowing it.

-- Up Migration

-- Every function made from here on is callable only by whom it is granted to.
ALTER DEFAULT PRIVILEGES FOR ROLE iora_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.updated_at := now();
  RETURN NEW;
END
$$;

CREATE TABLE users (
  id text PRIMARY KEY CHECK (id ~ '^user_[A-Za-z0-9_-]{1,95}$'),
  issuer text NOT NULL CHECK (length(issuer) BETWEEN 1 AND 255),
  subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
  email_ciphertext bytea CHECK (octet_length(email_ciphertext) BETWEEN 1 AND 2048),
  email_blind_index bytea CHECK (octet_length(email_blind_index) = 32),
  first_name_ciphertext bytea CHECK (octet_length(first_name_ciphertext) BETWEEN 1 AND 2048),
  last_name_ciphertext bytea CHECK (octet_length(last_name_ciphertext) BETWEEN 1 AND 2048),
  data_key_version integer CHECK (data_key_version > 0),
  tier text NOT NULL DEFAULT 'free' CHECK (length(tier) BETWEEN 1 AND 50),
  stripe_customer_id text CHECK (length(stripe_customer_id) BETWEEN 1 AND 255),
  max_api_keys integer CHECK (max_api_keys >= 0),
  max_requests_per_minute integer CHECK (max_requests_per_minute > 0),
  max_requests_per_month bigint CHECK (max_requests_per_month >= 0),
  platform_permissions text[] NOT NULL DEFAULT '{}' CHECK (platform_permissions <@ ARRAY['admin:read', 'admin:write']),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  last_login_at timestamptz,
  is_active boolean NOT NULL DEFAULT true,
  suspended_at timestamptz,
  CONSTRAINT users_issuer_subject_key UNIQUE (issuer, subject),
  CONSTRAINT users_email_check CHECK ((email_ciphertext IS NULL) = (email_blind_index IS NULL)),
  CONSTRAINT users_data_key_check CHECK (
    data_key_version IS NOT NULL
    OR (email_ciphertext IS NULL AND first_name_ciphertext IS NULL AND last_name_ciphertext IS NULL)
  )
);

-- Serves: is this email taken, and whose is it (resolve_person, `iora admin grant`).
CREATE UNIQUE INDEX users_active_email_key ON users (email_blind_index) WHERE is_active;
-- Serves: whose customer does this Stripe event speak of.
CREATE UNIQUE INDEX users_stripe_customer_key ON users (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- Signing in is no change of the person.
CREATE TRIGGER users_set_updated_at BEFORE UPDATE ON users FOR EACH ROW
  WHEN (OLD.last_login_at IS NOT DISTINCT FROM NEW.last_login_at) EXECUTE FUNCTION set_updated_at();

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
CREATE POLICY person_isolation ON users TO iora_api
  USING (id = (SELECT nullif(current_setting('app.user_id', true), '')));
GRANT SELECT ON users TO iora_api;

-- Down Migration

DROP TABLE users;
DROP FUNCTION set_updated_at();
ALTER DEFAULT PRIVILEGES FOR ROLE iora_owner GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
