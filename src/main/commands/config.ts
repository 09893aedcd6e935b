import { configSchema, loadConfig, settingMeta, settingSource, settingsWithoutEffect } from '../../platform/config.ts';
import type { Answer } from '../../transports/cli/command-spec.ts';
import { render } from '../../transports/cli/render.ts';

interface Setting {
  readonly name: string;
  readonly value: unknown;
  readonly source: string;
}

/** `iora config`: every setting as the server would use it. Throws ConfigError. */
export async function config(): Promise<Answer> {
  const values: Readonly<Record<string, unknown>> = loadConfig();
  const settings = Object.entries(configSchema.shape).map(([name, schema]): Setting => {
    const value = values[name];
    const shown = settingMeta(schema).secret ? (value === undefined ? 'not set' : 'set') : (value ?? null);
    return { name, value: shown, source: settingSource(name) };
  });
  const withoutEffect = settingsWithoutEffect();
  const note =
    withoutEffect.length === 0 ? '' : `set, but without effect in this release: ${withoutEffect.join(', ')}\n`;
  return { output: { settings, withoutEffect }, text: `${render({ items: settings })}${note}` };
}
