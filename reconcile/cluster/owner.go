package cluster

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pinion-cd/pinion/desired"
)

// OwnerError says that an environment in a cluster is another deployment
// repository's, whatever ours calls its own.
type OwnerError struct {
	Cluster      string
	Environment  desired.EnvironmentName
	Namespace    string
	Theirs, Ours string // repositories
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("environment %[1]s in namespace %[2]s of cluster %[3]s belongs to the repository %[4]s, and this one is %[5]s; give one of the two another name or namespace, or, to hand it over: "+
		`kubectl --namespace %[2]s patch configmap %[6]s%[1]s --type merge --patch '{"data":{"%[7]s":"%[5]s"}}'`,
		e.Environment, e.Namespace, e.Cluster, e.Theirs, e.Ours, inventoryPrefix, inventorySource)
}

// Owner says whether an environment there is another repository's; nil if it is
// ours, or nobody's. It reads the inventory anew.
func (c *Cluster) Owner(ctx context.Context, scope Scope) error {
	i := c.inventoryOf(scope)
	i.mu.Lock()
	i.known = nil
	i.mu.Unlock()
	inv, err := c.Inventory(ctx, scope)
	if err != nil {
		return err
	}
	return c.Foreign(inv)
}

// Foreign says whether an inventory is another repository's; nil if it is ours,
// or nobody's.
func (c *Cluster) Foreign(i Inventory) error {
	ours := c.config.Repository
	if !i.Found || ours == "" || i.Repository == "" || SameRepository(i.Repository, ours) {
		return nil
	}
	return &OwnerError{Cluster: c.config.Name, Environment: i.Environment, Namespace: i.Namespace, Theirs: i.Repository, Ours: ours}
}

var (
	withScheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*://([^/@]*@)?([^/:]*)(:[0-9]+)?(/.*)?$`)
	asForCopy  = regexp.MustCompile(`^(?:[^/@:]+@)?([^/:]+):([^/].*|/.*)$`)
)

// SameRepository tells whether two addresses are those of one repository, which
// has one for each protocol: https://git.example/shop.git, git@git.example:shop.
func SameRepository(a, b string) bool { return plainAddress(a) == plainAddress(b) }

func plainAddress(url string) string {
	if m := withScheme.FindStringSubmatch(url); m != nil {
		url = strings.ToLower(m[2]) + m[4]
	} else if m := asForCopy.FindStringSubmatch(url); m != nil {
		url = strings.ToLower(m[1]) + "/" + strings.TrimPrefix(m[2], "/")
	}
	return strings.TrimSuffix(strings.TrimRight(url, "/"), ".git")
}

// Forget removes the inventory of an environment of which nothing is left. One
// of another repository stays.
func (c *Cluster) Forget(ctx context.Context, scope Scope) error {
	ref := inventoryRef(scope)
	if err := c.Owner(ctx, scope); err != nil {
		if errors.As(err, new(*OwnerError)) {
			return nil
		}
		return err
	}
	i := c.inventoryOf(scope)
	i.mu.Lock()
	version := i.version
	i.mu.Unlock()
	if version == "" {
		return nil
	}
	err := c.send(ctx, func(ctx context.Context) error {
		return c.metadata.Resource(configMaps).Namespace(ref.Namespace).Delete(ctx, ref.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{ResourceVersion: &version},
		})
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return classify(failure{op: "delete", ref: ref, version: "v1", kind: "ConfigMap"}, err)
}
