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

// served by a member, it is told where the coordinator is, and goes there
const member = process.env.MEMBER_URL
assert.equal((await (await fetch(`${member}/`)).text()), page)
const redirected = await fetch(`${member}/jsonrpc`, {
  method: 'POST',
  body: JSON.stringify({ jsonrpc: '2.0', method: 'session.login_with_password', params: ['root', 'any'], id: 0 }),
})
const { error } = await redirected.json()
assert.equal(error.message, 'HOST_IS_SLAVE')
assert.equal(`https://${error.data[0]}`, origin)

// logging in; the session is kept, and looked at again when the page is loaded again
await assert.rejects(call('session.login_with_password', ['root', 'wrong']), { message: 'SESSION_AUTHENTICATION_FAILED' })
const session = await call('session.login_with_password', ['root', process.env.POOL_PASSWORD])
assert.deepEqual(await call('session.get_all_subject_identifiers', [session]), [])
await assert.rejects(call('session.get_all_subject_identifiers', ['OpaqueRef:old']), { message: 'SESSION_INVALID' })

// everything there is
const classes = [
  ...['pool', 'host', 'host_metrics', 'VM', 'VM_metrics', 'VM_guest_metrics', 'SR', 'VDI', 'VBD', 'PBD', 'task'],
  ...['VIF', 'PIF', 'PIF_metrics', 'network', 'Bond', 'VLAN', 'console', 'message', 'host_cpu', 'VTPM'],
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

// what its buttons do, followed by tasks as it shows them
async function work(method, ...params) {
  const task = await call(`Async.${method}`, [session, ...params])
  for (;;) {
    const record = await call('task.get_record', [session, task])
    if (record.status === 'pending') {
      await until(_ => _.class === 'task' && _.ref === task)
      continue
    }
    assert.equal(record.status, 'success', `${method}: ${record.error_info}`)
    return /^<value>(.*)<\/value>$/.exec(record.result)?.[1]
  }
}
await work('VM.pause', vm)
await work('VM.unpause', vm)
await work('VM.suspend', vm)
await work('VM.resume', vm, false, false)
await work('VM.clean_reboot', vm)
const snapshot = await work('VM.snapshot', vm, 'before', [])
const copy = await work('VM.clone', snapshot, 'by the web')
await work('VM.provision', copy)
await call('VM.set_name_description', [session, copy, 'made in a browser'])
await call('VM.set_tags', [session, copy, ['web']])
await call('VM.add_to_blocked_operations', [session, copy, 'start', 'true'])
await call('VM.remove_from_blocked_operations', [session, copy, 'start'])
await call('VM.set_VCPUs_max', [session, copy, 2])
const { SR } = await call('VDI.get_record', [session, (await call('VBD.get_record', [session, (await call('VM.get_record', [session, copy])).VBDs[0]])).VDI])
const vdi = await call('VDI.create', [
  session,
  { name_label: 'web disk', SR, virtual_size: 15 * 2 ** 20, type: 'user', sharable: false, read_only: false, other_config: {} },
])
await call('VDI.resize', [session, vdi, 30 * 2 ** 20])
const [device] = await call('VM.get_allowed_VBD_devices', [session, copy])
const vbd = await call('VBD.create', [
  session,
  {
    ...{ VM: copy, VDI: vdi, userdevice: device, bootable: false, mode: 'RW', type: 'Disk', unpluggable: true, empty: false },
    ...{ other_config: {}, qos_algorithm_type: '', qos_algorithm_params: {} },
  },
])
await work('VM.start', copy, false, false)
await work('VBD.unplug', vbd)
await work('VBD.destroy', vbd)
await work('VDI.destroy', vdi)

// a whole VM, saved by the browser itself; one that runs is not
const saved = new URLSearchParams({ session_id: session, ref: copy, use_compression: 'zstd' })
assert.equal((await fetch(`${origin}/export/?${saved}`)).ok, false)
await work('VM.hard_shutdown', copy)
const archive = Buffer.from(await (await fetch(`${origin}/export/?${saved}`)).arrayBuffer())
assert.equal(archive.readUInt32LE(0), 0xfd2fb528) // zstd
const disks = (await call('VM.get_record', [session, copy])).VBDs
for (const ref of disks) await work('VDI.destroy', (await call('VBD.get_record', [session, ref])).VDI)
await work('VM.destroy', copy)
await work('VM.destroy', snapshot)
await assert.rejects(call('Bond.create', [session, 'OpaqueRef:NULL', [], '', 'balance-slb', {}]), { message: 'VALUE_NOT_SUPPORTED' })

await call('Async.VM.hard_shutdown', [session, vm])
await until(_ => _.class === 'vm' && _.ref === vm && _.snapshot.power_state === 'Halted')
await call('session.logout', [session])
console.log('done')
process.exit(0)
