// Package deliver sends news to sinks: it reads the branches on which they
// come about, asks package notify what to send to whom, sends it over HTTP, and
// keeps how far each sink was told.
//
// The queue is git. What waits is read from the ledgers, and from the main
// branch for holds, when its turn comes; in memory there are a few items of
// each sink and branch, however long a receiver is down. What is kept is a
// position for each sink and branch, on the branch pinion/sinks: a file for each
// ledger, pushed when all was told and every half minute otherwise, by compare
// and swap like all that Pinion pushes. So it is the same for whichever replica
// takes an environment over, and for one whose data folder is lost. A new sink is
// told what happens from then on.
//
// One goroutine (Courier.Run) owns all state; requests and pushes run beside it,
// and nobody waits for them. Where several replicas run, each tells the news of
// the environments that it has; those of holds are told by whoever has the first
// environment by name.
//
// It never drops news because a receiver fails, but for what was tried in vain
// for notify.GiveUp; never follows a redirect; never shows an address, which may
// hold a secret, or a secret. A crash has sent again what was sent since the
// position was kept, with the same ids and in the same order, and loses nothing.
package deliver
