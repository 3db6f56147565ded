// What the shop's services have in common.
{
  // labels of an object that belongs to the app.
  labels(app): { 'app.kubernetes.io/name': app, 'app.kubernetes.io/part-of': 'shop' },

  // selector finds the pods of the app; it can't change once it is applied.
  selector(app): { 'app.kubernetes.io/name': app },

  // container runs an image as nobody, with nothing that it does not need.
  container(name, image): {
    name: name,
    image: image,
    resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '64Mi' } },
    securityContext: {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      seccompProfile: { type: 'RuntimeDefault' },
    },
  },

  deployment(name, replicas, container): {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: name, labels: $.labels(name) },
    spec: {
      replicas: replicas,
      selector: { matchLabels: $.selector(name) },
      template: {
        metadata: { labels: $.labels(name) },
        spec: { automountServiceAccountToken: false, containers: [container] },
      },
    },
  },

  service(name, port=80): {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: name, labels: $.labels(name) },
    spec: { selector: $.selector(name), ports: [{ name: 'http', port: port, targetPort: 'http' }] },
  },

  ingress(name, host): {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    metadata: { name: name, labels: $.labels(name) },
    spec: {
      rules: [{
        host: host,
        http: { paths: [{ path: '/', pathType: 'Prefix', backend: { service: { name: name, port: { name: 'http' } } } }] },
      }],
    },
  },
}
