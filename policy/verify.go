package policy

// Verify judges whether a deployment is verified, or has failed.
func Verify(v Verification) Judgement {
	return Judgement{State: v.Record.Deployment.State, Reason: "not judged"}
}
