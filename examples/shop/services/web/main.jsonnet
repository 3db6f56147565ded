local shop = import 'shop.libsonnet';

// pinion has the environment, its namespace, its parameters, and the pins of
// this service's artifacts.
function(pinion) {
  local name = pinion.service,
  local config = std.manifestYamlDoc({
    environment: pinion.environment,
    host: pinion.parameters.host,
    api: 'http://api',
  }),

  config: {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'web-config', labels: shop.labels(name) },
    data: { 'web.yaml': config },
  },
  deployment: shop.deployment(name, pinion.parameters.replicas, shop.container(name, pinion.pins.web.image) {
    env: [{ name: 'VERSION', value: pinion.pins.web.version }],
    ports: [{ name: 'http', containerPort: 8080 }],
    volumeMounts: [{ name: 'config', mountPath: '/etc/web', readOnly: true }],
  }) {
    // A pod reads its configuration when it starts, so a new one needs new pods.
    spec+: { template+: {
      metadata+: { annotations: { 'shop.example/config': std.md5(config) } },
      spec+: { volumes: [{ name: 'config', configMap: { name: 'web-config' } }] },
    } },
  },
  service: shop.service(name),
  ingress: shop.ingress(name, pinion.parameters.host),
}
