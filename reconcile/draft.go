package reconcile

import (
	"slices"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/gitstate"
	"github.com/pinion-cd/pinion/policy"
)

// draft is an environment's file with one edit after the other written into
// it. It is kept from one try of a push to the next: the tip is another one
// then, and has the same file as a rule, so that nothing has to be written
// anew.
type draft struct {
	file  string
	base  string // the id of what was there before the first step
	steps []step
	next  int             // the step that is to be written
	last  *desired.Editor // holds the file as the last step left it; nil: not opened
	data  []byte          // what the base holds
}

// step is one edit, and the file after it; or the reason why it is refused.
type step struct {
	edit desired.Edit
	blob *gitstate.Blob
	err  error
	// message is what the commit says of the promotion.
	promotion *policy.Promotion
	message   string
}

// draft opens an environment's file at the tip that is judged on.
func (c *Clerk) draft(env desired.EnvironmentName) (*draft, error) {
	file := environmentFile(env)
	id, err := c.commit.Snapshot.ID(file)
	if err != nil {
		return nil, err
	}
	d := c.drafts[env]
	if d == nil || !d.begin(id) {
		data, err := c.commit.Snapshot.ReadFile(file)
		if err != nil {
			return nil, err
		}
		d = &draft{file: file, base: id, data: data}
		c.drafts[env] = d
	}
	return d, nil
}

// begin goes back to what the file is now, if that is the base or has become
// of it by some of the steps.
func (d *draft) begin(id string) bool {
	d.next = 0
	if id == d.base {
		return true
	}
	i := slices.IndexFunc(d.steps, func(s step) bool { return s.err == nil && s.blob.ID() == id })
	if i < 0 {
		return false
	}
	d.base, d.data = id, d.steps[i].blob.Data()
	d.steps = slices.Clone(d.steps[i+1:]) // what has landed can be forgotten
	return true
}

// promote returns the file after one more promotion, and the message of the
// commit. What is promoted for the same reasons as before says the same.
func (d *draft) promote(p *policy.Promotion) (*gitstate.Blob, string, error) {
	if d.next < len(d.steps) && d.steps[d.next].promotion == p {
		s := d.steps[d.next]
		d.next++
		return s.blob, s.message, s.err
	}
	edit, change := promotion(*p)
	blob, err := d.write(edit)
	s := &d.steps[d.next-1]
	s.promotion, s.message = p, change.Message()
	return blob, s.message, err
}

// write returns the file after one more edit. One that is refused changes
// nothing.
func (d *draft) write(edit desired.Edit) (*gitstate.Blob, error) {
	if d.next < len(d.steps) && d.steps[d.next].edit.Equal(edit) {
		s := d.steps[d.next]
		d.next++
		return s.blob, s.err
	}
	if d.next < len(d.steps) {
		d.steps, d.last = d.steps[:d.next], nil
	}
	before, data := d.before()
	if d.last == nil {
		var err error
		if d.last, err = desired.NewEditor(d.file, data); err != nil {
			return nil, err
		}
	}
	s := step{edit: edit}
	if data, s.err = d.last.Apply(edit); s.err == nil {
		s.blob = gitstate.NewBlob(data, before)
	}
	d.steps = append(d.steps, s)
	d.next++
	return s.blob, s.err
}

// before is the file as the steps so far leave it.
func (d *draft) before() (*gitstate.Blob, []byte) {
	for _, s := range slices.Backward(d.steps) {
		if s.err == nil {
			return s.blob, s.blob.Data()
		}
	}
	return nil, d.data
}
