-- oldest-release: 0.1.0
-- Organizations and who belongs to them. An organization is an owner like a person without one: its id begins with
-- `org_`, a person's with `user_`, so owner ids never meet.

-- Up Migration

CREATE TABLE organizations (
  id text PRIMARY KEY CHECK (id ~ '^org_[A-Za-z0-9_-]{1,95}$'),
  name text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  slug text CHECK (slug ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  issuer text CHECK (length(issuer) BETWEEN 1 AND 255),
  external_id text CHECK (length(external_id) BETWEEN 1 AND 255),
  tier text NOT NULL DEFAULT 'free' CHECK (length(tier) BETWEEN 1 AND 50),
  stripe_subscription_id text CHECK (length(stripe_subscription_id) BETWEEN 1 AND 255),
  max_api_keys integer CHECK (max_api_keys >= 0),
  max_requests_per_minute integer CHECK (max_requests_per_minute > 0),
  max_requests_per_month bigint CHECK (max_requests_per_month >= 0),
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  is_active boolean NOT NULL DEFAULT true,
  suspended_at timestamptz,
  CONSTRAINT organizations_slug_key UNIQUE (slug),
  CONSTRAINT organizations_issuer_external_id_key UNIQUE (issuer, external_id),
  CONSTRAINT organizations_external_check CHECK ((issuer IS NULL) = (external_id IS NULL))
);

-- Serves: whose subscription does this Stripe event speak of.
CREATE UNIQUE INDEX organizations_stripe_subscription_key ON organizations (stripe_subscription_id)
  WHERE stripe_subscription_id IS NOT NULL;

CREATE TRIGGER organizations_set_updated_at BEFORE UPDATE ON organizations
  FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- The key leads with the tenant and serves: members of an organization, the role of one person in it.
CREATE TABLE organization_members (
  org_id text NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
  user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
  role text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
  joined_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (org_id, user_id)
);

-- Serves: the organizations of one person (GET /user/organizations).
CREATE INDEX organization_members_user_idx ON organization_members (user_id);

ALTER TABLE organization_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE organization_members FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON organization_members TO iora_api
  USING (org_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
CREATE POLICY person_isolation ON organization_members TO iora_api
  USING (user_id = (SELECT nullif(current_setting('app.user_id', true), '')));
GRANT SELECT ON organization_members TO iora_api;

ALTER TABLE organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE organizations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON organizations TO iora_api
  USING (id = (SELECT nullif(current_setting('app.owner_id', true), '')));
CREATE POLICY person_isolation ON organizations TO iora_api
  USING (id IN (SELECT m.org_id FROM organization_members m
                WHERE m.user_id = (SELECT nullif(current_setting('app.user_id', true), ''))));
GRANT SELECT ON organizations TO iora_api;

-- Down Migration

DROP POLICY person_isolation ON organizations;
DROP TABLE organization_members;
DROP TABLE organizations;
