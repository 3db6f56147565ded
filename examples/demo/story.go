package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// pin has Dana bump a version in dev.
func (d *demo) pin(ctx context.Context, artifact, to string) error {
	return d.do(ctx, command{by: d.people.dana, line: []string{"pinion", "pin", "dev", artifact, to, "--yes"}, shows: []string{":" + to, "pushed "}})
}

// tests has CI report on web in staging.
func (d *demo) tests(ctx context.Context, version, run string) error {
	return d.do(ctx, command{
		by:    d.people.ci,
		line:  []string{"pinion", "report", "staging", "web", "e2e", "success", "--version", version, "--url", "https://ci.shop.example/" + run},
		shows: []string{"recorded in ledger/staging"},
	})
}

// why has Dana ask about web in production.
func (d *demo) why(ctx context.Context, shows ...string) error {
	return d.do(ctx, command{by: d.people.dana, line: []string{"pinion", "why", "production", "web"}, fresh: true, shows: shows})
}

// moved is how the daemon writes a change of version.
func moved(from, to string) string { return from + " → " + to }

// bump is a version's way through dev into staging.
func (d *demo) bump(ctx context.Context) error {
	v := d.cast
	d.say("Dana, a developer, bumps web in dev to %s.", v.good)
	if err := d.pin(ctx, "web", v.good); err != nil {
		return err
	}
	if err := d.watch(ctx, "completed(dev): web "+moved(v.first, v.good), "completed(staging): web "+moved(v.first, v.good)); err != nil {
		return err
	}
	if err := d.runs(ctx, "staging", v.good); err != nil {
		return err
	}
	d.look("The version rolled out in dev, the smoke test (a Kubernetes Job) passed, and the daemon itself\ncommitted the promotion to staging.")
	return nil
}

// report is how staging is verified, and what production then waits for.
func (d *demo) report(ctx context.Context) error {
	v := d.cast
	d.say("CI has run the end-to-end tests against staging, and reports.")
	if err := d.tests(ctx, v.good, "812"); err != nil {
		return err
	}
	if err := d.watch(ctx, "offered(production): web "+moved(v.first, v.good)); err != nil {
		return err
	}
	d.tell("Four healthy seconds were asked for as well, and are over. Why is it not in production yet?")
	if err := d.why(ctx, v.good, "waits for", "release", "0 of 1 approval"); err != nil {
		return err
	}
	d.look("The first sentence is the answer: %s waits for one approval. Below it is each gate, and what\nopens it.", v.good)
	return nil
}

// approve is how a version enters production.
func (d *demo) approve(ctx context.Context) error {
	v := d.cast
	d.say("An approval. Dana may approve releases, but not the version that she chose; Rosa may.")
	line := []string{"pinion", "approve", "production", "web", "--version", v.good}
	if err := d.do(ctx, command{by: d.people.dana, line: line, exit: 4, why: "not authorised", shows: []string{"dana chose"}}); err != nil {
		return err
	}
	line = append(line, "--comment", "release notes are out")
	if err := d.do(ctx, command{by: d.people.rosa, line: line, shows: []string{"approved " + v.good}}); err != nil {
		return err
	}
	if err := d.watch(ctx, "verified(production): web "+moved(v.first, v.good)); err != nil {
		return err
	}
	if err := d.runs(ctx, "production", v.good); err != nil {
		return err
	}
	if err := d.do(ctx, command{
		by: d.people.dana, line: []string{"git", "show", "origin/main"}, fresh: true,
		shows: []string{"promote(production): web " + moved(v.first, v.good), "Approved by rosa", "+    image:", "Co-authored-by: Dana"},
	}); err != nil {
		return err
	}
	d.look("This commit is the deployment: one line changes, and the message says on what grounds.\nThe lines at its end (trailers) say the same to machines.")
	return nil
}

// failSmoke is a version that starts, and does not pass its test.
func (d *demo) failSmoke(ctx context.Context) error {
	v := d.cast
	d.say("Dana bumps web to %s, which starts, but is not healthy.", v.sick)
	if err := d.pin(ctx, "web", v.sick); err != nil {
		return err
	}
	if err := d.watch(ctx, "failed(dev): web "+moved(v.good, v.sick), "verified(dev): web "+moved(v.sick, v.good)); err != nil {
		return err
	}
	if err := d.runs(ctx, "dev", v.good); err != nil {
		return err
	}
	d.tell("What did the smoke test see? The environment's ledger, a branch that the daemon keeps, has it:")
	if err := d.do(ctx, command{
		by: d.people.dana, line: []string{"git", "log", "-1", "--grep=^check(dev): web " + v.sick, "--format=%B", "origin/ledger/dev"}, fresh: true,
		shows: []string{"smoke failed", "GET /health: 500 no such table: carts"},
	}); err != nil {
		return err
	}
	d.look("The end of the Job's log is in the entry. The daemon went back to %s by a commit; %s never\nreached staging, and does not come back to dev unless a person pins it again.", v.good, v.sick)
	return nil
}

// failStart is a version that can't start.
func (d *demo) failStart(ctx context.Context) error {
	v := d.cast
	d.say("Dana bumps api to %s, an image that does not exist.", v.missing)
	before, err := d.specs(ctx)
	if err != nil {
		return err
	}
	if err := d.pin(ctx, "api", v.missing); err != nil {
		return err
	}
	trouble, serving := "", int32(0)
	err = d.until(ctx, "a pod of api that can't start", func(ctx context.Context) (bool, string, error) {
		x, err := d.deployment(ctx, "dev", "api")
		if err != nil || !strings.HasSuffix(image(x), ":"+v.missing) {
			return false, "api is another one", err
		}
		serving = x.Status.AvailableReplicas
		trouble, err = d.podTrouble(ctx, x)
		return trouble != "", "no pod of api is in trouble", err
	})
	switch {
	case err != nil:
		return err
	case serving == 0:
		return errors.New("no pod of api is left to serve")
	}
	d.tell("Seen in the API server: %s\n%d old pods still serve, for as long as the service's rollout may take:", trouble, serving)
	if err := d.watch(ctx, "failed(dev): api "+moved(v.first, v.missing), "verified(dev): api "+moved(v.missing, v.first)); err != nil {
		return err
	}
	if !strings.Contains(d.daemon.all(), "ImagePull") {
		return errors.New("the daemon does not say why api has failed")
	}
	if err := d.onlyTouched(ctx, before, "dev", "api"); err != nil {
		return err
	}
	d.look("The line failed(dev) names the pod, the container and the reason; api is back at %s.", v.first)
	return nil
}

// freeze keeps a version out of production.
func (d *demo) freeze(ctx context.Context) error {
	v := d.cast
	d.say("An incident: Omar, who is on call, freezes production. Meanwhile %s comes along.", v.later)
	if err := d.do(ctx, command{
		by:    d.people.omar,
		line:  []string{"pinion", "hold", "freeze", "--environment", "production", "--reason", "INC-431, checkout errors", "--yes"},
		shows: []string{"holds/freeze.yaml", "pushed "},
	}); err != nil {
		return err
	}
	if err := d.pin(ctx, "web", v.later); err != nil {
		return err
	}
	if err := d.watch(ctx, "completed(staging): web "+moved(v.good, v.later)); err != nil {
		return err
	}
	if err := d.tests(ctx, v.later, "815"); err != nil {
		return err
	}
	if err := d.watch(ctx, "offered(production): web "+moved(v.good, v.later)); err != nil {
		return err
	}
	if err := d.do(ctx, command{
		by: d.people.rosa, line: []string{"pinion", "approve", "production", "web", "--version", v.later}, shows: []string{"approved " + v.later},
	}); err != nil {
		return err
	}
	if err := d.watch(ctx, "approved(production): web "+v.later); err != nil {
		return err
	}
	if err := d.why(ctx, "production runs web "+v.good, "hold freeze", "INC-431", "pinion release freeze", "1 of 1 approval"); err != nil {
		return err
	}
	if err := d.runs(ctx, "production", v.good); err != nil {
		return err
	}
	d.look("%s is verified and approved, and stays out all the same: the hold is the only gate that is\nnot open.", v.later)
	return nil
}

// release lets it in.
func (d *demo) release(ctx context.Context) error {
	v := d.cast
	d.say("The incident is over.")
	if err := d.do(ctx, command{by: d.people.omar, line: []string{"pinion", "release", "freeze", "--yes"}, shows: []string{"frees web " + v.later}}); err != nil {
		return err
	}
	if err := d.watch(ctx, "verified(production): web "+moved(v.good, v.later)); err != nil {
		return err
	}
	if err := d.runs(ctx, "production", v.later); err != nil {
		return err
	}
	d.look("Nobody had to start anything: the hold ended, and what waited for it went in.")
	return nil
}

// record is what remains.
func (d *demo) record(ctx context.Context) error {
	v := d.cast
	d.say("What is left is the record.")
	dana := d.people.dana
	for _, c := range []struct {
		command
		look string
	}{
		{
			command{line: []string{"pinion", "status"}, fresh: true, shows: []string{v.later + " verified"}},
			fmt.Sprintf("web is at %s everywhere, and api where it was.", v.later),
		}, {
			command{line: []string{"pinion", "log", "production", "web"}, shows: []string{"offered", "approved", "rosa", "promotion", "verified"}},
			"Who, what, when, on what grounds: from the newest entry back to the first.",
		}, {
			command{line: []string{
				"git", "log", "--date=format:%H:%M:%S",
				"--format=%cd %<(40)%s %(trailers:key=Pinion-Actor,valueonly,separator=%x2C)", "origin/ledger/production",
			}, shows: []string{
				"approved(production): web " + v.later + " by rosa", "rosa <rosa@shop.example>",
				"pinned(production): web " + moved(v.good, v.later), "Pinion <cd@shop.example>",
			}},
			"The same ledger, read by git alone: an auditor needs nothing of Pinion's.",
		}, {
			command{line: []string{"git", "log", "--format=%<(6)%an %s", "origin/main"}, shows: []string{
				"promote(production): web " + moved(v.good, v.later), "release(freeze)", "hold(freeze)",
				"rollback(dev): api", "rollback(dev): web " + moved(v.sick, v.good), "pin(dev): web " + moved(v.first, v.good),
			}},
			"What people did and what the daemon did stand side by side. To undo one is git revert.",
		},
	} {
		c.by = dana
		if err := d.do(ctx, c.command); err != nil {
			return err
		}
		d.look("%s", c.look)
	}
	return nil
}

// verify checks the signature of the newest entry.
func (d *demo) verify(ctx context.Context) error {
	if !d.signed {
		d.say("The daemon's commits are not signed, for there was no key to sign with.")
		return nil
	}
	d.say("Is the newest entry the daemon's own? Its signature tells.")
	version, err := d.git(ctx, "version")
	if err != nil {
		return err
	}
	major, minor := 0, 0
	if _, err := fmt.Sscanf(version, "git version %d.%d", &major, &minor); err != nil || major < 2 || major == 2 && minor < 34 {
		d.tell("It is signed with an SSH key, and git can check that from 2.34 on. This is %s.", version)
		return nil
	}
	if err := d.do(ctx, command{by: d.people.dana, line: []string{"git", "verify-commit", "origin/ledger/production"}, shows: []string{"Good", "cd@shop.example"}}); err != nil {
		return err
	}
	d.look("The clone knows the key by gpg.ssh.allowedSignersFile.")
	return nil
}

// linger leaves everything running until it is interrupted.
func (d *demo) linger(ctx context.Context) error {
	fmt.Fprintln(d.out, "\nEverything keeps running until you press Ctrl-C. To look around, in another shell:")
	for _, line := range []string{
		"cd " + d.clone,
		"export PATH=" + d.bin + ":$PATH KUBECONFIG=" + quote([]string{d.absolute(d.kubeconfig)}),
		"export PINION_SERVER=http://" + d.server + " PINION_TOKEN=" + d.people.rosa.token + "   # you are Rosa then",
		"kubectl get deployments,jobs -A",
		"pinion where web",
		"pinion pin dev web NEXT-VERSION",
	} {
		d.tell("%s", line)
	}
	fmt.Fprintln(d.out)
	for ; ; d.heard++ {
		line, err := d.daemon.next(ctx, d.heard)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		fmt.Fprintf(d.out, "   pinion │ %s\n", line)
	}
}

// absolute is a file as it is named in another folder.
func (d *demo) absolute(file string) string {
	if a, err := filepath.Abs(file); err == nil {
		return a
	}
	return file
}

// runs waits until the API server has a version of web in an environment, all
// rolled out.
func (d *demo) runs(ctx context.Context, env, version string) error {
	ns, name := d.place(env, "web")
	err := d.until(ctx, fmt.Sprintf("web %s in %s", version, env), func(ctx context.Context) (bool, string, error) {
		x, err := d.deployment(ctx, env, "web")
		if err != nil {
			return false, "", err
		}
		return strings.HasSuffix(image(x), ":"+version) && complete(x), image(x), nil
	})
	if err != nil {
		return err
	}
	d.tell("Seen in the API server: Deployment %s/%s runs %s.", ns, name, version)
	return nil
}
