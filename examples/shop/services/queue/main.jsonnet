local queue = import 'queue.libsonnet';
local shop = import 'shop.libsonnet';

function(pinion) {
  // Only one environment of a cluster may own what belongs to the cluster.
  [if std.get(pinion.parameters, 'installCRDs', false) then 'definition']: queue.definition,

  operator: shop.deployment('queue-operator', 1, shop.container('operator', pinion.pins.queue.image)),

  orders: queue.queue('orders', {
    capacity: if pinion.environment == 'production' then 100000 else 1000,
    retention: '24h',
  }),
}
