package worker

// Processes returns the process ids of a pool's workers.
func Processes(p *Pool) []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pids []int
	for w := range p.all {
		pids = append(pids, w.cmd.Process.Pid)
	}
	return pids
}

// Confine is what a worker does to itself before its first request.
var Confine = confine

// CutOff closes the standard input of all workers.
func CutOff(p *Pool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for w := range p.all {
		w.in.Close()
	}
}
