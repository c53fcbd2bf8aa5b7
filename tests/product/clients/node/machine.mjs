// Work that takes its time: callAsync follows the task by events and gives its result.

import { assert, scenario } from './connect.mjs'

await scenario(async (xapi, warnings) => {
  const template = xapi.getObject(process.argv[2])
  const ref = await template.$callAsync('clone', 'from node')
  let vm = await xapi.barrier(ref)
  assert.equal(vm.name_label, 'from node')
  assert.notEqual(vm.$VBDs[0].VDI, template.$VBDs[0].VDI)

  assert.equal(await vm.$callAsync('start', false, false), '')
  vm = await xapi.barrier(ref)
  assert.equal(vm.power_state, 'Running')
  assert.equal(vm.$resident_on.$ref, xapi.pool.master)
  assert.equal(vm.$VBDs[0].currently_attached, true)

  await assert.rejects(vm.$callAsync('start', false, false), error => {
    assert.equal(error.code, 'VM_BAD_POWER_STATE')
    assert.deepEqual(error.params, [ref, 'halted', 'running'])
    return true
  })
  await assert.rejects(xapi.call('VM.start', 'OpaqueRef:none', false, false), { code: 'HANDLE_INVALID' })
  await assert.rejects(xapi.call('VM.no_such_thing', ref), { code: 'MESSAGE_METHOD_UNKNOWN' })

  await vm.$callAsync('hard_shutdown')
  for (const vbd of (await xapi.barrier(ref)).$VBDs) {
    await xapi.callAsync('VDI.destroy', vbd.VDI)
  }
  await vm.$callAsync('destroy')
  await xapi.barrier()
  assert.equal(xapi.getObject(ref, null), null)
  const tasks = Object.values(xapi.objects.indexes.type.task ?? {}).filter(_ => _.name_label.startsWith('Async.'))
  assert.deepEqual(tasks.map(_ => _.name_label), [], 'the client destroys its tasks, and hears of it')
  assert.deepEqual(warnings, [])
})
