package cluster

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Allowance is something that makes a kubeconfig more than data.
type Allowance string

// The allowances.
const (
	AllowExec         Allowance = "exec"         // users.NAME.exec starts a program
	AllowAuthProvider Allowance = "authProvider" // users.NAME.auth-provider does what a plugin does
	AllowFiles        Allowance = "files"        // certificates, keys and tokens are read from other files
)

// Allowances are all that there are.
var Allowances = []Allowance{AllowExec, AllowAuthProvider, AllowFiles}

// Kubeconfig is where the address of a cluster and the credentials for it are
// read from: as kubectl does, from Path, else $KUBECONFIG, else ~/.kube/config,
// else from the service account of the pod that we run in.
type Kubeconfig struct {
	Path    string
	Context string // "": the current one
	// Strict refuses all that Allow does not have. A kubeconfig that somebody
	// else has written can start any program, and read any file that we can.
	Strict bool
	Allow  []Allowance
}

// FromKubeconfig reads a kubeconfig as kubectl does, and returns the
// namespace of the context too.
func FromKubeconfig(path, context string) (*rest.Config, string, error) {
	k := Kubeconfig{Path: path, Context: context}
	read, err := k.read("")
	if err != nil {
		return nil, "", err
	}
	return read.rest, read.namespace, nil
}

// credentials is what was read of a kubeconfig.
type credentials struct {
	rest      *rest.Config
	namespace string
	files     []string // in which a change is a change of it
}

// read reads it for a cluster, whose name is for messages.
func (k Kubeconfig) read(cluster string) (credentials, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = k.Path
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: k.Context})
	var c credentials
	if k.Path != "" {
		c.files = []string{k.Path}
	} else {
		c.files = slices.Clone(rules.GetLoadingPrecedence())
	}
	raw, err := loader.RawConfig()
	if err != nil {
		return c, fmt.Errorf("read kubeconfig: %w", err)
	}
	user, server := k.chosen(raw)
	if err := k.check(cluster, user, server); err != nil {
		return c, err
	}
	c.files = append(c.files, referred(user, server)...)
	if c.rest, err = loader.ClientConfig(); err != nil {
		return c, fmt.Errorf("read kubeconfig: %w", err)
	}
	if c.rest.CAFile != "" {
		c.files = append(c.files, c.rest.CAFile) // of a pod's account, too
	}
	if c.namespace, _, err = loader.Namespace(); err != nil {
		return c, fmt.Errorf("read kubeconfig: %w", err)
	}
	return c, nil
}

// part is a piece of a kubeconfig, with its key there and the file it is from.
type part[T any] struct {
	value *T
	key   string
	file  string
}

// chosen returns what the context refers to; without values if there is no
// kubeconfig, or no such context.
func (k Kubeconfig) chosen(raw api.Config) (part[api.AuthInfo], part[api.Cluster]) {
	name := k.Context
	if name == "" {
		name = raw.CurrentContext
	}
	var user part[api.AuthInfo]
	var server part[api.Cluster]
	context := raw.Contexts[name]
	if context == nil {
		return user, server
	}
	if u := raw.AuthInfos[context.AuthInfo]; u != nil {
		user = part[api.AuthInfo]{u, "users." + context.AuthInfo, u.LocationOfOrigin}
	}
	if s := raw.Clusters[context.Cluster]; s != nil {
		server = part[api.Cluster]{s, "clusters." + context.Cluster, s.LocationOfOrigin}
	}
	return user, server
}

// referred returns the files that a kubeconfig refers to and whose change means
// new connections; a token is read again by itself.
func referred(user part[api.AuthInfo], server part[api.Cluster]) []string {
	var files []string
	if user.value != nil {
		files = append(files, user.value.ClientCertificate, user.value.ClientKey)
	}
	if server.value != nil {
		files = append(files, server.value.CertificateAuthority)
	}
	return slices.DeleteFunc(files, func(f string) bool { return f == "" })
}

// check refuses what is not allowed, and says which key it is.
func (k Kubeconfig) check(cluster string, user part[api.AuthInfo], server part[api.Cluster]) error {
	if !k.Strict {
		return nil
	}
	var errs []error
	refuse := func(file, key string, a Allowance, does string) {
		if slices.Contains(k.Allow, a) {
			return
		}
		with := make([]string, 0, len(k.Allow)+1)
		for _, have := range append(slices.Clone(k.Allow), a) {
			with = append(with, string(have))
		}
		errs = append(errs, fmt.Errorf("kubeconfig %s: %s %s, which is not allowed; put the credentials themselves into the kubeconfig, or write allow: [%s] under clusters.%s in the configuration",
			file, key, does, strings.Join(with, ", "), cluster))
	}
	if u := user.value; u != nil {
		if u.Exec != nil {
			refuse(user.file, user.key+".exec", AllowExec, fmt.Sprintf("starts the program %q", u.Exec.Command))
		}
		if u.AuthProvider != nil {
			refuse(user.file, user.key+".auth-provider", AllowAuthProvider, fmt.Sprintf("uses the plugin %q", u.AuthProvider.Name))
		}
		for _, f := range []struct{ key, path string }{
			{"client-certificate", u.ClientCertificate}, {"client-key", u.ClientKey}, {"tokenFile", u.TokenFile},
		} {
			if f.path != "" {
				refuse(user.file, user.key+"."+f.key, AllowFiles, "reads the file "+f.path)
			}
		}
	}
	if s := server.value; s != nil && s.CertificateAuthority != "" {
		refuse(server.file, server.key+".certificate-authority", AllowFiles, "reads the file "+s.CertificateAuthority)
	}
	return errors.Join(errs...)
}

// stamp is what of a file differs when it was written anew.
type stamp struct {
	path string
	info os.FileInfo // nil: it could not be looked at
}

func stamps(files []string) []stamp {
	all := make([]stamp, len(files))
	for i, f := range files {
		all[i].path = f
		if info, err := os.Stat(f); err == nil {
			all[i].info = info
		}
	}
	return all
}

// changed tells whether a file is not what it was.
func (s stamp) changed() bool {
	info, err := os.Stat(s.path)
	if err != nil {
		return s.info != nil
	}
	return s.info == nil || !os.SameFile(s.info, info) || !info.ModTime().Equal(s.info.ModTime()) || info.Size() != s.info.Size()
}
