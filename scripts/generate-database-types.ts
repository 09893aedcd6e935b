// Writes src/platform/database-types.generated.ts from a freshly migrated database; with --check only compares and exits 1
// when the file is out of date.
import { readFile, writeFile } from 'node:fs/promises';
import { Kysely, PostgresDialect as KyselyPostgresDialect } from 'kysely';
import { generate, PostgresDialect } from 'kysely-codegen';
import pg from 'pg';
import { testCluster } from '../test/support/postgres.ts';

const file = new URL('../src/platform/database-types.generated.ts', import.meta.url);

const cluster = await testCluster();
try {
  const { superuserUrl } = await cluster.database();
  const db = new Kysely({
    dialect: new KyselyPostgresDialect({ pool: new pg.Pool({ connectionString: superuserUrl, max: 1 }) }),
  });
  const text = await generate({
    db,
    dialect: new PostgresDialect(),
    excludePattern: '*.schema_migrations',
    outFile: null,
    typeOnlyImports: true,
  });
  await db.destroy();
  if (!process.argv.includes('--check')) await writeFile(file, text);
  else if (text !== (await readFile(file, 'utf8'))) {
    process.stderr.write(
      'src/platform/database-types.generated.ts is out of date: run node scripts/generate-database-types.ts\n',
    );
    process.exitCode = 1;
  }
} finally {
  await cluster.stop();
}
