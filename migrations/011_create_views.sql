-- oldest-release: 0.1.0
-- What analytics may read (iora_readonly): these views and no table. A view reads with its owner's rights, and the owner
-- is under row-level security too; the policies let it see rows only while a member of iora_readonly is asking.

-- Up Migration

CREATE VIEW usage_daily AS
  SELECT (created_at AT TIME ZONE 'UTC')::date AS day, operation, status_code, billable,
         count(*) AS calls, sum(cost)::bigint AS cost, round(avg(response_time_ms))::integer AS response_time_mean_ms,
         count(DISTINCT owner_id) AS owners
  FROM usage_logs
  GROUP BY 1, 2, 3, 4;

CREATE VIEW owners_by_tier AS
  SELECT 'user' AS kind, tier, count(*) AS owners FROM users WHERE is_active GROUP BY tier
  UNION ALL
  SELECT 'organization', tier, count(*) FROM organizations WHERE is_active GROUP BY tier;

CREATE POLICY analytics_views ON usage_logs FOR SELECT TO iora_owner
  USING ((SELECT pg_has_role(current_user, 'iora_readonly', 'USAGE')));
CREATE POLICY analytics_views ON users FOR SELECT TO iora_owner
  USING ((SELECT pg_has_role(current_user, 'iora_readonly', 'USAGE')));
CREATE POLICY analytics_views ON organizations FOR SELECT TO iora_owner
  USING ((SELECT pg_has_role(current_user, 'iora_readonly', 'USAGE')));

GRANT SELECT ON usage_daily, owners_by_tier TO iora_readonly;

-- Down Migration

DROP POLICY analytics_views ON organizations;
DROP POLICY analytics_views ON users;
DROP POLICY analytics_views ON usage_logs;
DROP VIEW owners_by_tier;
DROP VIEW usage_daily;
