//go:build race

package worker

// The race detector maps more memory than any limit allows.
const raceEnabled = true
