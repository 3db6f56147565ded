// Package reconcile moves clusters to what a commit asks for.
//
// It is made of decisions and of one loop that carries them out. The
// decisions are functions from values to values and give their reasons in
// words: MakePlan says what to apply for one service and in which order,
// Prune says what left the commit and may be deleted, Next says what a
// service waits for and what is to be done now. The loop (Engine) owns all
// state in one goroutine; it prepares a commit (reads it, renders what it
// changed), starts at most one job for each service, and looks again whenever
// a commit, a job, a watch or a deadline tells it to. The command line and the
// daemon run the same engine: `pinion apply` stops when all has settled,
// `pinion run` does not.
//
// A trigger only ever means "look again". Nothing that the engine knows is
// needed to go on after a crash: what runs is read from the cluster (labels,
// managed fields, the inventory), what is wanted from git. Applying twice is
// applying once.
//
// Where several replicas follow one repository, Tenure says which environments
// are ours, and each unit, site and check ends with the term under which it
// began. Engine and Clerk run all the time: on a replica that has nothing they
// read, and write nothing.
//
// It never deletes on a view that is not complete, never touches what it does
// not own, and never lets one service stop another.
package reconcile
