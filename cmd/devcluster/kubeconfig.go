package main

import (
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// An access is all that a client needs to reach the API server as somebody.
type access struct {
	url   string
	caPEM []byte
	identity
}

// writeKubeconfig writes the access to a file that only the user can read.
func (a access) writeKubeconfig(path string) error {
	const name = "devcluster"
	config := clientcmdapi.NewConfig()
	config.Clusters[name] = &clientcmdapi.Cluster{Server: a.url, CertificateAuthorityData: a.caPEM}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: a.certPEM, ClientKeyData: a.keyPEM}
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.CurrentContext = name
	data, err := clientcmd.Write(*config)
	if err != nil {
		return err
	}
	return writeFile(path, data)
}

// config is for clients inside this process. The user agent is also what
// managedFields name as the manager. Such clients are not throttled.
func (a access) config(userAgent string) *rest.Config {
	return &rest.Config{
		Host:      a.url,
		UserAgent: userAgent,
		QPS:       -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData:   a.caPEM,
			CertData: a.certPEM,
			KeyData:  a.keyPEM,
		},
	}
}
