package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/pinion-cd/pinion/desired"
)

// Branch returns the ledger of an environment: "ledger/staging".
func Branch(env desired.EnvironmentName) string { return "ledger/" + string(env) }

const (
	recordFile    = "deployment.yaml"
	manifestsFile = "manifests.yaml"
)

// RecordFile returns where a ledger's tree has the record of a service.
func RecordFile(svc desired.ServiceName) string { return string(svc) + "/" + recordFile }

// ManifestsFile returns where a ledger's tree has what was applied of a service.
func ManifestsFile(svc desired.ServiceName) string { return string(svc) + "/" + manifestsFile }

const (
	apiVersion = desired.APIVersion
	recordKind = "Deployment"
	header     = "apiVersion: " + apiVersion + "\nkind: " + recordKind + "\n"
)

// Encode returns the record as YAML, the same bytes for the same record.
func (r Record) Encode() []byte {
	return appendMapping(append(make([]byte, 0, 4<<10), header...), reflect.ValueOf(&r).Elem(), recordShape(), 0, false)
}

// DecodeRecord reads what Encode wrote. It is strict, also where somebody has
// edited it; the error has the file, and the line and column if they are known.
func DecodeRecord(file string, data []byte) (Record, error) {
	r, err := decodeSimple(string(data))
	if err != nil {
		r, err = decodeAny(data)
	}
	if err == nil {
		err = r.valid()
	}
	if p := (*place)(nil); errors.As(err, &p) {
		return Record{}, fmt.Errorf("%s:%w", file, err)
	}
	if err != nil {
		return Record{}, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

func decodeSimple(data string) (Record, error) {
	rest, ok := strings.CutPrefix(data, header)
	if !ok || !strings.HasSuffix(rest, "\n") {
		return Record{}, errOther
	}
	var r Record
	l := lines{rest: rest}
	l.next()
	if err := l.mapping(reflect.ValueOf(&r).Elem(), recordShape(), 0); err != nil {
		return Record{}, err
	}
	if !l.end {
		return Record{}, errOther
	}
	return r, nil
}

func decodeAny(data []byte) (r Record, err error) {
	defer func() {
		// The parser is not ours, and a daemon must outlive what it does not
		// expect.
		if p := recover(); p != nil {
			r, err = Record{}, fmt.Errorf("not valid YAML: %v", p)
		}
	}()
	var top yaml.Node
	if err := yaml.Unmarshal(data, &top); err != nil {
		return Record{}, fmt.Errorf("not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if len(top.Content) == 0 || top.Content[0].Kind != yaml.MappingNode {
		return Record{}, errors.New("it is not a mapping")
	}
	// What every file of ours begins with is not a part of the record.
	root, kept := top.Content[0], []*yaml.Node(nil)
	want := map[string]string{"apiVersion": apiVersion, "kind": recordKind}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		if w, ok := want[key.Value]; ok {
			if value.Value != w {
				return Record{}, at(value, "%s is %q, not %q", key.Value, brief(value.Value, 100), w)
			}
			delete(want, key.Value)
			continue
		}
		kept = append(kept, key, value)
	}
	for _, key := range []string{"apiVersion", "kind"} {
		if w, missing := want[key]; missing {
			return Record{}, fmt.Errorf("it does not say %s: %s", key, w)
		}
	}
	root.Content = kept
	return r, decodeNode(reflect.ValueOf(&r).Elem(), recordShape(), root)
}

// valid tells what is wrong with a record that was read.
func (r Record) valid() error {
	if !isLabel(string(r.Environment)) || !isLabel(string(r.Service)) {
		return fmt.Errorf("it names no service and environment, but %q in %q", r.Service, r.Environment)
	}
	d := r.Deployment
	if !empty(reflect.ValueOf(&d).Elem(), deploymentShape()) {
		if d.ID == "" {
			return errors.New("the current deployment has no name")
		}
		if !d.State.known() {
			return fmt.Errorf("the current deployment has the state %q, and there is no such state", d.State)
		}
		if !d.Cause.known() {
			return fmt.Errorf("the current deployment has the cause %q, and there is no such cause", d.Cause)
		}
	}
	if p := r.Verified; p != nil {
		if err := p.valid(); err != nil {
			return err
		}
	}
	for i := range r.Previous {
		if err := r.Previous[i].valid(); err != nil {
			return err
		}
	}
	if err := validChecks(d.Checks); err != nil {
		return err
	}
	if r.Candidate != nil {
		return validChecks(r.Candidate.Checks)
	}
	return nil
}

func (p *Past) valid() error {
	if !p.State.known() {
		return fmt.Errorf("the deployment %q has the state %q, and there is no such state", p.ID, p.State)
	}
	return nil
}

var deploymentShape = sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[Deployment]()) })

func (s State) known() bool {
	switch s {
	case StatePinned, StateStarted, StateCompleted, StateVerified, StateFailed, StateSuperseded:
		return true
	}
	return false
}

func (c Cause) known() bool {
	switch c {
	case CausePin, CauseTracking, CauseManifests, CausePromotion, CauseRollback, CauseRevert:
		return true
	}
	return false
}

// Read returns all records of a ledger's tree. What is wrong with one is in the
// error, and the others come nevertheless. Nothing comes if one could not look.
func Read(fsys fs.FS) (map[desired.ServiceName]Record, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	records := make(map[desired.ServiceName]Record, len(entries))
	var errs []error
	for _, e := range entries {
		if !e.IsDir() {
			continue // a README, perhaps
		}
		r, err := readRecord(fsys, e.Name())
		if err != nil {
			errs = append(errs, fmt.Errorf("read the ledger: %w", err))
			continue
		}
		records[r.Service] = r
	}
	return records, errors.Join(errs...)
}

func readRecord(fsys fs.FS, dir string) (Record, error) {
	file := path.Join(dir, recordFile)
	data, err := fs.ReadFile(fsys, file)
	if err != nil {
		return Record{}, err
	}
	r, err := DecodeRecord(file, data)
	if err == nil && string(r.Service) != dir {
		return Record{}, fmt.Errorf("%s: it is the record of %s", file, r.Service)
	}
	return r, err
}
