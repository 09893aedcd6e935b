import { type Config, loadConfig } from '../../platform/config.ts';

/** Commands are read by people: only what needs attention is logged unless LOG_LEVEL says otherwise. */
const COMMAND_DEFAULTS = { LOG_LEVEL: 'warn' };

/** The configuration of a command. Throws ConfigError. */
export function loadCommandConfig(): Config {
  return loadConfig(undefined, COMMAND_DEFAULTS);
}
