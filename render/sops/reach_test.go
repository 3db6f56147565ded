package sops

import (
	"fmt"
	"strings"
	"testing"
)

// with adds lines to the metadata of a golden file.
func with(t *testing.T, lines string) string {
	t.Helper()
	return strings.Replace(string(read(t, "secret.yaml")), "    encrypted_regex:", lines+"    encrypted_regex:", 1)
}

func TestReachFindsWhomAFileHasAsked(t *testing.T) {
	json := func(metadata string) string {
		return fmt.Sprintf(`{"a": "ENC[x]", "sops": {"lastmodified": "2026-01-01T00:00:00Z", "version": "3.9.0", "mac": "x", %s}}`, metadata)
	}
	env := "a=ENC[x]\nsops_lastmodified=2026-01-01T00:00:00Z\nsops_mac=x\n"
	ini := "[a]\nvault_address = ENC[AES256_GCM,data:x]\n[sops]\nlastmodified = 2026-01-01T00:00:00Z\nmac = ENC[x,y=]\n"
	const vault = "https://vault.example:8200"
	for _, c := range []struct{ name, file, data, want string }{
		{"none", "s.yaml", with(t, ""), ""},
		{"a vault", "s.yaml", with(t, "    hc_vault:\n        - vault_address: "+vault+"\n          engine_path: transit\n          key_name: k\n"), vault},
		{"an azure vault", "s.yaml", with(t, "    azure_kv:\n        - vault_url: https://shop.vault.azure.net\n"), "https://shop.vault.azure.net"},
		{"in a group", "s.yaml", with(t, "    key_groups:\n        - hc_vault:\n            - vault_address: "+vault+"\n        - azure_kv:\n            - vault_url: https://b\n"), vault + " https://b"},
		{"one where a list is meant", "s.yaml", with(t, "    hc_vault:\n        vault_address: "+vault+"\n"), vault},
		{"in another case", "s.yaml", with(t, "    HC_Vault:\n        - Vault_Addreſſ: "+vault+"\n"), vault},
		{"in a later document", "s.yaml", with(t, "") + "---\na: b\nsops:\n    hc_vault:\n        - vault_address: " + vault + "\n", vault},
		{"what is no metadata", "s.yaml", "vault_address: x\n" + with(t, ""), ""},
		{"JSON", "s.json", json(`"hc_vault": [{"vault_address": "` + vault + `"}]`), vault},
		{"JSON beside", "s.json", strings.Replace(json(`"age": []`), `{"a"`, `{"SOPS": {"hc_vault": [{"vault_address": "`+vault+`"}]}, "a"`, 1), vault},
		{"binary", "s.conf", strings.Replace(json(`"hc_vault": [{"vault_address": "`+vault+`"}]`), `"a"`, `"data"`, 1), vault},
		{"dotenv", "s.env", env + "vault_address=ENC[x]\nsops_hc_vault__list_0__map_vault_address=" + vault + "\n", vault},
		{"dotenv groups", "s.env", env + "sops_key_groups__list_0__map_azure_kv__list_0__map_VAULT_URL=" + vault + "\n", vault},
		{"INI", "s.ini", ini + "hc_vault__list_0__map_vault_address = " + vault + "\n", vault},
		{"INI aligned", "s.ini", ini + "hc_vault__list_0__map_vault_address     = " + vault + "\r\n", vault},
	} {
		found, err := Reach(c.file, []byte(c.data))
		var got []string
		for _, a := range found {
			got = append(got, a.URL.String())
			if a.Line == 0 {
				t.Errorf("%s: %s has no line", c.name, a.URL)
			}
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v %v", c.name, got, err)
		}
	}
	in := func(key, value string) string {
		return with(t, "    hc_vault:\n        - "+key+": "+value+"\n")
	}
	line := "hc_vault__list_0__map_vault_address"
	for _, c := range []struct{ file, data, want string }{
		{"s.yaml", in("vault_address", `""`), "is not the address of a vault"},
		{"s.yaml", in("vault_address", "12"), "is not the address of a vault"},
		{"s.yaml", in("vault_address", "[https://vault.example]"), "is not the address of a vault"},
		{"s.yaml", in("vault_address", "unix:///var/run/vault.sock"), "is not the address of a vault"},
		{"s.yaml", in("vault_address", "vault.example:8200"), "is not the address of a vault"},
		{"s.yaml", in("vault_address", "https://vault.example@other.example"), "is not the address of a vault"},
		{"s.yaml", in("vault_address", "https://vault.example,https://other.example"), "is not the address of a vault"},
		{"s.yaml", in("vault_address", `'https://vault.example\.other.example'`), "is not the address of a vault"},
		{"s.yaml", in("vault_url", "'https://vault.example#x'"), "is not the address of a vault"},
		{"s.yaml", in("key_name", "../../sys/seal"), "leaves the engine"},
		{"s.yaml", in("engine_path", ".."), "leaves the engine"},
		{"s.yaml", with(t, "    x: &a {vault_address: https://b}\n    hc_vault: [*a]\n"), "anchors"},
		{"s.yaml", with(t, "    kms:\n        - arn: 'arn:aws:kms:other.example/#:1:key/2'\n"), "is not that of an AWS key"},
		{"s.yaml", with(t, "    kms:\n        - arn: 'arn:aws:kms:eu:1:key/2:1:key/2'\n"), "is not that of an AWS key"},
		{"s.json", json(`"a": 1, "a": {"vault_address": "https://b"}`), "is not encrypted"},
		{"s.env", env + "sops_" + line + "=https://a.example\\n\n", "is not the address of a vault"},
		{"s.ini", ini + line + ": https://other.example\n", "is not the address of a vault"},
		{"s.ini", ini + `"` + line + `" = https://other.example` + "\n", "is not the address of a vault"},
		{"s.ini", ini + "`" + line + "` = https://other.example\n", "is not the address of a vault"},
		{"s.ini", ini + line + " = https://vault.example\\\n.other.example\n", "is not the address of a vault"},
		{"s.ini", ini + line + " = \"https://other.example\"\n", "is not the address of a vault"},
		{"s.yaml", "a: b\n", "is not encrypted"},
	} {
		if found, err := Reach(c.file, []byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\n%v %v", c.data, found, err)
		}
	}
}

func FuzzReach(f *testing.F) {
	for _, data := range []string{
		"a: ENC\nsops:\n  hc_vault: [{vault_address: https://a}]\n  lastmodified: x\n",
		`{"sops":{"lastmodified":"x","hc_vault":[{"vault_address":"https://a"}]}}`,
		"sops_lastmodified=x\nsops_a__map_vault_address=https://a\n", "[sops]\nlastmodified=1\na__map_vault_address=https://a\n",
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data string) {
		found, err := Reach("s", []byte(data))
		for _, a := range found {
			if err != nil || a.URL.Host == "" || a.URL.User != nil {
				t.Errorf("%v %v", a, err)
			}
		}
	})
}
