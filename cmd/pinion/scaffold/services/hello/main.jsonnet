// What is applied for the service hello. Instead of this file there can be a
// kustomization.yaml, or plain YAML files.
//
// pinion has environment, namespace, service, parameters, and for each artifact
// under pins: image, repository, version and digest.
function(pinion) {
  local labels = { 'app.kubernetes.io/name': pinion.service },

  deployment: {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: pinion.service, labels: labels },
    spec: {
      replicas: pinion.parameters.replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels: labels },
        spec: { containers: [{ name: pinion.service, image: pinion.pins.hello.image }] },
      },
    },
  },
}
