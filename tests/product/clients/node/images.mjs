// Disk images: out and in again, of known and of unknown length, addressed to the pool and to the host.

import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { PassThrough, Readable } from 'node:stream'
import { assert, scenario } from './connect.mjs'

const SIZE = Number(process.argv[3])

// The client takes what it has written for sent; so the stream ends only when the test has seen the last of it arrive.
const arrived = () =>
  new Promise(resolve => {
    const look = setInterval(() => {
      if (existsSync(process.argv[4])) {
        clearInterval(look)
        resolve()
      }
    }, 10)
  })

const fetched = async response => {
  const pieces = []
  for await (const piece of response.body) pieces.push(piece)
  return Buffer.concat(pieces)
}

await scenario(async (xapi, warnings) => {
  const vdi = xapi.getObject(process.argv[2])
  const query = { format: 'raw', vdi: vdi.$ref }
  const host = xapi.pool.$master

  const known = randomBytes(SIZE)
  const body = Readable.from([known.subarray(0, 1000), known.subarray(1000)], { objectMode: false })
  body.length = SIZE
  await xapi.putResource(body, '/import_raw_vdi/', { query, host })
  const first = await xapi.getResource('/export_raw_vdi/', { query, task: true, host })
  assert.equal(Number(first.headers['content-length']), SIZE)
  assert.ok((await fetched(first)).equals(known))
  assert.equal(await first.task, '')

  // no length: the client promises a petabyte and cuts the connection at the end
  const unknown = randomBytes(SIZE).fill('the end', SIZE - 7)
  const stream = new PassThrough()
  stream.write(unknown)
  arrived().then(() => stream.end())
  assert.equal(await xapi.putResource(stream, '/import_raw_vdi/', { query }), '')
  assert.match(warnings.pop(), /missing length/)
  assert.ok((await fetched(await xapi.getResource('/export_raw_vdi/', { query }))).equals(unknown))

  // a whole buffer, without a task
  await xapi.putResource(known, '/import_raw_vdi/', { query, task: false })
  assert.ok((await fetched(await xapi.getResource('/export_raw_vdi/', { query, host }))).equals(known))

  await assert.rejects(xapi.getResource('/export_raw_vdi/', { query: { vdi: 'OpaqueRef:none' } }), /unexpected 404/)
  assert.deepEqual(warnings, [])
})
