// A session that ends under the client, a wrong password, an unknown user, and a certificate that is checked.

import { assert, create, scenario } from './connect.mjs'

await scenario(async (xapi, warnings) => {
  const first = xapi.sessionId
  const other = create({ watchEvents: false, auth: { sessionId: first } })
  await other.connect()
  assert.equal((await other.call('VM.get_all')).length > 0, true)
  const again = new Promise(resolve => xapi.once('sessionId', resolve))
  await other.disconnect() // ends the session that both have

  // the one that waits for events is told at once, logs in again, and hears of events again
  assert.notEqual(await again, first)
  await xapi.barrier()
  assert.equal((await xapi.call('pool.get_all')).length, 1)

  const wrong = create({ watchEvents: false, auth: { user: 'root', password: 'wrong' } })
  await assert.rejects(wrong.connect(), { code: 'SESSION_AUTHENTICATION_FAILED' })
  const strict = create({ watchEvents: false, allowUnauthorized: false })
  if (process.env.NODE_EXTRA_CA_CERTS === undefined) {
    await assert.rejects(strict.connect(), /self.signed certificate/)
  } else {
    await strict.connect()
    await strict.disconnect()
  }
  assert.deepEqual(warnings, [])
})
