// A whole VM out as an archive and in again, of known and of unknown length; the task's result names what came.

import { PassThrough, Readable } from 'node:stream'
import { assert, scenario } from './connect.mjs'

const fetched = async response => {
  const pieces = []
  for await (const piece of response.body) pieces.push(piece)
  return Buffer.concat(pieces)
}

await scenario(async (xapi, warnings) => {
  const vm = xapi.getObject(process.argv[2])
  const sr = xapi.pool.default_SR

  const response = await xapi.getResource('/export/', { query: { ref: vm.$ref, use_compression: 'false' }, task: true })
  const archive = await fetched(response)
  await response.task
  assert.equal(archive.subarray(0, 7).toString(), 'ova.xml')

  const body = Readable.from([archive], { objectMode: false })
  body.length = archive.length
  const known = await xapi.putResource(body, '/import/', { query: { sr_id: sr }, task: true })

  // an archive says itself where it ends, so the pool need not see the connection cut
  const stream = new PassThrough()
  stream.write(archive)
  const task = await xapi.createTask('import')
  xapi.watchTask(task).then(() => stream.end())
  const unknown = await xapi.putResource(stream, '/import/', { query: { sr_id: sr }, task })
  for (const warning of warnings.splice(0)) {
    assert.match(warning, /missing length|Premature close/) // which this client expects when it promises too much
  }

  for (const [ref, ...others] of [known, unknown]) {
    assert.deepEqual(others, [])
    const came = await xapi.barrier(ref)
    assert.equal(came.name_label, vm.name_label)
    assert.notEqual(came.uuid, vm.uuid)
    assert.equal(came.$VBDs[0].$VDI.SR, sr)
    assert.equal(came.$VBDs[0].$VDI.virtual_size, vm.$VBDs[0].$VDI.virtual_size)
  }

  const cut = Readable.from([archive.subarray(0, 2000)], { objectMode: false })
  cut.length = 2000
  await assert.rejects(xapi.putResource(cut, '/import/', { query: { sr_id: sr }, task: true }))
  assert.deepEqual(warnings, [])
})
