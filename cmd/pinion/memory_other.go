//go:build !linux

package main

// protectMemory does nothing where there is no way that we know.
func protectMemory() error { return nil }
