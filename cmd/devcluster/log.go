package main

import (
	"flag"
	"fmt"
	"log"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// openLog sends what the components log to a file; stderr is left for what ends
// the process.
func openLog(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	var flags flag.FlagSet
	klog.InitFlags(&flags)
	for name, value := range map[string]string{
		"logtostderr":     "false",
		"one_output":      "true",
		"stderrthreshold": "FATAL",
	} {
		if err := flags.Set(name, value); err != nil {
			return nil, fmt.Errorf("set up the log: %w", err)
		}
	}
	klog.SetOutput(file)
	log.SetOutput(file)
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	return file, nil
}
