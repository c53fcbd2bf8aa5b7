// The unmodified Node client, connected to the pool that the environment names, watching events as programs do.

import assert from 'node:assert/strict'
import { createRequire } from 'node:module'

const require = createRequire(process.env.NODE_CLIENT + '/')
const { createClient } = await import(require.resolve('xen-api'))

export { assert }

export const settings = {
  url: process.env.POOL_URL,
  auth: { user: 'root', password: process.env.POOL_PASSWORD },
  allowUnauthorized: true,
  transport: process.env.TRANSPORT ?? 'auto',
  debounce: 20, // ms between two looks at events
}

export const create = (changed = {}) => createClient({ ...settings, ...changed })

// Runs a scenario and ends the process with it: the client's event loop would go on for ever.
export async function scenario(run, changed = {}) {
  const warnings = []
  console.warn = (...words) => warnings.push(words.map(String).join(' '))
  const xapi = create(changed)
  await xapi.connect()
  await xapi.objectsFetched
  await run(xapi, warnings)
  await xapi.disconnect()
  console.log('done')
  process.exit(0)
}
