package forge

// State is what a commit status says.
type State string

// The states.
const (
	Pending State = "pending"
	Success State = "success"
	Failure State = "failure"
	// Neutral is for what came to nothing and did not fail. A forge without a
	// word for it is told what lets nobody pass.
	Neutral State = "neutral"
)

// Status is what is said of a commit.
type Status struct {
	Context     string // what says it: "pinion/production"
	State       State
	Description string
	URL         string // where there is more; "": nowhere
}

// MaxDescription is how long a description may be, in characters, for all
// forges.
const MaxDescription = 140

// Short cuts a text to what a description may hold.
func Short(text string) string {
	r := []rune(text)
	if len(r) <= MaxDescription {
		return text
	}
	return string(r[:MaxDescription-1]) + "…"
}
