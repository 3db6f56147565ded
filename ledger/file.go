package ledger

import (
	"io/fs"

	"github.com/pinion-cd/pinion/desired"
)

// Branch returns the ledger of an environment: "ledger/staging".
func Branch(env desired.EnvironmentName) string { return "ledger/" + string(env) }

// RecordFile returns where a ledger's tree has the record of a service.
func RecordFile(svc desired.ServiceName) string { return string(svc) + "/deployment.yaml" }

// ManifestsFile returns where a ledger's tree has what was applied of a service.
func ManifestsFile(svc desired.ServiceName) string { return string(svc) + "/manifests.yaml" }

// Encode returns the record as YAML.
func (r Record) Encode() []byte { return nil }

// DecodeRecord reads what Encode wrote. It is strict; file is for the error.
func DecodeRecord(file string, data []byte) (Record, error) { return Record{}, nil }

// Read returns all records of a ledger's tree. One that can't be read leaves
// the others as they are: they come with a joined error.
func Read(fsys fs.FS) (map[desired.ServiceName]Record, error) { return nil, nil }
