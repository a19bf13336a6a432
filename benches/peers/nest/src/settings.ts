/** What the benchmark tells each program by its environment. */
function setting(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
}

export const port = (): number => Number(setting('PORT'));
export const databaseUrl = (): string => setting('DATABASE_URL');
export const brokerUrl = (): string => setting('AMQP_URL');
export const queue = (): string => setting('QUEUE');
/** The node's public key as a JSON web key. */
export const publicKey = (): string => setting('PUBLIC_KEY');
