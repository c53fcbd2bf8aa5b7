// Objects, their links, and fields: read from the client's cache, written through its record methods.

import { assert, scenario } from './connect.mjs'

await scenario(async (xapi, warnings) => {
  const byType = xapi.objects.indexes.type
  const pool = xapi.pool
  assert.equal(pool.name_label, 'clients')
  assert.equal(pool.$master.address, new URL(process.env.POOL_URL).hostname)
  assert.equal(pool.$default_SR.name_label, 'array')

  const vm = xapi.getObject(process.argv[2])
  assert.equal(vm.$type, 'VM')
  assert.equal(vm.$VBDs.length, 1)
  const [vbd] = vm.$VBDs
  assert.equal(vbd.$VDI.$SR.$ref, pool.$default_SR.$ref)
  assert.equal(vm.$VIFs[0].$network.name_label, 'lan')
  assert.equal(Object.values(byType.VM).filter(_ => _.is_default_template).length, 1)

  await vm.set_name_label('päivä & <co>')
  await vm.update_other_config('kéy', 'v\nw')
  await vm.add_tags('blue')
  await vm.set_VCPUs_max(3)
  const now = await xapi.barrier(vm.$ref)
  assert.equal(now.name_label, 'päivä & <co>')
  assert.equal(now.other_config['kéy'], 'v\nw')
  assert.deepEqual(now.tags, ['blue'])
  assert.equal(Number(now.VCPUs_max), 3)

  await now.update_other_config('kéy', null)
  await now.remove_tags('blue')
  const after = await xapi.barrier(vm.$ref)
  assert.equal('kéy' in after.other_config, false)
  assert.deepEqual(after.tags, [])
  assert.equal(await xapi.getFieldByUuid('VM', vm.uuid, 'power_state'), 'Halted')
  assert.deepEqual(warnings, [])
})
