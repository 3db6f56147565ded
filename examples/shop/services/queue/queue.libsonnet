// The definition of Queue, and a Queue.
{
  definition: {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: 'queues.shop.example' },
    spec: {
      group: 'shop.example',
      scope: 'Namespaced',
      names: { kind: 'Queue', listKind: 'QueueList', plural: 'queues', singular: 'queue' },
      versions: [{
        name: 'v1',
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: { openAPIV3Schema: {
          type: 'object',
          required: ['spec'],
          properties: {
            spec: {
              type: 'object',
              properties: {
                capacity: { type: 'integer', minimum: 1, description: 'messages that wait at most' },
                retention: { type: 'string', description: 'how long a message is kept, as in 24h' },
              },
              required: ['capacity'],
            },
            status: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true },
          },
        } },
      }],
    },
  },

  queue(name, spec): {
    apiVersion: 'shop.example/v1',
    kind: 'Queue',
    metadata: { name: name },
    spec: spec,
  },
}
