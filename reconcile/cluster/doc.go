// Package cluster is the only part of Pinion that talks to Kubernetes: it
// applies, deletes, watches and compares, and it decides nothing. What to do is
// decided by the plan of package reconcile, from what this package observed.
//
// # What exists
//
// Every object that Pinion applies carries its labels, so what exists is known
// from lists and watches with a label selector, one for each kind and namespace
// that an environment uses (Watch), not from a GET per object. From each event
// only an Observed is kept: some hundred bytes with the owned fields and the
// health; the object is dropped. Kinds whose health says nothing (ConfigMap,
// Secret, roles…) are watched as metadata only, so the values of Secrets never
// enter this process by a watch.
//
// "Could not read" is never "not there": an Observation says whether it is
// complete, and it is not while any of its kinds has not been listed, or its
// last list or watch failed and was not made good since. Discovery that failed
// for a group is a failure too; only a kind that the API server surely does not
// serve any more counts as read and empty.
//
// Labels alone don't make an object ours. Endpoints inherit a Service's labels,
// and people copy objects. Owned asks for an Apply entry of our field manager
// in managedFields that is not older than the object itself, and for no
// controlling owner. What is not Owned is never deleted.
//
// # What is in sync
//
// What a Secret gives as stringData is sent as data, for fields are owned as
// they were sent.
//
// InSync compares the digest that we left on the object, and whether the
// managed fields that the API server records for us still cover every field
// that we set. When someone else changes such a field, the API server moves the
// ownership, so drift is found from what a watch delivers, without a request,
// and also after a restart. N objects in sync cost no request at all.
//
// # How it does
//
// Health is judged by package health from each event: by the rules of the
// object's service (SetHealth), else by what is known of the kind. A kind that
// has a rule is watched in full, in the version that the rule is for. Objects
// are not kept, so a rule that comes later has its kind listed once more, and
// until then the object is in progress. While a workload is not Current
// the pods of its namespace are watched too, and Health.Reason says what its
// newest pods suffer from; that ends when nothing there is waited for.
//
// # How it writes
//
// One request for each object: the rendered bytes as a server-side apply patch
// with field manager "pinion", answered by metadata only. DryRun sends the same
// with dryRun=All. Nothing is forced unless the caller says so, and nothing is
// deleted in order to apply it but by Remove. The answer's metadata goes into the store
// at once, and the object counts as in progress until the watch has delivered
// that version or a later one; resource versions are compared as numbers.
// Delete names the UID and the version that was seen, and looks again if the
// object has changed since.
//
// Errors are typed by who must act (errors.go). This package does not retry:
// the caller has the queue, and Retry tells it when.
//
// # Leases
//
// Leases competes with other replicas, and says for how long a lease is surely
// ours: its Term. What is done with a Term's Context ends with the Term, and no
// request that writes is sent after it, also by a process that was stopped and
// has not noticed anything (term.go).
//
// # Inventory
//
// Which kinds and namespaces an environment has ever used can't be told from
// labels without listing every kind of the cluster. It is kept in the cluster,
// in one ConfigMap for each environment, which is written before the first
// apply of a new kind. Membership itself is never written down: it is the
// labels on the objects.
//
// # What a crash leaves behind
//
// Nothing that matters. An inventory may name a kind of which nothing was
// applied; objects may be applied of which the caller heard no answer. Both are
// seen by the next start's lists.
package cluster
