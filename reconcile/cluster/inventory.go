package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

// An inventory is a ConfigMap "pinion-<environment>" in the environment's
// namespace. Its data has these entries; serviceAccount is there if the
// environment has one:
//
//	repository: https://git.example/deploy.git
//	serviceAccount: deployer
//	kinds: |
//	  apps/v1 Deployment shop
//	  rbac.authorization.k8s.io/v1 ClusterRole -
//	done: |
//	  2026-11-28T08:00:00Z shop/migrate sha256:…
//
// each line of kinds an apiVersion, a kind, and the namespace or "-"; each line
// of done a Job that has completed and must not be run again.
const (
	inventoryPrefix  = "pinion-"
	inventoryKinds   = "kinds"
	inventorySource  = "repository"
	inventoryAccount = "serviceAccount"
	inventoryDone    = "done"
)

var configMaps = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}

// inventory is what is known of a scope's inventory.
type inventory struct {
	writing sync.Mutex // held while it is read or written

	mu      sync.Mutex
	known   *Inventory        // guarded by mu; nil: to be read
	version string            // guarded by mu; the resource version of known; "" if there is none
	seen    string            // guarded by mu; the newest version that a watch has shown
	wanted  map[Kind]struct{} // guarded by mu; to be enrolled by whoever writes next
}

func (c *Cluster) inventoryOf(scope Scope) *inventory {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := c.inventories[scope]
	if i == nil {
		i = &inventory{wanted: map[Kind]struct{}{}}
		c.inventories[scope] = i
	}
	return i
}

func inventoryRef(scope Scope) render.Ref {
	return render.Ref{Kind: "ConfigMap", Namespace: scope.Namespace, Name: inventoryPrefix + string(scope.Environment)}
}

// Inventory returns what the cluster keeps of an environment. That there is no
// inventory yet is no error; that it can't be read is one. It is read once, and
// again after a watch has shown that it changed.
func (c *Cluster) Inventory(ctx context.Context, scope Scope) (Inventory, error) {
	i := c.inventoryOf(scope)
	i.writing.Lock()
	defer i.writing.Unlock()
	return c.readInventory(ctx, scope, i)
}

// readInventory reads the inventory if it is not known. i.writing is held.
func (c *Cluster) readInventory(ctx context.Context, scope Scope, i *inventory) (Inventory, error) {
	i.mu.Lock()
	known := i.known
	i.mu.Unlock()
	if known != nil {
		return known.clone(), nil
	}
	ref := inventoryRef(scope)
	f := failure{op: "read inventory", ref: ref, version: "v1", kind: "ConfigMap"}
	var cm corev1.ConfigMap
	err := c.send(ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Get().AbsPath("api", "v1", "namespaces", scope.Namespace, "configmaps", ref.Name).
			SetHeader("Accept", "application/json").Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &cm)
	})
	found := Inventory{Environment: scope.Environment, Namespace: scope.Namespace}
	switch {
	case apierrors.IsNotFound(err):
	case err != nil:
		return Inventory{}, classify(f, err)
	default:
		if found, err = parseInventory(&cm); err != nil {
			return Inventory{}, err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.set(&found, cm.ResourceVersion)
	return found.clone(), nil
}

// set takes over what was read or written, unless a watch has shown a newer
// version meanwhile. i.mu is held.
func (i *inventory) set(known *Inventory, version string) {
	i.known, i.version = known, version
	if version != "" && i.seen != "" && newer(i.seen, version) {
		i.known = nil
	}
}

func (i Inventory) clone() Inventory {
	i.Kinds = slices.Clone(i.Kinds)
	i.Done = slices.Clone(i.Done)
	return i
}

func parseInventory(cm *corev1.ConfigMap) (Inventory, error) {
	i := Inventory{
		Environment: desired.EnvironmentName(cm.Labels[LabelInventory]),
		Namespace:   cm.Namespace,
		Repository:  cm.Data[inventorySource],
		Account:     cm.Data[inventoryAccount],
		Confirmed:   cm.Annotations[AnnotationConfirmPrune],
		Found:       true,
	}
	for line := range strings.Lines(cm.Data[inventoryKinds]) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 {
			return Inventory{}, fmt.Errorf("read inventory ConfigMap %s/%s: line %q of %s is not \"apiVersion Kind namespace\"; mend it, or delete the ConfigMap if nothing has to be pruned",
				cm.Namespace, cm.Name, strings.TrimSpace(line), inventoryKinds)
		}
		gv, err := schema.ParseGroupVersion(words[0])
		if err != nil {
			return Inventory{}, fmt.Errorf("read inventory ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
		}
		k := Kind{Group: gv.Group, Version: gv.Version, Kind: words[1], Namespace: words[2]}
		if k.Namespace == "-" {
			k.Namespace = ""
		}
		i.Kinds = append(i.Kinds, k)
	}
	slices.SortFunc(i.Kinds, Kind.Compare)
	var err error
	if i.Done, err = parseDone(cm.Data[inventoryDone]); err != nil {
		return Inventory{}, fmt.Errorf("read inventory ConfigMap %s/%s: %w", cm.Namespace, cm.Name, err)
	}
	return i, nil
}

func writeKinds(kinds []Kind) string {
	var b strings.Builder
	for _, k := range kinds {
		namespace := k.Namespace
		if namespace == "" {
			namespace = "-"
		}
		fmt.Fprintf(&b, "%s %s %s\n", schema.GroupVersion{Group: k.Group, Version: k.Version}, k.Kind, namespace)
	}
	return b.String()
}

// Enroll sees to it that the inventory names the kinds of objects, before the
// first of them is applied. It sends nothing if it does already; what several
// callers want at the same time is written together.
func (c *Cluster) Enroll(ctx context.Context, scope Scope, objects []render.Object) error {
	kinds := kindsOf(objects)
	i := c.inventoryOf(scope)
	i.mu.Lock()
	if i.known != nil && c.enrolled(i.known, kinds) {
		i.mu.Unlock()
		return nil
	}
	for _, k := range kinds {
		i.wanted[k] = struct{}{}
	}
	i.mu.Unlock()
	return c.changeInventory(ctx, scope, i, func(known *Inventory) bool {
		if c.enrolled(known, kinds) {
			return false
		}
		for _, k := range kinds {
			known.enroll(k)
		}
		return true
	})
}

func (i *Inventory) enroll(k Kind) {
	if !slices.Contains(i.Kinds, k) {
		i.Kinds = append(i.Kinds, k)
	}
}

// changeInventory reads the inventory, has it changed, and writes it, together
// with the kinds that others want enrolled; change says whether that is needed.
func (c *Cluster) changeInventory(ctx context.Context, scope Scope, i *inventory, change func(*Inventory) bool) error {
	i.writing.Lock()
	defer i.writing.Unlock()
	for range 5 {
		known, err := c.readInventory(ctx, scope, i)
		if err != nil {
			return err
		}
		if err := c.Foreign(known); err != nil {
			return err
		}
		if !change(&known) {
			return nil
		}
		i.mu.Lock()
		want := slices.Collect(maps.Keys(i.wanted))
		version := i.version
		i.mu.Unlock()
		for _, k := range want {
			known.enroll(k)
		}
		slices.SortFunc(known.Kinds, Kind.Compare)
		known.Repository, known.Account, known.Found = c.config.Repository, c.account.Name, true
		version, err = c.writeInventory(ctx, scope, known, version)
		i.mu.Lock()
		if err == nil {
			i.set(&known, version)
			for _, k := range want {
				delete(i.wanted, k)
			}
			i.mu.Unlock()
			return nil
		}
		i.known = nil
		i.mu.Unlock()
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			err = classify(failure{op: "write inventory", ref: inventoryRef(scope), version: "v1", kind: "ConfigMap"}, err)
			c.learn(err)
			return err
		}
	}
	return &RetryableError{Op: "write inventory", Ref: inventoryRef(scope), Err: errors.New("others write it all the time")}
}

// enrolled tells whether an inventory needs no write.
func (c *Cluster) enrolled(known *Inventory, kinds []Kind) bool {
	if !known.Found || known.Repository != c.config.Repository || known.Account != c.account.Name {
		return false
	}
	for _, k := range kinds {
		if _, found := slices.BinarySearchFunc(known.Kinds, k, Kind.Compare); !found {
			return false
		}
	}
	return true
}

// writeInventory creates the ConfigMap, or changes the version that was read.
func (c *Cluster) writeInventory(ctx context.Context, scope Scope, i Inventory, version string) (string, error) {
	ref := inventoryRef(scope)
	meta := map[string]any{
		"name": ref.Name, "namespace": ref.Namespace,
		"labels": map[string]string{render.LabelManagedBy: render.ManagedBy, LabelInventory: string(scope.Environment)},
	}
	cm := map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
	}
	data := map[string]any{inventorySource: i.Repository, inventoryKinds: writeKinds(i.Kinds)}
	if len(i.Done) > 0 {
		data[inventoryDone] = writeDone(i.Done)
	}
	if i.Account != "" {
		data[inventoryAccount] = i.Account
	} else if version != "" {
		data[inventoryAccount] = nil // a merge removes it
	}
	cm["data"] = data
	if version != "" {
		meta["resourceVersion"] = version
	}
	body, err := json.Marshal(cm)
	if err != nil {
		return "", err
	}
	var written *metav1.PartialObjectMetadata
	err = c.send(ctx, func(ctx context.Context) error {
		request := c.client.Post().AbsPath("api", "v1", "namespaces", ref.Namespace, "configmaps").
			SetHeader("Content-Type", "application/json")
		if version != "" {
			request = c.client.Patch(types.MergePatchType).AbsPath("api", "v1", "namespaces", ref.Namespace, "configmaps", ref.Name)
		}
		result := request.Param("fieldManager", Manager).SetHeader("Accept", acceptMetadata).MaxRetries(0).Body(body).Do(ctx)
		if err := result.Error(); err != nil {
			return err
		}
		written, err = metadataOf(result)
		return err
	})
	if err != nil {
		return "", err
	}
	return written.ResourceVersion, nil
}

// ConfirmPrune records that a person agrees to the deletions that digest
// stands for.
func (c *Cluster) ConfirmPrune(ctx context.Context, scope Scope, digest string) error {
	ref := inventoryRef(scope)
	i := c.inventoryOf(scope)
	i.writing.Lock()
	defer i.writing.Unlock()
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{AnnotationConfirmPrune: digest}}})
	if err != nil {
		return err
	}
	err = c.send(ctx, func(ctx context.Context) error {
		_, err := c.metadata.Resource(configMaps).Namespace(ref.Namespace).Patch(ctx, ref.Name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: Manager})
		return err
	})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("confirm deletions in environment %s: nothing was ever applied there: there is no %s", scope.Environment, ref)
	}
	if err != nil {
		return classify(failure{op: "confirm deletions in", ref: ref, version: "v1", kind: "ConfigMap"}, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.known = nil
	return nil
}

// Inventories returns all inventories of the cluster, or, if our account may
// not list them all, those of the given namespaces, each as the account of an
// environment there; sorted by namespace and environment.
func (c *Cluster) Inventories(ctx context.Context, namespaces []Account) ([]Inventory, error) {
	found, err := c.listInventories(ctx, "")
	var forbidden *ForbiddenError
	if errors.As(err, &forbidden) {
		found, err = nil, nil
		slices.SortFunc(namespaces, func(a, b Account) int { return strings.Compare(a.Namespace, b.Namespace) })
		for _, a := range namespaces {
			as := c
			if a.Name != "" {
				as = c.As(a)
			}
			some, e := as.listInventories(ctx, a.Namespace)
			found, err = append(found, some...), errors.Join(err, e)
		}
	}
	return found, err
}

func (c *Cluster) listInventories(ctx context.Context, namespace string) ([]Inventory, error) {
	op := "list inventories"
	if namespace != "" {
		op += " in namespace " + namespace
	}
	path := []string{"api", "v1", "configmaps"}
	if namespace != "" {
		path = []string{"api", "v1", "namespaces", namespace, "configmaps"}
	}
	var list corev1.ConfigMapList
	err := c.send(ctx, func(ctx context.Context) error {
		raw, err := rawOf(c.client.Get().AbsPath(path...).Param("labelSelector", LabelInventory).
			SetHeader("Accept", "application/json").Do(ctx))
		if err != nil {
			return err
		}
		return json.Unmarshal(raw, &list)
	})
	if err != nil {
		return nil, classify(failure{op: op, version: "v1", kind: "ConfigMap"}, err)
	}
	var found []Inventory
	for i := range list.Items {
		cm := &list.Items[i]
		if cm.Name != inventoryPrefix+cm.Labels[LabelInventory] {
			continue // a copy
		}
		inv, err := parseInventory(cm)
		if err != nil {
			return nil, err
		}
		found = append(found, inv)
	}
	slices.SortFunc(found, func(a, b Inventory) int {
		if a.Namespace != b.Namespace {
			return strings.Compare(a.Namespace, b.Namespace)
		}
		return strings.Compare(string(a.Environment), string(b.Environment))
	})
	return found, nil
}

// sawInventory takes in that a watch has shown an inventory's ConfigMap.
func (c *Cluster) sawInventory(m *metav1.PartialObjectMetadata) {
	env := m.Labels[LabelInventory]
	if env == "" || m.Name != inventoryPrefix+env {
		return
	}
	i := c.inventoryOf(Scope{desired.EnvironmentName(env), m.Namespace})
	i.mu.Lock()
	i.seen = m.ResourceVersion
	other := i.known == nil || newer(m.ResourceVersion, i.version)
	if other {
		i.known = nil
	}
	i.mu.Unlock()
	if other {
		c.changes.add(Key{Environment: desired.EnvironmentName(env)})
	}
}

// lostInventory takes in that an inventory's ConfigMap was deleted.
func (c *Cluster) lostInventory(scope Scope) {
	i := c.inventoryOf(scope)
	i.mu.Lock()
	i.known = nil
	i.mu.Unlock()
	c.changes.add(Key{Environment: scope.Environment})
}
