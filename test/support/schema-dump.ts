// The whole schema as lines of text out of the catalogues, for tests that compare two states of it (the embedded server
// comes without pg_dump). Rights are listed one by one, so that the order of granting makes no difference.
import type pg from 'pg';

const questions: Readonly<Record<string, string>> = {
  schema: `SELECT n.nspname, a.* FROM pg_namespace n LEFT JOIN LATERAL (${rights('n.nspacl')}) a ON true WHERE n.nspname = 'public'`,
  relations: `SELECT c.relname, c.relkind, c.relowner::regrole AS owner, c.relrowsecurity, c.relforcerowsecurity, c.reloptions,
                     pg_get_expr(c.relpartbound, c.oid) AS bound, pg_get_partkeydef(c.oid) AS partitioned,
                     obj_description(c.oid, 'pg_class') AS comment
              FROM pg_class c WHERE ${ours('c.relnamespace')}`,
  columns: `SELECT c.relname, a.attname, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS position, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
                   pg_get_expr(d.adbin, d.adrelid) AS default
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum WHERE ${ours('c.relnamespace')}`,
  constraints: `SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE ${ours('connamespace')}`,
  indexes: `SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'`,
  policies: `SELECT * FROM pg_policies WHERE schemaname = 'public'`,
  triggers: `SELECT pg_get_triggerdef(t.oid), t.tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
             WHERE NOT t.tgisinternal AND ${ours('c.relnamespace')}`,
  functions: `SELECT pg_get_functiondef(oid), proowner::regrole AS owner FROM pg_proc WHERE ${ours('pronamespace')}`,
  views: `SELECT viewname, definition FROM pg_views WHERE schemaname = 'public'`,
  tableRights: `SELECT c.relname, a.* FROM pg_class c, LATERAL (${rights('c.relacl')}) a WHERE ${ours('c.relnamespace')}`,
  columnRights: `SELECT c.relname, t.attname, a.* FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND NOT t.attisdropped,
                 LATERAL (${rights('t.attacl')}) a WHERE ${ours('c.relnamespace')}`,
  functionRights: `SELECT p.oid::regprocedure, a.* FROM pg_proc p,
                   LATERAL (${rights("coalesce(p.proacl, acldefault('f', p.proowner))")}) a WHERE ${ours('p.pronamespace')}`,
  defaultRights: `SELECT d.defaclrole::regrole, d.defaclobjtype, a.* FROM pg_default_acl d, LATERAL (${rights('d.defaclacl')}) a`,
};

/** Returns one line of JSON for each fact about the schema `public` and the rights in it, sorted. */
export async function schemaDump(client: pg.ClientBase): Promise<string[]> {
  const lines: string[] = [];
  for (const [topic, question] of Object.entries(questions)) {
    const { rows } = await client.query<Record<string, unknown>>(question);
    lines.push(...rows.map((row) => `${topic} ${JSON.stringify(row)}`));
  }
  return lines.sort();
}

function rights(acl: string): string {
  return `SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS grantee, privilege_type, is_grantable FROM aclexplode(${acl})`;
}

function ours(namespace: string): string {
  return `${namespace} = 'public'::regnamespace`;
}
