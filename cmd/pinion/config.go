package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/ledger"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/worker"
)

// config is the daemon's configuration file. All of it is optional.
// docs/configuration.md tells what each key means.
type config struct {
	APIVersion string                                `yaml:"apiVersion"`
	Kind       string                                `yaml:"kind"`
	Repository repositoryConfig                      `yaml:"repository,omitempty"`
	Clusters   map[desired.ClusterName]clusterConfig `yaml:"clusters,omitempty"`
	DataDir    string                                `yaml:"dataDir,omitempty"`
	Listen     string                                `yaml:"listen,omitempty"`
	Render     renderConfig                          `yaml:"render,omitempty"`
	Apply      applyConfig                           `yaml:"apply,omitempty"`
	Log        logConfig                             `yaml:"log,omitempty"`
	Identity   identityConfig                        `yaml:"identity,omitempty"`
	Tokens     []tokenConfig                         `yaml:"tokens,omitempty"`
	API        *apiConfig                            `yaml:"api,omitempty"`
	// LeaderElection and Shard are for several replicas.
	LeaderElection *leaderElectionConfig    `yaml:"leaderElection,omitempty"`
	Shard          string                   `yaml:"shard,omitempty"`
	DigestKeyFile  string                   `yaml:"digestKeyFile,omitempty"`
	Secrets        secretsConfig            `yaml:"secrets,omitempty"`
	Outbound       outboundConfig           `yaml:"outbound,omitempty"`
	Registry       registryConfig           `yaml:"registry,omitempty"`
	Forge          *forgeConfig             `yaml:"forge,omitempty"`
	Triggers       map[string]triggerConfig `yaml:"triggers,omitempty"`
	Sinks          map[string]sinkConfig    `yaml:"sinks,omitempty"`
}

type repositoryConfig struct {
	URL               string        `yaml:"url,omitempty"`
	Branch            string        `yaml:"branch,omitempty"`
	Poll              time.Duration `yaml:"poll,omitempty"`
	AllowRewrite      bool          `yaml:"allowRewrite,omitempty"`
	Username          string        `yaml:"username,omitempty"`
	PasswordFile      string        `yaml:"passwordFile,omitempty"`
	TokenFile         string        `yaml:"tokenFile,omitempty"`
	KeyFile           string        `yaml:"keyFile,omitempty"`
	KeyPassphraseFile string        `yaml:"keyPassphraseFile,omitempty"`
	KnownHostsFile    string        `yaml:"knownHostsFile,omitempty"`
	CAFile            string        `yaml:"caFile,omitempty"`
}

type clusterConfig struct {
	Kubeconfig string `yaml:"kubeconfig,omitempty"`
	Context    string `yaml:"context,omitempty"`
	Requests   int    `yaml:"requests,omitempty"`

	RequestsPerSecond int                                      `yaml:"requestsPerSecond,omitempty"`
	Identity          string                                   `yaml:"identity,omitempty"`
	Allow             []cluster.Allowance                      `yaml:"allow,omitempty"`
	Environments      map[desired.EnvironmentName]boundsConfig `yaml:"environments,omitempty"`
}

// boundsConfig is what an environment may have besides its own namespace.
type boundsConfig struct {
	Namespaces    []string `yaml:"namespaces,omitempty"`
	ClusterScoped []string `yaml:"clusterScoped,omitempty"`
}

type renderConfig struct {
	Processes int           `yaml:"processes,omitempty"`
	Timeout   time.Duration `yaml:"timeout,omitempty"`
	MemoryMiB int           `yaml:"memoryMiB,omitempty"`
	OutputMiB int           `yaml:"outputMiB,omitempty"`
}

type applyConfig struct {
	Services int           `yaml:"services,omitempty"`
	Compare  time.Duration `yaml:"compare,omitempty"`
}

type logConfig struct {
	Format string `yaml:"format,omitempty"`
	Level  string `yaml:"level,omitempty"`
}

// identityConfig is who the daemon's commits are by, and how they are signed.
type identityConfig struct {
	Name                     string `yaml:"name,omitempty"`
	Email                    string `yaml:"email,omitempty"`
	SigningKeyFile           string `yaml:"signingKeyFile,omitempty"`
	SigningKeyPassphraseFile string `yaml:"signingKeyPassphraseFile,omitempty"`
}

// processes returns how many services are rendered at the same time.
func (r renderConfig) processes() int {
	if r.Processes > 0 {
		return r.Processes
	}
	return runtime.NumCPU()
}

// services returns how many services of a cluster are applied at the same time.
func (a applyConfig) services() int {
	if a.Services > 0 {
		return a.Services
	}
	return 16
}

// compare returns how often all objects are compared with the clusters'.
func (a applyConfig) compare() time.Duration {
	if a.Compare > 0 {
		return a.Compare
	}
	return 4 * time.Hour
}

// readConfig reads the file that --config names; without one, all is default.
func (g *globals) readConfig() (*config, error) {
	c := &config{}
	if g.config == "" {
		return c, nil
	}
	data, err := os.ReadFile(g.config)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if err := decodeConfig(g.config, data, c); err != nil {
		return nil, err
	}
	if c.Kind != "Config" || c.APIVersion != "pinion.dev/v1" {
		return nil, fmt.Errorf("%s: it is not a configuration; begin with apiVersion: pinion.dev/v1 and kind: Config", g.config)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", g.config, err)
	}
	return c, nil
}

// check refuses values that their types allow and that mean nothing.
func (c *config) check() error {
	numbers := []struct {
		key   string
		value int64
	}{
		{"repository.poll", int64(c.Repository.Poll)},
		{"render.processes", int64(c.Render.Processes)},
		{"render.timeout", int64(c.Render.Timeout)},
		{"render.memoryMiB", int64(c.Render.MemoryMiB)},
		{"render.outputMiB", int64(c.Render.OutputMiB)},
		{"apply.services", int64(c.Apply.Services)},
		{"apply.compare", int64(c.Apply.Compare)},
		{"secrets.sops.timeout", int64(c.Secrets.Sops.Timeout)},
	}
	for _, name := range slices.Sorted(maps.Keys(c.Clusters)) {
		numbers = append(numbers, struct {
			key   string
			value int64
		}{"clusters." + string(name) + ".requests", int64(c.Clusters[name].Requests)}, struct {
			key   string
			value int64
		}{"clusters." + string(name) + ".requestsPerSecond", int64(c.Clusters[name].RequestsPerSecond)})
		if err := c.Clusters[name].check("clusters." + string(name)); err != nil {
			return err
		}
	}
	for _, n := range numbers {
		if n.value < 0 {
			return fmt.Errorf("%s is negative; leave it out for the default", n.key)
		}
	}
	for i, t := range c.Tokens {
		if err := t.check(); err != nil {
			return fmt.Errorf("tokens[%d]: %w", i, err)
		}
		if j := slices.IndexFunc(c.Tokens[:i], func(o tokenConfig) bool { return strings.EqualFold(o.SHA256, t.SHA256) }); j >= 0 {
			return fmt.Errorf("tokens[%d] is the token of tokens[%d], %s; give each principal a token of its own", i, j, c.Tokens[j].Principal)
		}
	}
	if err := c.API.check(); err != nil {
		return err
	}
	if strings.ContainsAny(c.Identity.Name+c.Identity.Email, "<>\n") {
		return errors.New("identity: a name or an address with < or > can't be written into a commit")
	}
	if e := c.LeaderElection; e != nil {
		whole := *e
		if err := whole.complete(); err != nil {
			return err
		}
	}
	if c.Shard != "" {
		if _, err := reconcile.ParseShard(c.Shard, "any-0"); err != nil {
			return err
		}
	}
	if err := c.Secrets.check(); err != nil {
		return err
	}
	if _, err := c.Outbound.allow(); err != nil {
		return err
	}
	if err := c.Registry.check(); err != nil {
		return err
	}
	if err := c.Forge.check(); err != nil {
		return err
	}
	if err := c.checkSinks(); err != nil {
		return err
	}
	if err := c.checkTriggers(); err != nil {
		return err
	}
	_, err := c.logger(&globals{err: io.Discard})
	return err
}

// check refuses words that mean nothing.
func (c clusterConfig) check(key string) error {
	if c.Identity != "" && !uidForm.MatchString(c.Identity) {
		return fmt.Errorf("%s.identity: %q is not the UID of a namespace; `pinion doctor` shows that of kube-system", key, c.Identity)
	}
	for _, a := range c.Allow {
		if !slices.Contains(cluster.Allowances, a) {
			return fmt.Errorf("%s.allow has %q; write exec, authProvider or files", key, a)
		}
	}
	for _, env := range slices.Sorted(maps.Keys(c.Environments)) {
		b := c.Environments[env]
		for _, n := range b.Namespaces {
			if n != "*" && !namespaceForm.MatchString(n) {
				return fmt.Errorf("%s.environments.%s.namespaces has %q; write the names of namespaces, or \"*\" for all", key, env, n)
			}
		}
		for _, k := range b.ClusterScoped {
			if k != "*" && !kindForm.MatchString(k) {
				return fmt.Errorf("%s.environments.%s.clusterScoped has %q; write kinds with their group, as in Namespace or ClusterRole.rbac.authorization.k8s.io, or \"*\" for all", key, env, k)
			}
		}
	}
	return nil
}

// fences returns what environments may have besides their own namespaces.
func (c *config) fences() reconcile.Fences {
	all := reconcile.Fences{}
	for name, cc := range c.Clusters {
		if cc.Environments == nil {
			continue
		}
		all[name] = map[desired.EnvironmentName]reconcile.Bounds{}
		for env, b := range cc.Environments {
			all[name][env] = reconcile.Bounds{Namespaces: b.Namespaces, ClusterScoped: b.ClusterScoped}
		}
	}
	return all
}

var (
	uidForm       = regexp.MustCompile(`^[0-9A-Za-z-]+$`)
	namespaceForm = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	kindForm      = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*(\.[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`)
	principalForm = regexp.MustCompile(`^[^\s,<>]+$`)
	hashForm      = regexp.MustCompile(`^[0-9a-fA-F]{64}$`)
)

func (t tokenConfig) check() error {
	for _, name := range append([]string{t.Principal}, t.Groups...) {
		if !principalForm.MatchString(name) {
			return fmt.Errorf("%q can't be a principal or a group; write a name without spaces, commas and angle brackets", name)
		}
	}
	if t.Email != "" && !principalForm.MatchString(t.Email) {
		return fmt.Errorf("%q is not an e-mail address", t.Email)
	}
	if err := checkScopes(t.Scopes); err != nil {
		return fmt.Errorf("%s: %w", t.Principal, err)
	}
	if !hashForm.MatchString(t.SHA256) {
		return fmt.Errorf("sha256 of %s is not 64 hexadecimal digits; write what `printf %%s \"$TOKEN\" | sha256sum` prints", t.Principal)
	}
	return nil
}

// yamlFault is one of the errors that the YAML decoder joins, and yamlType one
// about a type.
var (
	yamlFault = regexp.MustCompile(`line (\d+): (.*)`)
	yamlType  = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.*)$")
)

// describeYAML says what yamlType has found in the words of who writes YAML.
func describeYAML(fault string) string {
	m := yamlType.FindStringSubmatch(fault)
	got := map[string]string{"seq": "a list", "map": "a mapping"}[m[1]]
	if got == "" {
		got = m[2]
	}
	want := map[string]string{
		"string": "text", "int": "a whole number", "bool": "true or false", "time.Duration": "a time with its unit, such as 30s",
	}[m[3]]
	if want == "" {
		want = "a mapping"
	}
	return fmt.Sprintf("it is %s; write %s", got, want)
}

// decodeConfig reads a configuration strictly, and says where it is wrong.
func decodeConfig(file string, data []byte, into *config) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err := dec.Decode(into)
	if err == nil {
		if err = dec.Decode(new(config)); errors.Is(err, io.EOF) {
			return nil
		}
		return fmt.Errorf("%s: more than one YAML document; a configuration is one", file)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: the file is empty; begin with apiVersion: pinion.dev/v1 and kind: Config", file)
	}
	faults := yamlFault.FindAllStringSubmatch(err.Error(), -1)
	if len(faults) == 0 { // the parser leaves out the line if it is the first
		return fmt.Errorf("%s:1: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, len(faults))
	for i, f := range faults {
		what := yamlType.ReplaceAllStringFunc(f[2], describeYAML)
		if key, rest, ok := strings.Cut(strings.TrimPrefix(what, "field "), " not found in type "); ok {
			what = fmt.Sprintf("unknown key %q; the keys here are %s", key, strings.Join(keysOf(rest), ", "))
		}
		lines[i] = fmt.Sprintf("%s:%s: %s", file, f[1], what)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// keysOf returns the keys of the configuration's type with a name.
func keysOf(name string) []string {
	for _, part := range []any{config{}, repositoryConfig{}, clusterConfig{}, boundsConfig{}, renderConfig{}, applyConfig{}, logConfig{}, identityConfig{}, tokenConfig{}, apiConfig{}, kubernetesAuthConfig{}, oidcConfig{}, grantConfig{}, limitsConfig{}, tlsConfig{}, leaderElectionConfig{}, secretsConfig{}, sopsConfig{}, outboundConfig{}, registryConfig{}, forgeConfig{}, forgeUserConfig{}, sinkConfig{}, triggerConfig{}} {
		t := reflect.TypeOf(part)
		if t.String() != name {
			continue
		}
		var keys []string
		for i := range t.NumField() {
			key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
			keys = append(keys, key)
		}
		return keys
	}
	return nil
}

// secret reads a file that holds one secret; a newline at its end is no part.
func secret(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// options returns how to mirror the repository.
func (r repositoryConfig) options() (gitstate.Options, error) {
	password, err := secret(r.PasswordFile)
	if err != nil {
		return gitstate.Options{}, err
	}
	passphrase, err := secret(r.KeyPassphraseFile)
	if err != nil {
		return gitstate.Options{}, err
	}
	return gitstate.Options{
		URL:          r.URL,
		Branch:       r.Branch,
		Poll:         r.Poll,
		AllowRewrite: r.AllowRewrite,
		Auth: gitstate.Auth{
			Username:       r.Username,
			Password:       password,
			TokenFile:      r.TokenFile,
			KeyFile:        r.KeyFile,
			KeyPassphrase:  passphrase,
			KnownHostsFile: r.KnownHostsFile,
			CAFile:         r.CAFile,
		},
	}, nil
}

// person returns who the daemon's commits are by.
func (i identityConfig) person() ledger.Person {
	p := ledger.Person{Name: i.Name, Email: i.Email}
	if p.Name == "" {
		p.Name = "Pinion"
	}
	if p.Email == "" {
		p.Email = "pinion@localhost"
	}
	return p
}

// signer returns what signs the daemon's commits; nil: they are not signed.
func (i identityConfig) signer() (*gitstate.Signer, error) {
	if i.SigningKeyFile == "" {
		return nil, nil
	}
	passphrase, err := secret(i.SigningKeyPassphraseFile)
	if err != nil {
		return nil, err
	}
	return gitstate.OpenSigner(i.SigningKeyFile, passphrase)
}

// connecting says how to connect to the clusters of the configuration.
type connecting struct {
	repository string       // for the inventories
	logger     *slog.Logger // nil: silence
	// records is the folder in which it is kept which cluster each was; "": it
	// is known for the life of this process.
	records string
	// lenient: a kubeconfig that can't be used is no error.
	lenient bool
}

// clusters connects to the clusters of the configuration; --kubeconfig and
// --context are for the cluster "default". What stands in a configuration is
// held to what it allows; what a person names, or kubectl would find, is hers.
func (g *globals) clusters(ctx context.Context, c *config, o connecting) (map[desired.ClusterName]*cluster.Cluster, error) {
	configured := maps.Clone(c.Clusters)
	if len(configured) == 0 {
		configured = map[desired.ClusterName]clusterConfig{"default": {}}
	}
	if g.kubeconfig != "" || g.context != "" {
		d := configured["default"]
		if g.kubeconfig != "" {
			d.Kubeconfig = g.kubeconfig
		}
		if g.context != "" {
			d.Context = g.context
		}
		configured["default"] = d
	}
	clusters := map[desired.ClusterName]*cluster.Cluster{}
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		cc := configured[name]
		to := cluster.Config{
			Name: string(name), Lenient: o.lenient, Concurrency: cc.Requests, PerSecond: cc.RequestsPerSecond,
			Kubeconfig: &cluster.Kubeconfig{
				Path: cc.Kubeconfig, Context: cc.Context, Allow: cc.Allow,
				Strict: g.config != "" && !(name == "default" && g.kubeconfig != ""),
			},
			Identity: cc.Identity, Repository: o.repository, Logger: o.logger,
		}
		if o.records != "" {
			to.Record = filepath.Join(o.records, url.PathEscape(string(name)))
		}
		var err error
		if clusters[name], err = cluster.Connect(ctx, to); err != nil {
			delete(clusters, name)
			closeClusters(clusters)
			return nil, fmt.Errorf("%w; check --kubeconfig and --context, or clusters: in the configuration", err)
		}
	}
	return clusters, nil
}

// renderer returns what renders; close ends its workers. The age keys are those
// of the configuration and of more files.
func (c *config) renderer(keyFiles ...string) (r reconcile.Renderer, close func(), err error) {
	keys, err := c.Secrets.keys(keyFiles...)
	if err != nil {
		return r, nil, err
	}
	program, err := c.program()
	if err != nil {
		return r, nil, err
	}
	pool := worker.New(worker.Options{
		Size:        c.Render.processes(),
		Timeout:     c.Render.Timeout,
		MemoryLimit: int64(c.Render.MemoryMiB) << 20,
		OutputLimit: c.Render.OutputMiB << 20,
		Keys:        keys,
		Sops:        program,
	})
	return reconcile.Renderer{Pool: pool, Cache: render.NewCache(cacheBytes), Renderings: new(atomic.Uint64)}, pool.Close, nil
}

// cacheBytes bounds the renderings that are kept.
const cacheBytes = 32 << 20

// logger returns the daemon's log.
func (c *config) logger(g *globals) (*slog.Logger, error) {
	level := slog.LevelInfo
	if c.Log.Level != "" {
		if err := level.UnmarshalText([]byte(c.Log.Level)); err != nil {
			return nil, fmt.Errorf("log.level is %q; write debug, info, warn or error", c.Log.Level)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	switch c.Log.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(g.err, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(g.err, options)), nil
	}
	return nil, fmt.Errorf("log.format is %q; write text or json", c.Log.Format)
}

// dataDir returns the folder for what can be thrown away.
func (c *config) dataDir() (string, error) {
	if c.DataDir != "" {
		return c.DataDir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a folder for the mirror: %w; set dataDir in the configuration, or --data-dir", err)
	}
	return filepath.Join(cache, "pinion"), nil
}
