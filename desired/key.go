package desired

import "github.com/pinion-cd/pinion/artifact/signature"

// Key is a public key, keys/NAME.pub, with which artifacts are signed.
type Key struct {
	Name KeyName
	File string
	signature.Key
}

func keyFile(name string) string { return "keys/" + name + ".pub" }

// key fills in a file that is a public key, and no YAML.
func (f *file) key(data []byte) {
	k, err := signature.ParseKey(data)
	if err != nil {
		f.broken = true
		f.problems = []Problem{{SeverityError, Position{File: f.path}, "the key can't be used: " + err.Error(),
			"put the public key here, as `cosign generate-key-pair` writes it to cosign.pub", KindKey, f.name}}
		return
	}
	f.value = &Key{KeyName(f.name), f.path, k}
}
