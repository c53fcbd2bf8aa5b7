// What a web console does that is served by the pool itself, with a browser's own means: fetch and WebSocket. Only the
// rendering is missing. JSON-RPC 2.0 on its own origin, figures from the host's address, a screen by WebSocket.

import assert from 'node:assert/strict'

const origin = process.env.POOL_URL
const [vm] = process.argv.slice(2)

async function call(method, params = []) {
  const response = await fetch(`${origin}/jsonrpc`, {
    method: 'POST',
    body: JSON.stringify({ jsonrpc: '2.0', method, params, id: 0 }),
    headers: { 'Content-Type': 'application/json' },
  })
  assert.equal(response.headers.get('content-type'), 'application/json')
  const answer = await response.json()
  if (answer.error !== undefined) throw Object.assign(new Error(answer.error.message), { data: answer.error.data })
  return answer.result
}

// the page and its script
const page = await (await fetch(`${origin}/`)).text()
const [, script] = /src=([^>]*)>/.exec(page)
const asset = await fetch(new URL(script, origin))
assert.equal(asset.headers.get('content-type'), 'text/javascript; charset=utf-8')

// logging in; the session is kept, and looked at again when the page is loaded again
await assert.rejects(call('session.login_with_password', ['root', 'wrong']), { message: 'SESSION_AUTHENTICATION_FAILED' })
const session = await call('session.login_with_password', ['root', process.env.POOL_PASSWORD])
assert.deepEqual(await call('session.get_all_subject_identifiers', [session]), [])
await assert.rejects(call('session.get_all_subject_identifiers', ['OpaqueRef:old']), { message: 'SESSION_INVALID' })

// everything there is
const classes = [
  ...['pool', 'host', 'host_metrics', 'VM', 'VM_metrics', 'VM_guest_metrics', 'SR', 'VDI', 'VBD', 'PBD', 'task'],
  ...['VIF', 'PIF', 'PIF_metrics', 'network', 'console', 'message', 'host_cpu'],
]
const listed = await call('system.listMethods')
const objects = {}
for (const name of classes) {
  assert.ok(listed.includes(`${name}.get_all_records`), name)
  objects[name] = await call(`${name}.get_all_records`, [session])
}
const [pool] = Object.keys(objects.pool)
const host = objects.host[objects.pool[pool].master]
for (const [name, fields] of Object.entries({
  VM: ['allowed_operations', 'blocked_operations', 'current_operations', 'NVRAM', 'tags', 'HVM_boot_params'],
  host: ['software_version', 'cpu_info', 'control_domain', 'resident_VMs', 'pending_guidances'],
})) {
  for (const record of Object.values(objects[name])) for (const field of fields) assert.ok(field in record, `${name}.${field}`)
}
assert.ok(parseInt(host.software_version.product_version) >= 8)

// what changes from now on
let token = await call('event.inject', [session, 'pool', pool])
const watched = classes.map(_ => _.toLowerCase())
async function until(condition) {
  for (;;) {
    const batch = await call('event.from', [session, watched, token, 5.001])
    token = batch.token
    const found = batch.events.find(condition)
    if (found !== undefined) return found
  }
}
const start = await call('Async.VM.start', [session, vm, false, false])
const seen = await until(_ => _.class === 'vm' && _.ref === vm && _.snapshot.power_state === 'Running')
assert.ok(seen.snapshot.allowed_operations.includes('clean_shutdown'))
for (;;) {
  const task = await call('task.get_record', [session, start])
  if (task.status !== 'pending') {
    assert.equal(task.status, 'success')
    break
  }
  await until(_ => _.class === 'task' && _.ref === start)
}

// figures, from the address that the host's record tells, without a port
const figures = new URL(`${new URL(origin).protocol}//${host.address}/rrd_updates`)
const since = Math.floor(Date.now() / 1000) - 60
figures.search = new URLSearchParams({ cf: 'AVERAGE', host: true, interval: 5, json: true, start: since, session_id: session })
const told = await fetch(figures, { headers: { Origin: 'https://elsewhere.example' } })
assert.equal(told.headers.get('access-control-allow-origin'), '*')
const { meta, data } = await told.json()
assert.equal(meta.columns, meta.legend.length)
assert.equal(meta.rows, data.length)

// its screen: the console's location with another scheme
const { consoles } = await call('VM.get_record', [session, vm])
const records = await Promise.all(consoles.map(_ => call('console.get_record', [session, _])))
const screen = new URL(records.find(_ => _.protocol === 'rfb').location)
screen.protocol = 'wss:'
screen.searchParams.set('session_id', session)
const greeting = await new Promise((resolve, reject) => {
  const socket = new WebSocket(screen, ['binary'])
  socket.binaryType = 'arraybuffer'
  socket.onmessage = ({ data }) => {
    resolve(Buffer.from(data).toString())
    socket.close()
  }
  socket.onerror = reject
})
assert.match(greeting, /^RFB 003/)

await call('Async.VM.hard_shutdown', [session, vm])
await until(_ => _.class === 'vm' && _.ref === vm && _.snapshot.power_state === 'Halted')
await call('session.logout', [session])
console.log('done')
process.exit(0)
