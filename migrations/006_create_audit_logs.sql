-- oldest-release: 0.1.0
-- Who changed what, by month, written in the transaction of the change. Insert-only for everybody, the owner included;
-- old months leave by detaching and dropping their partition.

-- Up Migration

CREATE TABLE audit_logs (
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  user_id text CHECK (length(user_id) BETWEEN 1 AND 100),
  org_id text CHECK (length(org_id) BETWEEN 1 AND 100),
  owner_id text CHECK (length(owner_id) BETWEEN 1 AND 100),
  actor_type text NOT NULL CHECK (actor_type IN ('session', 'api_key', 'service', 'operator', 'system')),
  actor_id text CHECK (length(actor_id) BETWEEN 1 AND 255),
  action text NOT NULL CHECK (length(action) BETWEEN 1 AND 100),
  resource_type text CHECK (length(resource_type) BETWEEN 1 AND 50),
  resource_id text CHECK (length(resource_id) BETWEEN 1 AND 255),
  outcome text NOT NULL CHECK (outcome IN ('succeeded', 'refused', 'failed')),
  error_code text CHECK (error_code ~ '^[a-z0-9_]{1,64}$'),
  request_id text CHECK (length(request_id) BETWEEN 1 AND 128),
  ip_address inet,
  user_agent text CHECK (length(user_agent) <= 512),
  changes jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (created_at, id),
  CONSTRAINT audit_logs_owner_check CHECK (coalesce(org_id, user_id, owner_id) IS NOT DISTINCT FROM owner_id),
  CONSTRAINT audit_logs_error_check CHECK ((outcome = 'succeeded') = (error_code IS NULL))
) PARTITION BY RANGE (created_at);

-- Serves: the audit trail of an owner, newest first, paged.
CREATE INDEX audit_logs_owner_idx ON audit_logs (owner_id, created_at DESC, id DESC);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RAISE EXCEPTION 'audit rows are never changed: % on % refused', TG_OP, TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
-- Per statement, so that even a statement that would meet no row is refused; ensure_month_partitions repeats it on each month.
CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_logs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON audit_logs TO iora_api
  USING (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
GRANT SELECT, INSERT ON audit_logs TO iora_api;

SELECT ensure_month_partitions(3);

-- Down Migration

DROP TABLE audit_logs;
DROP FUNCTION refuse_audit_change();
