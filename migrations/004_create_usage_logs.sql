-- oldest-release: 0.1.0
-- One row per metered call, by month. Facts: plain ids without foreign keys, never rewritten when a person goes.
-- There is no DEFAULT partition (it would forbid DETACH CONCURRENTLY); months are made ahead instead.

-- Up Migration

CREATE TABLE usage_logs (
  id uuid NOT NULL, -- version 7, made by the application before the insert, so that a repeated batch adds nothing
  user_id text CHECK (length(user_id) BETWEEN 1 AND 100),
  org_id text CHECK (length(org_id) BETWEEN 1 AND 100),
  owner_id text NOT NULL CHECK (length(owner_id) BETWEEN 1 AND 100),
  api_key_id uuid, -- the family, which survives rotation
  key_secret_id uuid,
  operation text NOT NULL CHECK (length(operation) BETWEEN 1 AND 100),
  endpoint text NOT NULL CHECK (length(endpoint) BETWEEN 1 AND 255),
  method text NOT NULL CHECK (length(method) BETWEEN 1 AND 10),
  symbol text CHECK (length(symbol) BETWEEN 1 AND 50),
  status_code integer NOT NULL CHECK (status_code BETWEEN 100 AND 599),
  response_time_ms integer CHECK (response_time_ms >= 0),
  error_message text CHECK (error_message ~ '^[a-z0-9_]{1,64}$'), -- an error code: no free text, so no personal data
  cost integer NOT NULL CHECK (cost >= 0),
  billable boolean NOT NULL,
  request_id text NOT NULL CHECK (length(request_id) BETWEEN 1 AND 128),
  request_metadata jsonb CHECK (pg_column_size(request_metadata) <= 8192),
  created_at timestamptz NOT NULL, -- of the call, not of the insert
  PRIMARY KEY (created_at, id),
  -- A service that meters itself is an owner without user or organization.
  CONSTRAINT usage_logs_owner_check CHECK (owner_id = coalesce(org_id, user_id, owner_id))
) PARTITION BY RANGE (created_at);

-- Serves: usage of an owner today and this month, by endpoint and day; the month's quota after a restart.
CREATE INDEX usage_logs_owner_idx ON usage_logs (owner_id, created_at DESC) INCLUDE (cost, billable, api_key_id);

ALTER TABLE usage_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_logs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON usage_logs FOR SELECT TO iora_api
  USING (owner_id = (SELECT nullif(current_setting('app.owner_id', true), '')));
CREATE POLICY worker_reads_all ON usage_logs FOR SELECT TO iora_worker USING (true);
GRANT SELECT ON usage_logs TO iora_api, iora_worker;

-- Makes the month of p_from and p_months_ahead months after it, for every table of ours partitioned by month; answers how
-- many partitions it made. LIKE and ATTACH instead of PARTITION OF: writers of the parent go on meanwhile. IDENTITY is left
-- out because PostgreSQL 17 refuses to attach a table that has one.
CREATE FUNCTION ensure_month_partitions(p_months_ahead integer, p_from timestamptz DEFAULT now()) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET timezone = 'UTC' SET lock_timeout = '2s' AS $$
DECLARE
  v_first timestamptz := date_trunc('month', p_from);
  v_wanted record;
  v_trigger record;
  v_is_locked boolean := false;
  v_created integer := 0;
BEGIN
  -- Callers are services: the bounds keep one wrong clock from filling the schema with tables.
  IF p_months_ahead IS NULL OR p_months_ahead NOT BETWEEN 0 AND 24 THEN
    RAISE EXCEPTION 'p_months_ahead must lie between 0 and 24' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF v_first IS NULL OR v_first NOT BETWEEN date_trunc('month', now()) - interval '2 months'
                                        AND date_trunc('month', now()) + interval '12 months' THEN
    RAISE EXCEPTION 'partitions are made for the last 2 and the next 12 months, not for %', v_first
      USING ERRCODE = 'invalid_parameter_value';
  END IF;

  FOR v_wanted IN
    SELECT parent.oid AS parent_oid, parent.relname AS parent, starts, parent.relname || to_char(starts, '_YYYY_MM') AS name
    FROM pg_class parent
    CROSS JOIN generate_series(v_first, v_first + p_months_ahead * interval '1 month', interval '1 month') AS starts
    WHERE parent.relnamespace = 'public'::regnamespace AND parent.relkind = 'p' AND parent.relowner = 'iora_owner'::regrole
      AND NOT EXISTS (SELECT FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
                      WHERE inhparent = parent.oid AND child.relname = parent.relname || to_char(starts, '_YYYY_MM'))
    ORDER BY parent.relname, starts
  LOOP
    IF NOT v_is_locked THEN
      PERFORM pg_advisory_xact_lock(hashtextextended('ensure_month_partitions', 0));
      v_is_locked := true;
    END IF;
    -- Another session may have made it while we waited for the lock.
    CONTINUE WHEN pg_partition_root(to_regclass(format('public.%I', v_wanted.name))) = v_wanted.parent_oid;

    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL EXCLUDING IDENTITY)', v_wanted.name, v_wanted.parent);
    -- The parent's policies do not hold when a partition is named directly: here there is no policy, hence no row.
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', v_wanted.name);
    -- Row triggers come with ATTACH, statement triggers do not.
    FOR v_trigger IN
      SELECT pg_get_triggerdef(oid) AS definition FROM pg_trigger
      WHERE tgrelid = v_wanted.parent_oid AND NOT tgisinternal AND tgtype & 1 = 0
    LOOP
      EXECUTE replace(v_trigger.definition, format(' ON public.%I ', v_wanted.parent), format(' ON public.%I ', v_wanted.name));
    END LOOP;
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   v_wanted.parent, v_wanted.name, v_wanted.starts, v_wanted.starts + interval '1 month');
    v_created := v_created + 1;
  END LOOP;
  RETURN v_created;
END
$$;
GRANT EXECUTE ON FUNCTION ensure_month_partitions(integer, timestamptz) TO iora_api, iora_worker;

SELECT ensure_month_partitions(3);

-- Down Migration

DROP FUNCTION ensure_month_partitions(integer, timestamptz);
DROP TABLE usage_logs;
