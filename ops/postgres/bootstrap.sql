-- The roles of IORA and what they need in this database. Run once per database, connected to it, by a superuser or by
-- a login with CREATEROLE that owns the database; `iora migrate up` runs this very file when its login may.
-- Safe to run again: each step looks first. Roles belong to the whole cluster, so nothing here is ever dropped, and no
-- password is set here.

DO $bootstrap$
DECLARE
  v_is_superuser boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = current_user);
  v_database text := current_database();
  v_role text;
  v_granted record;
BEGIN
  FOREACH v_role IN ARRAY ARRAY['iora_owner', 'iora_migrator', 'iora_maintainer', 'iora_api', 'iora_worker', 'iora_readonly'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
    END IF;
    -- A role of this name may have been made by hand with more than it should hold.
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = v_role
               AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)) THEN
      EXECUTE format('ALTER ROLE %I NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB NOREPLICATION', v_role);
    END IF;
    IF NOT has_database_privilege(v_role, v_database, 'CONNECT') THEN
      EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', v_database, v_role);
    END IF;
    IF NOT has_schema_privilege(v_role, 'public', 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', v_role);
    END IF;
  END LOOP;

  -- Replication and BYPASSRLS are a superuser's to give; without one, backups are the provider's business.
  IF v_is_superuser THEN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'iora_backup') THEN
      CREATE ROLE iora_backup NOLOGIN REPLICATION BYPASSRLS;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'iora_monitor') THEN
      CREATE ROLE iora_monitor NOLOGIN;
    END IF;
  END IF;

  FOR v_granted IN
    SELECT g.role, g.member FROM (VALUES
      ('iora_owner', 'iora_migrator', true),
      ('iora_owner', 'iora_maintainer', true),
      ('pg_read_all_data', 'iora_backup', v_is_superuser),
      ('pg_monitor', 'iora_monitor', v_is_superuser),
      -- One login doing everything (a managed database, a first try) must be able to SET ROLE to each role it plays.
      ('iora_migrator', current_user::text, NOT v_is_superuser),
      ('iora_api', current_user::text, NOT v_is_superuser),
      ('iora_worker', current_user::text, NOT v_is_superuser)
    ) AS g (role, member, wanted)
    WHERE g.wanted
  LOOP
    -- On PostgreSQL 16 and newer the creator of a role holds only ADMIN on it, which 'MEMBER' counts and SET ROLE does not.
    IF NOT pg_has_role(v_granted.member, v_granted.role,
                       CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
      EXECUTE format('GRANT %I TO %I', v_granted.role, v_granted.member);
    END IF;
  END LOOP;

  -- Databases made before PostgreSQL 15 let everybody create objects here; first, or the owner would seem to have
  -- the right already.
  IF EXISTS (SELECT FROM pg_namespace, aclexplode(nspacl) AS acl
             WHERE nspname = 'public' AND acl.grantee = 0 AND acl.privilege_type = 'CREATE') THEN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  END IF;
  -- CREATE on the database is for schemas that libraries bring with them (the job queue).
  IF NOT has_database_privilege('iora_owner', v_database, 'CREATE') THEN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO iora_owner', v_database);
  END IF;
  IF NOT has_schema_privilege('iora_owner', 'public', 'CREATE') THEN
    GRANT CREATE ON SCHEMA public TO iora_owner;
  END IF;
END
$bootstrap$;
