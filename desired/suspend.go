package desired

import "fmt"

// Suspension says that nothing is written, and why.
type Suspension struct {
	Reason string
}

// Suspended says why nothing of a service is written in an environment, or "".
func (r *Repository) Suspended(env EnvironmentName, svc ServiceName) string {
	if e := r.Environments[env]; e != nil && e.Suspend != nil {
		return fmt.Sprintf("environment %s is suspended: %s", env, e.Suspend.Reason)
	}
	if s := r.Services[svc]; s != nil && s.Suspend != nil {
		return fmt.Sprintf("service %s is suspended: %s", svc, s.Suspend.Reason)
	}
	return ""
}

func suspension(raw *suspendFile) *Suspension {
	if raw == nil {
		return nil
	}
	return &Suspension{Reason: raw.Reason.or("")}
}
