package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/reconcile"
	"github.com/pinion-cd/pinion/reconcile/cluster"
)

func newDoctorCommand(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check git access and push rights, clusters and permissions, and the clock",
		Long: `Check what the daemon needs, with its configuration: that the repository can be
read, fetched and pushed to, that each cluster can be reached and allows what the
environments' services need there, that no environment has anything that the
configuration forbids it, and that this machine's clock is right.

It changes nothing, in git or in a cluster. Exit code 1 if a check fails.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return g.doctor(cmd.Context()) },
	}
}

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// doctorTimeout bounds one check.
const doctorTimeout = 20 * time.Second

// clockTolerance is the difference between two clocks that does no harm.
const clockTolerance = 5 * time.Second

func (g *globals) doctor(ctx context.Context) error {
	format, err := g.format("table", "json")
	if err != nil {
		return err
	}
	config, err := g.readConfig()
	if err != nil {
		return err
	}
	findings, r := g.examineRepository(ctx, config)
	if r != nil {
		defer r.close()
	}
	findings = append(findings, examineKey(config)...)
	findings = append(findings, examineForge(ctx, config)...)
	findings = append(findings, examineRegistries(ctx, config, r)...)
	findings = append(findings, examineSinks(config)...)
	findings = append(findings, g.examineClusters(ctx, config, r)...)
	if format == "json" {
		err = g.writeJSON(findings)
	} else {
		err = g.writeFindings(findings)
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(findings, func(f finding) bool { return !f.OK }) {
		return &exitError{code: exitDifferent}
	}
	return nil
}

func (g *globals) writeFindings(findings []finding) error {
	color := paletteFor(g.out)
	w := tabwriter.NewWriter(g.out, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		mark := "ok"
		if !f.OK {
			mark = "FAIL"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", mark, f.Check, strings.ReplaceAll(f.Detail, "\n", " "))
		if f.Hint != "" {
			fmt.Fprintf(w, "\t\t%s\n", color.dim("→ "+f.Hint))
		}
	}
	return w.Flush()
}

// examineRepository checks git; the repository is nil if it can't be read.
func (g *globals) examineRepository(ctx context.Context, config *config) ([]finding, *repository) {
	var findings []finding
	configured := *g
	if configured.repo == "" {
		configured.repo = config.Repository.URL
	}
	ctx, cancel := context.WithTimeout(ctx, 3*doctorTimeout)
	defer cancel()
	r, err := configured.open(ctx, head)
	if err != nil {
		return append(findings, finding{"repository", false, err.Error(), "check --repo, and repository: in the configuration"}), nil
	}
	findings = append(findings, finding{Check: "repository", OK: true, Detail: fmt.Sprintf("%s at commit %.12s", r.name, r.commit.ID)})
	errs := 0
	for _, p := range r.commit.Repository.Problems {
		if p.Severity == desired.SeverityError {
			errs++
		}
	}
	f := finding{Check: "files", OK: errs == 0, Detail: fmt.Sprintf("%d environments, %d services, %d errors", len(r.commit.Repository.Environments), len(r.commit.Repository.Services), errs)}
	if errs > 0 {
		f.Hint = "`pinion lint` lists them"
	}
	findings = append(findings, f)
	return append(findings, g.examineRemote(ctx, config, configured.repo, r)...), r
}

// examineRemote checks whether the remote can be fetched and pushed to.
func (g *globals) examineRemote(ctx context.Context, config *config, repo string, r *repository) []finding {
	url := repo
	if clone, ok := r.commits.(*gitstate.Clone); ok {
		var err error
		if url, err = clone.RemoteURL(); err != nil {
			return []finding{{"remote", false, err.Error(), ""}}
		}
		if url == "" {
			return []finding{{"remote", false, "this clone has no remote called origin", "git remote add origin URL"}}
		}
	}
	options, err := config.Repository.options()
	if err != nil {
		return []finding{{"remote", false, err.Error(), ""}}
	}
	options.URL = url
	access, err := gitstate.Probe(ctx, options)
	findings := []finding{{Check: "remote: fetch", OK: err == nil, Detail: gitstate.Redact(url)}}
	if err != nil {
		findings[0].Detail, findings[0].Hint = err.Error(), "the daemon reads this remote with the credentials under repository: in the configuration"
		return findings
	}
	push := finding{Check: "remote: push", OK: access.Push, Detail: "the server accepts our credentials for pushing (branch protection is not visible from here)"}
	if !access.Push {
		push.Detail, push.Hint = access.Refusal, "promotions are commits that the daemon pushes; give its account write access"
	}
	return append(findings, push)
}

// examineKey checks the key that signs the daemon's commits.
func examineKey(config *config) []finding {
	signer, err := config.Identity.signer()
	switch {
	case err != nil:
		return []finding{{"signing key", false, err.Error(), "identity.signingKeyFile in the configuration names an SSH private key"}}
	case signer == nil:
		return []finding{{Check: "signing key", OK: true, Detail: "none: the ledgers and the promotions are not signed", Hint: "identity.signingKeyFile in the configuration signs them"}}
	}
	who := config.Identity.person()
	return []finding{{Check: "signing key", OK: true, Detail: fmt.Sprintf("%s; a line for allowed_signers: %s %s", signer.Fingerprint(), who.Email, signer.PublicKey())}}
}

// examineSinks checks the files that the sinks name. They are sent nothing.
func examineSinks(config *config) []finding {
	var findings []finding
	for _, name := range slices.Sorted(maps.Keys(config.Sinks)) {
		f := finding{Check: "sink " + name, OK: true, Detail: "its files can be read", Hint: "`pinion notify test " + name + "` sends it a message"}
		if _, err := config.Sinks[name].open(name); err != nil {
			f.OK, f.Detail, f.Hint = false, err.Error(), ""
		}
		findings = append(findings, f)
	}
	return findings
}

// examineClusters checks each cluster, and what each environment needs there.
func (g *globals) examineClusters(ctx context.Context, config *config, r *repository) []finding {
	clusters, err := g.clusters(ctx, config, connecting{})
	if err != nil {
		return []finding{{"kubeconfig", false, err.Error(), "check --kubeconfig and --context, or clusters: in the configuration"}}
	}
	defer closeClusters(clusters)
	var findings []finding
	up := map[desired.ClusterName]bool{}
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		check := "cluster " + string(name)
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		version, err := clusters[name].ServerVersion(ctx)
		if err != nil {
			findings = append(findings, finding{check, false, err.Error(), ""})
			cancel()
			continue
		}
		up[name] = true
		findings = append(findings, finding{Check: check, OK: true, Detail: "Kubernetes " + version.GitVersion})
		findings = append(findings, examineClock(ctx, check, clusters[name]), examineIdentity(ctx, check, string(name), clusters[name]))
		findings = append(findings, examineLeases(ctx, config, name, clusters[name])...)
		cancel()
	}
	if r == nil {
		return findings
	}
	renderer, closePool, err := config.renderer()
	if err != nil {
		return append(findings, finding{"secrets", false, err.Error(), "look at secrets: in the configuration"})
	}
	defer closePool()
	all, err := reconcile.Render(ctx, r.commits, renderer, r.commit, reconcile.Selection{}, config.Render.processes())
	if err != nil {
		return append(findings, finding{"permissions", false, err.Error(), ""})
	}
	if ok, why := renderer.Pool.Confined(); ok {
		findings = append(findings, finding{Check: "rendering", OK: true, Detail: "workers have no files and no network"})
	} else {
		findings = append(findings, finding{"rendering", false, "workers are not confined: " + why, "manifests that look for files or the network are refused all the same, but only by our own code; on Linux a seccomp filter has to be allowed"})
	}
	findings = append(findings, g.examineBounds(config, all)...)
	type place struct {
		environment desired.EnvironmentName
		reconcile.Place
	}
	kinds := map[place][]reconcile.Rendered{}
	for _, one := range all {
		if one.Err == nil {
			p := place{one.Environment, one.Target.Place}
			kinds[p] = append(kinds[p], one)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(kinds), func(a, b place) int { return strings.Compare(string(a.environment), string(b.environment)) }) {
		check := "environment " + string(p.environment)
		account := kinds[p][0].Target.Account
		cl := reconcile.Connection(clusters, p.Place, account)
		switch {
		case cl == nil:
			findings = append(findings, finding{check, false, fmt.Sprintf("cluster %q is not in the configuration", p.Cluster), "add it under clusters:"})
			continue
		case !up[p.Cluster]:
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		f := finding{Check: check, OK: true, Detail: "all permissions in namespace " + p.Namespace}
		var missing []string
		var err error
		if account != "" {
			f.Detail += fmt.Sprintf(" as ServiceAccount %s", account)
			missing, err = cl.DeniedImpersonation(ctx, cluster.Account{Namespace: p.Namespace, Name: account})
			if err != nil || len(missing) > 0 {
				cancel()
				f.OK, f.Detail = false, "our own account may not: "+strings.Join(missing, "; ")
				if f.Hint = "examples/install/tenants.yaml has the Role"; err != nil {
					f.Detail, f.Hint = err.Error(), ""
				}
				findings = append(findings, f)
				continue
			}
		}
		missing, err = missingPermissions(ctx, cl, p.Namespace, kinds[p])
		if runsJobs(r.commit.Repository, p.environment) {
			denied, jobsErr := cl.DeniedJobs(ctx, p.Namespace)
			missing, err = append(missing, denied...), errors.Join(err, jobsErr)
		}
		cancel()
		switch {
		case err != nil:
			f.OK, f.Detail = false, err.Error()
		case len(missing) > 0:
			who := ""
			if account != "" {
				who = "ServiceAccount " + account + " "
			}
			f.OK, f.Detail, f.Hint = false, who+"may not: "+strings.Join(missing, "; "), "examples/install has the Role"
		}
		findings = append(findings, f)
	}
	return findings
}

// examineBounds says what the environments' bounds refuse in this commit. Only
// the daemon's configuration is sure of that.
func (g *globals) examineBounds(config *config, all []reconcile.Rendered) []finding {
	if g.config == "" {
		return nil
	}
	problems := outOfBounds(config.fences(), all, true)
	if len(problems) == 0 {
		return []finding{{Check: "bounds", OK: true, Detail: "no environment has anything that it may not have"}}
	}
	var findings []finding
	for _, p := range problems {
		findings = append(findings, finding{"bounds", false, fmt.Sprintf("%s: %s", p.Position, p.Message), p.Hint})
	}
	return findings
}

// examineLeases checks what the daemon needs to run beside other replicas.
func examineLeases(ctx context.Context, config *config, name desired.ClusterName, cl *cluster.Cluster) []finding {
	if config.LeaderElection == nil && config.Shard == "" {
		return nil
	}
	e := leaderElectionConfig{}
	if config.LeaderElection != nil {
		e = *config.LeaderElection
	}
	if err := e.complete(); err != nil {
		return []finding{{"leases", false, err.Error(), ""}}
	}
	if e.Cluster != name {
		return nil
	}
	f := finding{Check: "leases", OK: true, Detail: "all permissions in namespace " + e.Namespace}
	denied, err := cl.DeniedLeases(ctx, e.Namespace)
	switch {
	case err != nil:
		f.OK, f.Detail = false, err.Error()
	case len(denied) > 0:
		f.OK, f.Detail, f.Hint = false, "may not: "+strings.Join(denied, "; "), "examples/install has the Role"
	}
	return []finding{f}
}

// runsJobs tells whether a stage of the environment has a Job run as a check.
func runsJobs(repo *desired.Repository, env desired.EnvironmentName) bool {
	for _, pipeline := range repo.Pipelines {
		stage := pipeline.Stage(env)
		if stage == nil {
			continue
		}
		for _, name := range slices.Concat(stage.Verify, stage.Admit) {
			if p := repo.Policies[name]; p != nil && p.Job != nil {
				return true
			}
		}
	}
	return false
}

// examineIdentity shows by what a cluster is known.
func examineIdentity(ctx context.Context, check, name string, cl *cluster.Cluster) finding {
	check += ": identity"
	uid, expected, err := cl.Identity(ctx)
	switch {
	case err != nil:
		return finding{check, expected == "", err.Error(), "without it, nobody notices that a kubeconfig leads to another cluster; give our account the verb get on namespaces, for kube-system (examples/install)"}
	case expected == "":
		return finding{check, true, uid, "clusters." + name + ".identity: " + uid + " in the configuration has nothing written to any other cluster"}
	case expected != uid:
		return finding{check, false, fmt.Sprintf("this is cluster %s, and the configuration says %s", uid, expected), "mend the kubeconfig, or write clusters." + name + ".identity: " + uid}
	}
	return finding{Check: check, OK: true, Detail: uid + ", as the configuration says"}
}

// examineClock compares this machine's clock with the API server's.
func examineClock(ctx context.Context, check string, cl *cluster.Cluster) finding {
	before := time.Now()
	theirs, err := cl.Clock(ctx)
	check += ": clock"
	if err != nil {
		return finding{check, false, err.Error(), ""}
	}
	// The header counts whole seconds, and was written between the two looks.
	off := time.Duration(0)
	switch after := time.Now(); {
	case theirs.Add(time.Second).Before(before):
		off = before.Sub(theirs)
	case theirs.After(after):
		off = theirs.Sub(after)
	}
	f := finding{Check: check, OK: off <= clockTolerance, Detail: fmt.Sprintf("differs from the API server's by %s", off.Round(time.Second))}
	if !f.OK {
		f.Hint = "time stamps and time limits will be wrong; synchronise this machine's clock"
	}
	return f
}

// missingPermissions says what the environment's services need and the
// account may not do.
func missingPermissions(ctx context.Context, cl *cluster.Cluster, namespace string, all []reconcile.Rendered) ([]string, error) {
	var missing []string
	var errs []error
	seen := map[string]bool{}
	for _, r := range all {
		for _, o := range r.Target.Result.Objects {
			kind := o.Ref.Group + "/" + o.Ref.Kind
			if seen[kind] {
				continue
			}
			seen[kind] = true
			denied, err := cl.Denied(ctx, namespace, o)
			var unknownKind *cluster.UnknownKindError
			if err != nil && !errors.As(err, &unknownKind) {
				errs = append(errs, err)
			}
			missing = append(missing, denied...)
		}
	}
	denied, err := cl.DeniedOwn(ctx, namespace)
	slices.Sort(missing)
	return append(missing, denied...), errors.Join(append(errs, err)...)
}
