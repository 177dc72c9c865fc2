package schema

import "streamcount/lease/policy"

// PolicyAttributes returns the attributes of the stream for a rule that needs them.
func (r *Record) PolicyAttributes() *policy.Attributes {
	as := &policy.Attributes{
		DeviceID: r.DeviceID(), ContentID: r.ContentID(), Region: r.Region, Priority: policy.DefaultPriority,
	}
	if r.Device != nil {
		as.DeviceType = r.Device.Type
	}
	if more := r.Attributes; more != nil {
		as.Profile, as.Network, as.ContentType = more.Profile, more.Network, more.ContentType
		as.ContentLabels, as.Labels = more.ContentLabels, more.Labels
		if more.Priority != nil {
			as.Priority = min(max(*more.Priority, 0), policy.MaxPriority)
		}
	}
	return as
}
