// Pinion calls this with the environment, its parameters, and its pins.
function(pinion) {
  local name = pinion.service + std.get(pinion.parameters, 'suffix', ''),
  local version = pinion.pins.web.version,
  local labels = { app: name },

  pages: {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: name, labels: labels },
    data: {
      'index.html': 'web %s in %s\n' % [version, pinion.environment],
      // The smoke test reads this. 1.2.0 is the version that does not pass it.
      health: if version == '1.2.0' then '500 no such table: carts' else '200 OK',
    },
  },

  deployment: {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: name, labels: labels },
    spec: {
      replicas: if pinion.environment == 'production' then 3 else 1,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels: labels },
        spec: {
          automountServiceAccountToken: false,
          terminationGracePeriodSeconds: 1,
          containers: [{
            name: 'web',
            image: pinion.pins.web.image,
            command: ['httpd', '-f', '-p', '8080', '-h', '/pages'],
            ports: [{ name: 'http', containerPort: 8080 }],
            volumeMounts: [{ name: 'pages', mountPath: '/pages', readOnly: true }],
            resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '64Mi' } },
            securityContext: {
              allowPrivilegeEscalation: false,
              capabilities: { drop: ['ALL'] },
              runAsNonRoot: true,
              runAsUser: 65534,
              seccompProfile: { type: 'RuntimeDefault' },
            },
          }],
          volumes: [{ name: 'pages', configMap: { name: name } }],
        },
      },
    },
  },
}
